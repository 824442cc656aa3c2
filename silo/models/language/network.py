"""A network over the order of a history, between places of a silo's own items.

See :mod:`silo.models.sequence.architecture`: here ``F`` are the places of items in the plan's space of public
texts (:mod:`silo.language.space`), and ``b`` is zero. An item's score is ``(W h_user) · F[item]``: the way
back into the space stands on the user's side, so nothing that is trained belongs to an item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from policies.plans.models import LanguageModel
from privacy.errors import UsageError
from silo.language.space import PlacedCatalogue
from silo.models.architecture import Vector, Weights, section_of
from silo.models.sequence.architecture import SequenceArchitecture

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue


SMALL: Final = 0.1
_STARTS_SMALL: Final = ("position.weight", "query.weight", "contract.weight", "convolution.weight")


class LanguageNetwork(SequenceArchitecture):
    """The network between places."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        model = section_of(plan, LanguageModel)
        if model.network is None:
            raise UsageError(f"{model.architecture} reads no order", where="plan: model.architecture")
        super().__init__(
            plan,
            catalogue,
            popularity,
            size=model.network,
            features=PlacedCatalogue.of(catalogue).places,
            bias=np.zeros(len(catalogue)),
            seed=model.seed,
            input_dropout=model.input_dropout,
            negatives=model.negatives,
        )

    @override
    def initial_weights(self) -> Weights:
        """Weights with which items like those of the history score highest: noise starts from there.

        The way back is the way in, transposed. Attention starts as a mean of what may be seen (flat queries,
        what values are turned into is turned back), and whatever else a trunk adds to a place starts small.
        """
        weights = super().initial_weights()
        started = weights | {"leave.weight": np.ascontiguousarray(weights["enter.weight"].T)}
        for name, values in weights.items():
            if name.endswith("output.weight"):
                turned = weights[name.replace("output.weight", "value.weight")]
                started[name] = np.ascontiguousarray(turned.T)
            elif name.endswith(_STARTS_SMALL):
                started[name] = SMALL * values
        return started
