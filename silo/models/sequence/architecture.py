"""A network over ordered histories, its inputs and its loss, whatever public vectors items have.

Every next item of a person's newest ``places`` items is asked for (causal trunks), or those that a step hides
(``masked``). A person's loss is the mean over what they are asked for, so long ones weigh no more.
All items of the list compete, or, where a plan says so and the list is long, a public sample of it; what is
trained stands on the history's side, so each person's loss is their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from silo.models.architecture import Architecture, Batch, Vector, Weights
from silo.models.features import Matrix
from silo.models.sequence.asking import what_is_asked
from silo.models.sequence.loss import next_item_losses
from silo.models.sequence.negatives import sampled_items
from silo.models.sequence.network import FeatureNetwork, first_weights
from silo.models.sequence.recommender import SequenceRecommender
from silo.models.sequence.trunk import NO_ITEM, trunk_of

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.models import NetworkSize, SampledNegatives
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue


class SequenceArchitecture(Architecture):
    """A :class:`FeatureNetwork` between constant ``F`` and ``b``.

    Args:
        plan: as for every architecture.
        catalogue: likewise.
        popularity: likewise.
        size: of the network.
        features: ``F``, items × ``size.features``.
        bias: ``b``, (items,).
        seed: of the first weights, and of negatives.
        input_dropout: see :class:`Architecture`; of a ``masked`` network alone.
        negatives: what competes where the list is long; None: the whole list.
    """

    def __init__(
        self, plan: Plan, catalogue: Catalogue, popularity: Vector | None, *, size: NetworkSize,
        features: Matrix, bias: Vector, seed: int, input_dropout: float,
        negatives: SampledNegatives | None = None,
    ) -> None:  # fmt: skip
        super().__init__(plan, catalogue, popularity)
        self.size, self.features, self.bias, self.seed = size, features, bias, seed
        self.input_dropout = input_dropout
        self.inner_values = size.places * (size.features + size.hidden)
        self.negatives = negatives
        self._drawn: Tensor | None = None
        self._features, self._bias = torch.from_numpy(self.features), torch.from_numpy(self.bias)

    @property
    @override
    def num_scored(self) -> int:
        return len(self.catalogue if self._drawn is None else self._drawn)

    @override
    def draw(self, step: int | None) -> None:
        negatives = self.negatives
        if negatives is None or step is None or len(self.catalogue) <= negatives.above:
            self._drawn = None
            return
        drawn = sampled_items(len(self.catalogue), negatives.count, self.seed, step)
        self._drawn = torch.from_numpy(drawn)

    @override
    def initial_weights(self) -> Weights:
        return first_weights(self.module(), self.seed)

    @override
    def module(self) -> FeatureNetwork:
        return FeatureNetwork(self.size).double()

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        asked = what_is_asked(inputs, targets, self.size.places, trunk_of(self.size.architecture).is_causal)
        return tuple(torch.from_numpy(part) for part in asked)

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        seen, wanted = batch
        is_asked = wanted != NO_ITEM
        read = model(seen, self._features)[is_asked]
        losses = next_item_losses(read, wanted[is_asked], self._features, self._bias, self._drawn)
        of_users = torch.zeros(wanted.shape, dtype=losses.dtype).masked_scatter(is_asked, losses)
        return of_users.sum(dim=1) / is_asked.sum(dim=1).clamp(min=1)

    @override
    def recommender(self, weights: Weights) -> SequenceRecommender:
        popularity = np.exp(self.bias - self.bias.max()) if self.popularity is None else self.popularity
        return SequenceRecommender(
            size=self.size,
            weights={name: values.astype(np.float32) for name, values in weights.items()},
            features=self.features.astype(np.float32),
            bias=self.bias.astype(np.float32),
            popularity=popularity.astype(np.float32),
            metadata={"family": self.plan.model.family, "architecture": self.size.architecture},
        )
