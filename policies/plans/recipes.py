"""What a plan of a trained family says where nobody decided: constants found on public data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from policies.plans.models import FamilyName, LanguageArchitectureName

DEFAULT_ROUND_MINUTES: Final = 10.0
"""How long a round waits for a silo, where it may go on without."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One family's schedule and size; attributes are the plan's own fields.

    Attributes:
        features: width of the items' public features; never more than there are items; None where there are
            none.
        dimensions: of the space of item texts; likewise.
        hidden: width of the hidden layer; None where there is none.
        input_dropout: share of a history that is hidden from the network and asked of it; likewise.
        layers: of a network over ordered histories; likewise.
        places: newest items that it reads; likewise.
        negatives: that compete for a long list; likewise.
        popularity_share: part of ``target_epsilon`` at which popularity is counted first; 0 counts nothing.
        rounds: secure sums of the training.
        optimizer: of every silo.
        learning_rate: its step size.
        decay: of that step size.
        second_moment_decay: of Adam.
        local_learning_rate: of several local steps between two sums.
        max_grad_norm: norm of one user's gradient.
        clipping: how it is brought there.
    """

    features: int | None = None
    dimensions: int | None = None
    hidden: int | None = None
    input_dropout: float | None = None
    layers: int | None = None
    places: int | None = None
    negatives: int | None = None
    popularity_share: float = 0.0
    rounds: int
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float
    decay: Literal["none", "linear"] = "none"
    second_moment_decay: float = 0.999
    local_learning_rate: float
    max_grad_norm: float = 1.0
    clipping: Literal["flat", "automatic"] = "flat"


LANGUAGE_NETWORK: Final = "language network"
"""Family ``language`` with an architecture that reads histories in their order."""

DEFAULT_LANGUAGE_ARCHITECTURE: Final = "transformer"
"""Chosen on synthetic people (``benchmarks/language_marketplace.py``, of other seeds than the published)."""

_TRAINED: Final = Recipe(
    rounds=60,
    learning_rate=0.03,
    decay="linear",
    second_moment_decay=0.99,
    local_learning_rate=1.0,
    clipping="automatic",
)
"""What networks have in common; a family says where it differs."""

RECIPES: Final[Mapping[str, Recipe]] = {
    "linear": Recipe(features=1, rounds=5, learning_rate=0.05, local_learning_rate=1.0),
    "autoencoder": replace(
        _TRAINED,
        features=80,
        hidden=32,
        input_dropout=0.4,
        popularity_share=0.25,
    ),
    "language": replace(
        _TRAINED,
        dimensions=32,
        hidden=32,
        input_dropout=0.4,
    ),
    LANGUAGE_NETWORK: replace(
        _TRAINED,
        dimensions=32,
        hidden=32,
        layers=1,
        places=20,
        negatives=2_048,
        learning_rate=0.01,
    ),
    "sequence": replace(
        _TRAINED,
        features=80,
        hidden=32,
        layers=1,
        places=20,
        popularity_share=0.25,
        learning_rate=0.01,
    ),
}

MASKED_SHARE: Final = 0.2
"""Of a history that ``architecture: masked`` is asked for in a step (Sun et al., CIKM 2019)."""


def recipe_of(family: FamilyName, architecture: LanguageArchitectureName | None) -> Recipe | None:
    """Return what a plan of a family says where nobody decided; None of a family without a training.

    Args:
        family: of the model.
        architecture: of its network, where somebody decided on one.
    """
    is_network = (architecture or DEFAULT_LANGUAGE_ARCHITECTURE) != "bottleneck"
    return RECIPES.get(LANGUAGE_NETWORK if family == "language" and is_network else family)
