"""Autoencoder: a small Mult-DAE (Liang et al., WWW 2018) between public item features.

``x / |x| · F → Linear(features, hidden) → tanh → Linear(hidden, features) → · Fᵀ + b``, where ``F`` (items ×
features, orthogonal columns) is public and ``b`` the logarithm of the noised popularity. Both are frozen, so
noise falls on few values, however large the catalogue. The loss is a multinomial cross-entropy.
"""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from policies.plan import AutoencoderModel
from silo.models.architecture import Architecture, Batch, Vector, Weights, section_of
from silo.models.features import public_basis, public_uniform
from silo.models.recommender import Recommender
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plan import Plan
    from silo.data.catalogue import Catalogue

POPULARITY_POWER = 0.25
DECODER_SCALE = 0.1


class AutoencoderArchitecture(Architecture):
    """``encoder.weight``, ``encoder.bias`` and ``decoder.weight`` between constant ``F`` and ``b``."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        super().__init__(plan, catalogue, popularity)
        model = section_of(plan, AutoencoderModel)
        self.width, self.hidden, self.seed = model.features, model.hidden, model.seed
        self.input_dropout = model.input_dropout
        weight = np.ones(len(catalogue)) if popularity is None else popularity
        basis = public_basis(catalogue, self.width, weight**POPULARITY_POWER)
        # Rows of mean square 1: a learning rate then means the same for small and large catalogues.
        self.features = basis * sqrt(len(catalogue) / max(1.0, float((basis**2).sum())))
        self.bias = np.log(weight / weight.sum())
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
        seen, wanted = np.diff(inputs.indptr), np.diff(targets.indptr)
        share = 1.0 / np.maximum(wanted, 1)
        history = (inputs @ self.features) / np.sqrt(np.maximum(seen, 1))[:, None]
        target = (targets @ self.features) * share[:, None]
        parts = (history, target, (targets @ self.bias) * share, (wanted > 0).astype(np.float64))
        return tuple(torch.from_numpy(part) for part in parts)

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        history, target, bias_of_target, has_target = batch
        decoded: Tensor = model(history)
        scores = torch.addmm(self._bias, decoded, self._decode)
        # As the target's features, not its items: nothing dense is kept for every user and item.
        return has_target * torch.logsumexp(scores, dim=1) - (target * decoded).sum(dim=1) - bias_of_target

    @override
    def recommender(self, weights: Weights) -> Recommender:
        right = self.features @ weights["decoder.weight"]
        unknown = np.tanh(weights["encoder.bias"]) @ right.T
        popularity = np.exp(unknown - unknown.max()) if self.popularity is None else self.popularity
        return Recommender(
            left=(self.features @ weights["encoder.weight"].T).astype(np.float32),
            right=right.astype(np.float32),
            bias=self.bias.astype(np.float32),
            popularity=popularity.astype(np.float32),
            hidden=weights["encoder.bias"].astype(np.float32),
            metadata={"family": Autoencoder.name},
        )


class Autoencoder(GradientFamily):
    """The ``autoencoder`` family."""

    name = "autoencoder"
    architecture = AutoencoderArchitecture
