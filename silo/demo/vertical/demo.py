"""``archipel demo --partition vertical``: a shop, and others who know other things of the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from silo.demo.outcome import Measured, Outcome
from silo.demo.processes import Processes
from silo.demo.running import Report
from silo.demo.vertical import report as reports
from silo.demo.vertical.dataset import VerticalData, prepare
from silo.demo.vertical.harness import measure
from silo.demo.vertical.sessions import hold_sessions
from silo.demo.vertical.settings import VerticalSettings
from silo.demo.vertical.staging import VerticalStaging
from silo.demo.world import World


@dataclass(frozen=True)
class VerticalDemo:
    """See :class:`silo.demo.running.Demo`."""

    settings: VerticalSettings

    def prepare(self, seed: int) -> VerticalData:
        """Who knows what of whom."""
        return prepare(self.settings, seed)

    def describe(self, data: VerticalData) -> str:
        """Sizes of everything."""
        sizes = ", ".join(f"{name} {data.members(name).size:,}" for name in self.settings.silo_names)
        return (
            f"{data.name}, {len(data.people):,} people, {len(data.catalogue):,} items of the shop, "
            f"{data.users.rows.nnz:,} training rows there and {data.users.held_out.nnz:,} held out. "
            f"People by silo (the same ones, where they overlap): {sizes}"
        )

    def staging(self, data: VerticalData) -> VerticalStaging:
        """Rows and policies of a shop and its partners."""
        return VerticalStaging(self.settings, data)

    def hold_sessions(
        self, world: World, data: VerticalData, job: str, processes: Processes
    ) -> dict[str, Any]:
        """A few people bring their tokens."""
        return hold_sessions(world, data, job, processes)

    def measure(self, world: World, data: VerticalData, job: str, report: Report) -> Measured:
        """All columns."""
        return measure(world, data, job, report)

    def afterwards(self, world: World) -> list[str]:
        """Auditing: of every party, what was spent, and that nothing was altered."""
        charter = world.root / "charter.yaml"
        return [f"archipel audit verify --dir {world.silo(name)} --charter {charter}" for name in world.names]

    def as_json(self, data: VerticalData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """As documented."""
        return reports.as_json(self.settings, data, outcomes)

    def for_people(self, found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
        """A table, a plot, and who saw and spent what."""
        return reports.for_people(found, outcomes)
