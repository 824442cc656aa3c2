"""Autoencoder: a small Mult-DAE (Liang et al., WWW 2018) between public item features.

See :mod:`silo.models.bottleneck`: here ``F`` is a basis of the one catalogue that all silos rank (orthogonal
columns) and ``b`` the logarithm of the noised popularity.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from policies.plans.models import AutoencoderModel
from silo.models.architecture import Vector, section_of
from silo.models.bottleneck import BottleneckArchitecture
from silo.models.features import public_basis
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue

POPULARITY_POWER = 0.25


class AutoencoderArchitecture(BottleneckArchitecture):
    """The bottleneck between public bases."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        model = section_of(plan, AutoencoderModel)
        weight = np.ones(len(catalogue)) if popularity is None else popularity
        basis = public_basis(catalogue, model.features, weight**POPULARITY_POWER)
        super().__init__(
            plan,
            catalogue,
            popularity,
            # Rows of mean square 1: a learning rate then means the same for small and large catalogues.
            features=basis * sqrt(len(catalogue) / max(1.0, float((basis**2).sum()))),
            bias=np.log(weight / weight.sum()),
            hidden=model.hidden,
            seed=model.seed,
            input_dropout=model.input_dropout,
        )


class Autoencoder(GradientFamily):
    """The ``autoencoder`` family."""

    name = "autoencoder"
    architecture = AutoencoderArchitecture
