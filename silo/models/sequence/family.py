"""The ``sequence`` family: what comes next after an ordered history, over one catalogue, by DP-SGD.

See :mod:`silo.models.sequence.architecture`: here ``F`` is a basis of the one catalogue that all silos rank
(orthogonal columns) and ``b`` the logarithm of the noised popularity.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from policies.canonical import digest
from policies.plans.models import SequenceModel
from silo.models.architecture import Vector, section_of
from silo.models.features import public_basis
from silo.models.sequence.architecture import SequenceArchitecture
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue

POPULARITY_POWER = 0.25


class BasisSequenceArchitecture(SequenceArchitecture):
    """The network between public bases."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        model = section_of(plan, SequenceModel)
        weight = np.ones(len(catalogue)) if popularity is None else popularity
        basis = public_basis(catalogue, model.features, weight**POPULARITY_POWER)
        super().__init__(
            plan,
            catalogue,
            popularity,
            size=model.network,
            # Rows of mean square 1: a learning rate then means the same for small and large catalogues.
            features=basis * sqrt(len(catalogue) / max(1.0, float((basis**2).sum()))),
            bias=np.log(weight / weight.sum()),
            seed=model.seed,
            input_dropout=model.input_dropout,
        )


class Sequence(GradientFamily):
    """The ``sequence`` family."""

    name = "sequence"
    architecture = BasisSequenceArchitecture

    @property
    @override
    def space_sha256(self) -> str:
        """Of the catalogue and of the architecture: ``transformer`` and ``masked`` have the same shapes."""
        architecture = section_of(self.plan, SequenceModel).architecture
        return digest({"catalogue_sha256": self.catalogue.sha256, "architecture": architecture})
