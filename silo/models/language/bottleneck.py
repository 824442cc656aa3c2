"""``bottleneck``: a hidden layer over the sum of a history, between places of a silo's own items.

See :mod:`silo.models.bottleneck`: here ``F`` are the places of items in the plan's space of public texts
(:mod:`silo.language.space`), and no item has a number of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from policies.plans.models import LanguageModel
from silo.language.space import PlacedCatalogue
from silo.models.architecture import Vector, Weights, section_of
from silo.models.bottleneck import BottleneckArchitecture

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue


class LanguageBottleneck(BottleneckArchitecture):
    """The bottleneck between places."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        model = section_of(plan, LanguageModel)
        super().__init__(
            plan,
            catalogue,
            popularity,
            features=PlacedCatalogue.of(catalogue).places,
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
