"""The ``language`` family: one network for silos that rank different items, as all items stand in one space.

Weights name directions of the space and no item, so they serve a list that no other silo has, an item that
came yesterday, and a silo that joined today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from policies.canonical import digest
from policies.plans.models import LanguageModel
from silo.language.space import PlacedCatalogue
from silo.models.architecture import section_of
from silo.models.language.bottleneck import LanguageBottleneck
from silo.models.language.network import LanguageNetwork
from silo.models.trainer import GradientFamily

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue
    from silo.models.base import State


class Language(GradientFamily):
    """The ``language`` family; its catalogue is a silo's own, with places."""

    name = "language"

    def __init__(
        self,
        plan: Plan,
        catalogue: Catalogue,
        *,
        noise_std: float | None = None,
        start: State | None = None,
        silo: str | None = None,
    ) -> None:
        is_ordered = section_of(plan, LanguageModel).network is not None
        self.architecture = LanguageNetwork if is_ordered else LanguageBottleneck
        super().__init__(plan, catalogue, noise_std=noise_std, start=start, silo=silo)

    @property
    @override
    def space_sha256(self) -> str:
        """Of the space and, for networks, of the architecture, which shapes do not always tell."""
        space = PlacedCatalogue.of(self.catalogue).space_sha256
        network = section_of(self.plan, LanguageModel).network
        if network is None:
            return space
        return digest({"space_sha256": space, "architecture": network.architecture})
