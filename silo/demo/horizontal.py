"""``archipel demo``: shops with the same items and different people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from silo.demo import report as reports
from silo.demo.dataset import DemoData, load_set, prepare
from silo.demo.harness import measure
from silo.demo.outcome import Measured, Outcome
from silo.demo.running import Report
from silo.demo.settings import DemoSettings
from silo.demo.staging import HorizontalStaging
from silo.demo.world import World


@dataclass(frozen=True)
class HorizontalDemo:
    """See :class:`silo.demo.running.Demo`."""

    settings: DemoSettings

    def prepare(self, seed: int) -> DemoData:
        """Users by taste, rows held out."""
        return prepare(self.settings, load_set(self.settings, seed), seed)

    def describe(self, data: DemoData) -> str:
        """Sizes of everything."""
        sizes = ", ".join(
            f"{name} {data.users_of(number).size:,}" for number, name in enumerate(self.settings.silo_names)
        )
        return (
            f"{data.name}, {data.train.num_users:,} users, {len(data.catalogue):,} items, "
            f"{data.train.num_interactions:,} training rows in the silos, "
            f"{data.held_out.num_interactions:,} held out. "
            f"Users by silo (disjoint, by taste): {sizes}"
        )

    def staging(self, data: DemoData) -> HorizontalStaging:
        """Rows and policies of shops."""
        return HorizontalStaging(self.settings, data)

    def hold_sessions(self, *_: object) -> dict[str, Any]:
        """Nothing: a silo of this kind serves from its own rows."""
        return {}

    def measure(self, world: World, data: DemoData, job: str, report: Report) -> Measured:
        """All columns."""
        return Measured(measure(world, data, job, report))

    def afterwards(self, world: World) -> list[str]:
        """Serving and auditing."""
        first = world.silo(world.names[0])
        return [
            f"archipel recommend --user ID -k 20 --dir {first}",
            f"archipel audit verify --dir {first} --charter {world.root / 'charter.yaml'}",
        ]

    def as_json(self, data: DemoData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """As documented."""
        return reports.as_json(self.settings, data, outcomes)

    def for_people(self, found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
        """A table and what is promised."""
        return reports.for_people(found, outcomes)
