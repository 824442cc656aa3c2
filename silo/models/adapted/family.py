"""The family: a space of its own for its weights, who trains which, and what is checked after every round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from policies.canonical import digest
from policies.plans.models import EncoderAdapter, LanguageModel
from privacy.errors import UsageError
from silo.language.space import PlacedCatalogue
from silo.models.adapted.architecture import AdaptedLanguageArchitecture
from silo.models.adapted.checks import check_moved, check_shipped, made_up_histories
from silo.models.adapted.columns import FewerColumnsArchitecture
from silo.models.adapted.network import adapters_of
from silo.models.architecture import section_of
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    import scipy.sparse as sp
    from numpy.typing import NDArray

    from policies.plans.price import RoundShape
    from silo.data.interactions import Interactions
    from silo.models.architecture import Vector
    from silo.models.base import Integers, State
    from silo.models.shipped import ShippedModel
    from silo.models.trainer import NoisedStep


class AdaptedLanguage(GradientFamily):
    """The ``language`` family with ``encoder_adapter``.

    Guarantees, where the plan lets silos train fewer columns
    ---------------------------------------------------------
    - A silo's gradients are zero in the columns that it does not train *before* a person's norm is taken, so
      one person moves the sum by the clip norm, as everywhere.
    - Every silo's noise falls on all columns: who trains one alone is hidden by as much as anybody.
    - A column's step is the sum over the expected people of those who train it, which the plan says.
    """

    name = "language"
    architecture = AdaptedLanguageArchitecture

    @property
    @override
    def space_sha256(self) -> str:
        """Of the space and of what the adapters stand between: frozen matrices, layers, tokens.

        Not of who trained which columns: the same weights mean the same.
        """
        space = PlacedCatalogue.of(self.catalogue).space_sha256
        adapter = self.adapter.model_dump(mode="json", exclude={"columns"})
        seed = section_of(self.plan, LanguageModel).seed
        return digest({"space_sha256": space, "seed": seed, "adapter": adapter})

    @property
    def adapter(self) -> EncoderAdapter:
        """What the plan says of it."""
        found = section_of(self.plan, LanguageModel).adapter
        if found is None:
            raise UsageError("there is no text encoder to adapt", where="plan: model.encoder_adapter")
        return found

    @property
    @override
    def trained_share(self) -> Vector | float:
        if self.adapter.columns is None:
            return 1.0
        trainers = np.array(self.adapter.num_trainers(self.plan.silos))
        return self._by_column(trainers / self.plan.num_silos)

    @override
    def make_architecture(self, popularity: Vector | None) -> AdaptedLanguageArchitecture:
        columns = self.adapter.columns_of(self.silo or "")
        if columns == self.adapter.rank:
            return self.architecture(self.plan, self.catalogue, popularity)
        return FewerColumnsArchitecture(self.plan, self.catalogue, popularity, columns=columns)

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: NoisedStep
    ) -> Integers:
        self._check_silo()
        return super().contribute(interactions, state, round_index, shape)

    @override
    def contribute_each(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> sp.csr_array:
        self._check_silo()
        return super().contribute_each(interactions, state, round_index, shape)

    @override
    def step_locally(self, state: State, noised: Integers, shape: RoundShape) -> State:
        """One step in the columns that this silo trains; in the others there is nothing but its noise."""
        self._check_silo()
        own = np.arange(self.adapter.rank) < self.adapter.columns_of(self.silo or "")
        return super().step_locally(state, np.where(self._by_column(own), noised, 0), shape)

    @override
    def absorb(
        self, state: State, sums: Integers, round_index: int, shape: NoisedStep, contributors: int
    ) -> State:
        after = super().absorb(state, sums, round_index, shape, contributors)
        check_moved(adapters_of(state), after, sums)
        return after

    @override
    def finish(self, state: State) -> ShippedModel:
        shipped = super().finish(state)
        histories = made_up_histories(self.num_items, self.adapter.places)
        check_shipped(self._session_of(state).losses(histories), shipped, histories)
        return shipped

    def _by_column(self, values: NDArray[Any]) -> Vector:
        """A value for each column of a B, at its place among all weights; 1 for all other weights."""
        found = np.ones(self.num_weights)
        num_adapters = self.adapter.num_weights
        found[:num_adapters] = np.tile(values, num_adapters // self.adapter.rank)
        return found

    def _check_silo(self) -> None:
        if self.adapter.columns is not None and self.silo not in self.plan.silos:
            raise UsageError(
                f"which columns {self.silo or 'a silo without a name'} trains is not in the plan",
                where="plan: model.encoder_adapter.columns",
                remedy="name the silo of the roster whose rows these are",
            )
