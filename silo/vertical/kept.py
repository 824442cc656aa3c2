"""What a silo keeps of a vertical job between its legs: files of the outbox, gone when the job has ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from silo.jobs.context import JobContext


class Kept:
    """Paths of one job's kept files. Whoever writes one writes it whole or not at all."""

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def _path(self, name: str) -> Path:
        return self._context.site.outbox.kept_path(self._context.job, name)

    @property
    def people(self) -> Path:
        """Who takes part (:class:`~silo.vertical.alignment.people.People`)."""
        return self._path("people")

    def list_after(self, hop: int) -> Path:
        """The list that came in a hop, under this silo's layer: what the next leg sends on."""
        return self._path(f"list-{hop}")

    @property
    def slots(self) -> Path:
        """Each place's slot, as the coordinator wrote them."""
        return self._path("slots")

    @property
    def labels(self) -> Path:
        """The label silo's rows, as they are encrypted."""
        return self._path("labels")

    @property
    def features(self) -> Path:
        """A feature silo's basis, noised Gram, and numbers of everybody."""
        return self._path("features")

    @property
    def no_basis(self) -> Path:
        """At a feature silo, once its noised rows have given no basis."""
        return self._path("no-basis")

    @property
    def public_key(self) -> Path:
        """The label silo's."""
        return self._path("public-key")

    def block(self, index: int) -> Path:
        """Encrypted rows of one block, at a feature silo until its sums are out."""
        return self._path(f"block-{index}")

    def ahead(self, index: int) -> Path:
        """Encrypted rows of a block that is not due yet, at the label silo."""
        return self._path(f"ahead-{index}")

    def moments_of(self, partner: str) -> Path:
        """What a feature silo sent to the label silo: its Gram and its noised sums."""
        return self._path(f"moments-{partner}")

    @property
    def encoder(self) -> Path:
        """A feature silo's frozen encoder, from when it is trained."""
        return self._path("encoder")

    def numbers_of(self, partner: str) -> Path:
        """What a feature silo sent to the label silo: noised numbers of every slot."""
        return self._path(f"numbers-{partner}")
