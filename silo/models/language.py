"""Language: one small network for silos that rank different items, because all items stand in one space.

See :mod:`silo.models.bottleneck`: here ``F`` are the places of a silo's own items in the plan's space of
public texts (:mod:`silo.language.space`). Weights name directions of that space and no item, so they serve a
list that no other silo has, an item that came yesterday, and a silo that joined today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from policies.plans.models import LanguageModel
from privacy.errors import UsageError
from silo.language.space import PlacedCatalogue
from silo.models.architecture import Vector, Weights, section_of
from silo.models.bottleneck import BottleneckArchitecture
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue


class LanguageArchitecture(BottleneckArchitecture):
    """The bottleneck between places of a silo's own items; no item has a number of its own."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        model = section_of(plan, LanguageModel)
        super().__init__(
            plan,
            catalogue,
            popularity,
            features=placed_catalogue(catalogue).places,
            bias=np.zeros(len(catalogue)),
            hidden=model.hidden,
            seed=model.seed,
            input_dropout=model.input_dropout,
        )

    @override
    def initial_weights(self) -> Weights:
        """A random projection and its transpose: untrained, items like those of the history score highest."""
        weights = super().initial_weights()
        return weights | {"decoder.weight": np.ascontiguousarray(weights["encoder.weight"].T)}


class Language(GradientFamily):
    """The ``language`` family; its catalogue is a silo's own, with places."""

    name = "language"
    architecture = LanguageArchitecture

    @property
    @override
    def space_sha256(self) -> str:
        return placed_catalogue(self.catalogue).space_sha256


def placed_catalogue(catalogue: Catalogue) -> PlacedCatalogue:
    """The catalogue, which has to have places.

    Raises:
        UsageError: it has none.
    """
    if not isinstance(catalogue, PlacedCatalogue):
        raise UsageError(
            "family language reads the places of items, and this list has none",
            where="catalogue",
            remedy="place it with silo.language.places.place_items",
        )
    return catalogue
