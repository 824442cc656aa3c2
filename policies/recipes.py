"""What a plan of a trained family says where nobody decided: constants found on public data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

DEFAULT_ROUND_MINUTES: Final = 10.0
"""How long a round waits for a silo, where it may go on without."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One family's schedule and size; attributes are the plan's own fields.

    Attributes:
        features: width of the items' public features; never more than there are items.
        hidden: width of the hidden layer; None where there is none.
        input_dropout: share of a history that is hidden from the network and asked of it; likewise.
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

    features: int
    hidden: int | None = None
    input_dropout: float | None = None
    popularity_share: float = 0.0
    rounds: int
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float
    decay: Literal["none", "linear"] = "none"
    second_moment_decay: float = 0.999
    local_learning_rate: float
    max_grad_norm: float = 1.0
    clipping: Literal["flat", "automatic"] = "flat"


RECIPES: Final[Mapping[str, Recipe]] = {
    "linear": Recipe(features=1, rounds=5, learning_rate=0.05, local_learning_rate=1.0),
    "autoencoder": Recipe(
        features=80,
        hidden=32,
        input_dropout=0.4,
        popularity_share=0.25,
        rounds=60,
        learning_rate=0.03,
        decay="linear",
        second_moment_decay=0.99,
        local_learning_rate=1.0,
        clipping="automatic",
    ),
}
