"""``archipel demo --model language``: shops that sell different things learn one model over texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from silo.demo.language import report as reports
from silo.demo.language.dataset import LanguageData, load_set, prepare
from silo.demo.language.harness import measure
from silo.demo.language.newcomer import welcome
from silo.demo.language.staging import LanguageStaging
from silo.demo.outcome import Measured, Outcome
from silo.demo.processes import Processes
from silo.demo.running import Report
from silo.demo.settings import DemoSettings
from silo.demo.world import World
from silo.extras import MissingExtraError, require_extra
from silo.language.files import EncoderFiles
from silo.language.store import PACKAGED, packaged_encoder


@dataclass(frozen=True)
class LanguageDemo:
    """See :class:`silo.demo.running.Demo`.

    Raises:
        MissingExtraError: the extra ``language`` is not installed; nothing was made.
    """

    settings: DemoSettings

    def __post_init__(self) -> None:
        require_extra("language", "transformers", PACKAGED)

    def prepare(self, seed: int) -> LanguageData:
        """People by taste, items by chance, rows held out."""
        return prepare(self.settings, load_set(self.settings, seed), seed)

    def describe(self, data: LanguageData) -> str:
        """Sizes of everything."""
        shops = (*data.members, data.newcomer)
        sizes = ", ".join(f"{shop.name} {shop.train.num_users:,} x {len(shop.catalogue):,}" for shop in shops)
        return (
            f"{data.name}: nobody and no item is in two shops; people x items: {sizes}. "
            f"{data.newcomer.name} is in no job and joins afterwards"
        )

    def staging(self, data: LanguageData) -> LanguageStaging:
        """Rows, lists and policies of shops."""
        packaged = packaged_encoder()
        if packaged is None:
            raise MissingExtraError(
                f"the package {PACKAGED} holds no files",
                where="archipel[language]",
                remedy="pip install --force-reinstall 'archipel[language]'",
            )
        return LanguageStaging(self.settings, data, EncoderFiles.check(packaged).sha256)

    def hold_sessions(
        self, world: World, data: LanguageData, job: str, processes: Processes
    ) -> dict[str, Any]:
        """The newcomer adopts what the job released."""
        return welcome(world, data, self.staging(data), job, processes)

    def measure(self, world: World, data: LanguageData, job: str, report: Report) -> Measured:
        """All rows of the table."""
        return Measured(measure(world, data, job, report))

    def afterwards(self, world: World) -> list[str]:
        """Serving, at a member and at the newcomer, and auditing."""
        first = world.silo(world.names[0])
        return [
            f"archipel recommend --user ID -k 20 --dir {first}",
            f"archipel recommend --user ID -k 20 --dir {world.silo(self.settings.newcomer_name)}",
            f"archipel audit verify --dir {first} --charter {world.root / 'charter.yaml'}",
        ]

    def as_json(self, data: LanguageData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """As documented."""
        return reports.as_json(data, outcomes)

    def for_people(self, found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
        """A table and what is promised."""
        return reports.for_people(found, outcomes)
