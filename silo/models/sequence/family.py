"""The ``sequence`` family: what comes next after an ordered history, trained by DP-SGD.

Every next item of a person's newest ``places`` items is asked for (causal architectures), or those that a
step hides (``masked``). A person's loss is the mean over what they are asked for, so long ones weigh no more.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from policies.plans.models import SequenceModel
from silo.models.architecture import Architecture, Batch, Vector, Weights, section_of
from silo.models.features import public_basis
from silo.models.sequence.asking import what_is_asked
from silo.models.sequence.loss import next_item_losses
from silo.models.sequence.network import FeatureNetwork, first_weights
from silo.models.sequence.recommender import SequenceRecommender
from silo.models.sequence.trunk import NO_ITEM
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue

POPULARITY_POWER = 0.25


class SequenceArchitecture(Architecture):
    """A trunk between constant ``F`` and ``b``."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        super().__init__(plan, catalogue, popularity)
        self.model = section_of(plan, SequenceModel)
        self.input_dropout = self.model.input_dropout
        self.inner_values = self.model.places * (self.model.features + self.model.hidden)
        weight = np.ones(len(catalogue)) if popularity is None else popularity
        basis = public_basis(catalogue, self.model.features, weight**POPULARITY_POWER)
        # Rows of mean square 1: a learning rate then means the same for small and large catalogues.
        self.features = basis * sqrt(len(catalogue) / max(1.0, float((basis**2).sum())))
        self.bias = np.log(weight / weight.sum())
        self._features, self._bias = torch.from_numpy(self.features), torch.from_numpy(self.bias)

    @override
    def initial_weights(self) -> Weights:
        return first_weights(self.module(), self.model.seed)

    @override
    def module(self) -> FeatureNetwork:
        return FeatureNetwork(self.model).double()

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        asked = what_is_asked(inputs, targets, self.model.places, self.module().trunk.is_causal)
        return tuple(torch.from_numpy(part) for part in asked)

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        seen, wanted = batch
        is_asked = wanted != NO_ITEM
        vectors = model(seen, self._features)[is_asked]
        losses = next_item_losses(vectors, wanted[is_asked], self._features, self._bias)
        of_users = torch.zeros(wanted.shape, dtype=losses.dtype).masked_scatter(is_asked, losses)
        return of_users.sum(dim=1) / is_asked.sum(dim=1).clamp(min=1)

    @override
    def recommender(self, weights: Weights) -> SequenceRecommender:
        popularity = np.exp(self.bias - self.bias.max()) if self.popularity is None else self.popularity
        return SequenceRecommender(
            model=self.model,
            weights={name: values.astype(np.float32) for name, values in weights.items()},
            features=self.features.astype(np.float32),
            bias=self.bias.astype(np.float32),
            popularity=popularity.astype(np.float32),
            metadata={"family": Sequence.name, "architecture": self.model.architecture},
        )


class Sequence(GradientFamily):
    """The ``sequence`` family."""

    name = "sequence"
    architecture = SequenceArchitecture
