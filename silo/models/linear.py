"""Linear: one layer from public item attributes to item scores.

A user's input is the mean of the public features of their items, the target their history normalised to one;
the loss is the multinomial cross-entropy of :class:`torch.nn.Linear`, a sum of terms of single users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from policies.plans.models import LinearModel
from silo.models.architecture import Architecture, Batch, Vector, Weights, section_of
from silo.models.features import attribute_table
from silo.models.recommender import Recommender
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue


class LinearArchitecture(Architecture):
    """``weight`` (items × features) and ``bias`` (items), all zero at first: the loss is convex."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        super().__init__(plan, catalogue, popularity)
        self.features = attribute_table(catalogue, section_of(plan, LinearModel).features)

    @override
    def initial_weights(self) -> Weights:
        return {"weight": np.zeros(self.features.shape), "bias": np.zeros(len(self.features))}

    @override
    def module(self) -> nn.Module:
        items, width = self.features.shape
        return nn.Linear(width, items, dtype=torch.float64)

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        shares = targets.toarray() / np.maximum(targets.sum(axis=1), 1)
        means = (inputs @ self.features) / np.maximum(inputs.sum(axis=1), 1)
        return torch.from_numpy(np.asarray(means)), torch.from_numpy(np.asarray(shares))

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        means, shares = batch
        return -(shares * torch.log_softmax(model(means), dim=1)).sum(dim=1)

    @override
    def recommender(self, weights: Weights) -> Recommender:
        odds = np.exp(weights["bias"] - weights["bias"].max())
        return Recommender(
            left=self.features.astype(np.float32),
            right=weights["weight"].astype(np.float32),
            bias=weights["bias"].astype(np.float32),
            popularity=(odds / odds.sum()).astype(np.float32),
            metadata={"family": Linear.name},
        )


class Linear(GradientFamily):
    """The ``linear`` family: rounds of ``items × features + items`` values."""

    name = "linear"
    architecture = LinearArchitecture
