"""Autoencoder: a small Mult-DAE (Liang et al., WWW 2018) between public item features.

::

    x / |x|  →  · F  →  Linear(features, hidden)  →  tanh  →  Linear(hidden, features)  →  · Fᵀ + b

``F`` (items × features, orthonormal columns) is public, ``b`` is the logarithm of the noised popularity: both
frozen, so a noised sum carries ``features × hidden`` values a side, whatever the size of the catalogue. The
loss is the multinomial cross-entropy of a user's whole history, normalised to one.
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
from privacy.errors import UsageError
from silo.models.architecture import Architecture, Batch, Vector, Weights
from silo.models.features import public_basis, public_uniform
from silo.models.recommender import Recommender
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plan import Plan
    from silo.data.catalogue import Catalogue

POPULARITY_POWER = 0.25
"""Exponent of the popularity that weighs items before the basis is made orthonormal."""
DECODER_SCALE = 0.1
"""The decoder starts this much smaller than the encoder: at first, popularity speaks."""


class AutoencoderArchitecture(Architecture):
    """``encoder.weight``, ``encoder.bias``, ``decoder.weight``; ``F`` and ``b`` are constants beside them."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        super().__init__(plan, catalogue, popularity)
        if not isinstance(plan.model, AutoencoderModel):
            raise UsageError(f"a plan of family {plan.model.family!r} is no autoencoder", where="plan: model")
        self.width, self.hidden, self.seed = plan.model.features, plan.model.hidden, plan.model.seed
        self.input_dropout = plan.model.input_dropout
        scale = None if popularity is None else popularity**POPULARITY_POWER
        self.basis = public_basis(catalogue, self.width, scale)
        self.bias = np.zeros(len(catalogue)) if popularity is None else np.log(popularity / popularity.sum())
        self._frozen = torch.from_numpy(self.basis), torch.from_numpy(self.bias)

    @override
    def initial_weights(self) -> Weights:
        values = public_uniform(self.seed, 2 * self.width * self.hidden) * sqrt(3 / self.hidden)
        encoder, decoder = np.split(values, 2)
        return {
            "encoder.weight": encoder.reshape(self.hidden, self.width),
            "encoder.bias": np.zeros(self.hidden),
            "decoder.weight": DECODER_SCALE * decoder.reshape(self.width, self.hidden),
        }

    @override
    def module(self) -> nn.Module:
        layers = OrderedDict[str, nn.Module](
            encoder=nn.Linear(self.width, self.hidden, dtype=torch.float64),
            activation=nn.Tanh(),
            decoder=nn.Linear(self.hidden, self.width, bias=False, dtype=torch.float64),
        )
        return nn.Sequential(layers)

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        seen, liked = np.diff(inputs.indptr), np.diff(targets.indptr)
        user = (inputs @ self.basis) / np.sqrt(np.maximum(seen, 1))[:, None]
        shares = 1.0 / np.maximum(liked, 1)
        wanted = (targets @ self.basis) * shares[:, None]
        parts = (user, wanted, (targets @ self.bias) * shares, (liked > 0).astype(np.float64))
        return tuple(torch.from_numpy(part) for part in parts)

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        user, wanted, bias_of_wanted, has_history = batch
        basis, bias = self._frozen
        decoded: Tensor = model(user)
        # The target meets the scores as ``wanted``: a dense users × items target would only cost memory.
        total = torch.logsumexp(torch.addmm(bias, decoded, basis.T), dim=1)
        return has_history * total - (wanted * decoded).sum(dim=1) - bias_of_wanted

    @override
    def recommender(self, weights: Weights) -> Recommender:
        right = self.basis @ weights["decoder.weight"]
        popularity = self.popularity
        if popularity is None:
            scores = np.tanh(weights["encoder.bias"]) @ right.T
            popularity = np.exp(scores - scores.max())
        return Recommender(
            left=(self.basis @ weights["encoder.weight"].T).astype(np.float32),
            right=right.astype(np.float32),
            bias=self.bias.astype(np.float32),
            popularity=popularity.astype(np.float32),
            hidden=weights["encoder.bias"].astype(np.float32),
            metadata={"family": Autoencoder.name},
        )


class Autoencoder(GradientFamily):
    """The ``autoencoder`` family: rounds of ``2 × features × hidden + hidden`` values."""

    name = "autoencoder"
    architecture = AutoencoderArchitecture
