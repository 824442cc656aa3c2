"""The family: a space of its own for its weights, and what is checked of adapters after every round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from policies.canonical import digest
from policies.plans.models import LanguageModel
from silo.language.space import PlacedCatalogue
from silo.models.adapted.architecture import AdaptedLanguageArchitecture
from silo.models.adapted.checks import check_moved, check_shipped, made_up_histories
from silo.models.adapted.network import adapters_of
from silo.models.architecture import section_of
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    from silo.models.base import Integers, State
    from silo.models.shipped import ShippedModel
    from silo.models.trainer import NoisedStep


class AdaptedLanguage(GradientFamily):
    """The ``language`` family with ``encoder_adapter``."""

    name = "language"
    architecture = AdaptedLanguageArchitecture

    @property
    @override
    def space_sha256(self) -> str:
        """Of the space and of what the adapters stand between: frozen matrices, layers, tokens."""
        model = section_of(self.plan, LanguageModel)
        space = PlacedCatalogue.of(self.catalogue).space_sha256
        adapter = {} if model.adapter is None else model.adapter.model_dump(mode="json")
        return digest({"space_sha256": space, "seed": model.seed, "adapter": adapter})

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
        adapter = section_of(self.plan, LanguageModel).adapter
        histories = made_up_histories(self.num_items, 1 if adapter is None else adapter.places)
        check_shipped(self._session_of(state).losses(histories), shipped, histories)
        return shipped
