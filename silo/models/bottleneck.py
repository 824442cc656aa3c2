"""A small network between two readings of a history in public item features: what some families share.

``x / |x| · F → Linear(features, hidden) → tanh → Linear(hidden, features) → · Fᵀ + b`` (Mult-DAE: Liang et
al., WWW 2018). ``F`` and ``b`` are frozen, so noise falls on few values, however large the catalogue, and the
weights mean the same for whatever items ``F`` describes. The loss is a multinomial cross-entropy over all
items of the catalogue; what is trained stands on the user's side, so each user's loss is their own.
"""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from silo.models.architecture import Architecture, Batch, Vector, Weights
from silo.models.features import Matrix, public_uniform
from silo.models.recommender import Recommender

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue

DECODER_SCALE = 0.1


class BottleneckArchitecture(Architecture):
    """``encoder.weight``, ``encoder.bias`` and ``decoder.weight`` between constant ``F`` and ``b``.

    Args:
        plan: as for every architecture.
        catalogue: likewise.
        popularity: likewise.
        features: ``F``, items × width; root of the mean square of its rows about 1, so that a learning rate
            means the same everywhere.
        bias: ``b``, (items,).
        hidden: width of the hidden layer.
        seed: of the first weights.
        input_dropout: see :class:`Architecture`.
    """

    def __init__(
        self, plan: Plan, catalogue: Catalogue, popularity: Vector | None, *, features: Matrix, bias: Vector,
        hidden: int, seed: int, input_dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(plan, catalogue, popularity)
        self.features, self.bias = features, bias
        self.width, self.hidden, self.seed = features.shape[1], hidden, seed
        self.input_dropout = input_dropout
        self._bias, self._decode = torch.from_numpy(self.bias), torch.from_numpy(self.features).T

    @override
    def initial_weights(self) -> Weights:
        values = public_uniform(self.seed, 2 * self.width * self.hidden) * sqrt(3 / self.hidden)
        encoder, decoder = values.reshape(2, self.hidden, self.width)
        bias, decoder = np.zeros(self.hidden), DECODER_SCALE * np.ascontiguousarray(decoder.T)
        return {"encoder.weight": encoder, "encoder.bias": bias, "decoder.weight": decoder}

    @override
    def module(self) -> nn.Module:
        encoder = nn.Linear(self.width, self.hidden, dtype=torch.float64)
        decoder = nn.Linear(self.hidden, self.width, bias=False, dtype=torch.float64)
        return nn.Sequential(OrderedDict(encoder=encoder, activation=nn.Tanh(), decoder=decoder))

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        seen, wanted = (np.asarray(table.sum(axis=1)).ravel() for table in (inputs, targets))
        share = 1.0 / np.maximum(wanted, 1)
        history = (inputs @ self.features) / np.sqrt(np.maximum(seen, 1))[:, None]
        target = (targets @ self.features) * share[:, None]
        parts = (history, target, (targets @ self.bias) * share, (wanted > 0).astype(np.float64))
        return tuple(torch.from_numpy(part) for part in parts)

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        history, *asked = batch
        return self.loss_of(model(history), *asked)

    def loss_of(self, decoded: Tensor, target: Tensor, bias_of_target: Tensor, has_target: Tensor) -> Tensor:
        """Loss of each user alone, from what the network makes of their histories; the rest of a batch."""
        scores = torch.addmm(self._bias, decoded, self._decode)
        # As the target's features, not its items: nothing dense is kept for every user and item.
        of_all: Tensor = torch.logsumexp(scores, dim=1)
        return has_target * of_all - (target * decoded).sum(dim=1) - bias_of_target

    def read_features(self, weights: Weights) -> Matrix:  # noqa: ARG002 - for those who train them
        """Items × width, what each item of a history is read as."""
        return self.features

    @override
    def recommender(self, weights: Weights) -> Recommender:
        right = self.features @ weights["decoder.weight"]
        unknown = np.tanh(weights["encoder.bias"]) @ right.T
        popularity = np.exp(unknown - unknown.max()) if self.popularity is None else self.popularity
        return Recommender(
            left=(self.read_features(weights) @ weights["encoder.weight"].T).astype(np.float32),
            right=right.astype(np.float32),
            bias=self.bias.astype(np.float32),
            popularity=popularity.astype(np.float32),
            hidden=weights["encoder.bias"].astype(np.float32),
            metadata={"family": self.plan.model.family},
        )
