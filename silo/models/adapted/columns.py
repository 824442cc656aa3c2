"""A silo that trains the first columns of every adapter, and reads with all of them.

The other columns are constants in its network, added to the frozen maps: no gradient is computed of them, and
none is there when a person's norm is taken, so one person moves the columns that are trained by the clip norm
and the others not at all. The sum is as long for every silo; it gets zeros there. Noise is added later, to
the whole vector, by a function that knows nothing of columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from typing_extensions import override

from silo.models.adapted.architecture import AdaptedLanguageArchitecture
from silo.models.adapted.network import ADAPTERS, AdaptedNetwork, adapters_of

if TYPE_CHECKING:
    from torch import nn

    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue
    from silo.models.architecture import Vector, Weights


class FewerColumnsArchitecture(AdaptedLanguageArchitecture):
    """The same network, of which this silo trains less.

    Args:
        plan: as for every architecture.
        catalogue: likewise.
        popularity: likewise.
        columns: of every adapter that are trained here, from the first; fewer than its rank.
    """

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None, *, columns: int) -> None:
        self._columns = columns
        super().__init__(plan, catalogue, popularity)

    @override
    def module(self) -> AdaptedNetwork:
        return self.network(self._columns)

    @override
    def set_weights(self, module: nn.Module, weights: Weights) -> None:
        network, columns = cast(AdaptedNetwork, module), self._columns
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                values = weights[name][:, :columns] if name.startswith(ADAPTERS) else weights[name]
                parameter.copy_(torch.from_numpy(values))
            rest = (values[:, columns:] for values in adapters_of(weights).values())
            network.adapted.hold(torch.from_numpy(values) for values in rest)

    @override
    def spread(self, values: Vector) -> Vector:
        outputs, before = self.adapter.num_weights // self.adapter.rank, values.shape[:-1]
        trained, others = np.split(values, [outputs * self._columns], axis=-1)
        adapters = np.zeros((*before, outputs, self.adapter.rank))
        adapters[..., : self._columns] = trained.reshape(*before, outputs, self._columns)
        return np.concatenate([adapters.reshape(*before, -1), others], axis=-1)
