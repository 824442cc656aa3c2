"""One demo from its settings to its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from policies.console import say
from silo.demo.common_settings import CommonSettings
from silo.demo.outcome import Measured, Outcome
from silo.demo.processes import Processes
from silo.demo.staging import Staging
from silo.demo.world import World, clear, found, propose_plan, run_job

Report = Callable[[str], None]
Data = TypeVar("Data")


class Demo(Protocol[Data]):
    """What a demo of one partition does in its own way; everything else is :func:`run_demo`."""

    @property
    def settings(self) -> CommonSettings:
        """What was asked."""
        ...

    def prepare(self, seed: int) -> Data:
        """All rows of all silos of one seed: what only the harness has."""
        ...

    def describe(self, data: Data) -> str:
        """A line about the rows."""
        ...

    def staging(self, data: Data) -> Staging:
        """What of them goes into the silos' directories."""
        ...

    def hold_sessions(self, world: World, data: Data, job: str, processes: Processes) -> dict[str, Any]:
        """What else is done while the agents run, once the job has ended; for the outcome."""
        ...

    def measure(self, world: World, data: Data, job: str, report: Report) -> Measured:
        """The figures of a federation whose job has ended."""
        ...

    def afterwards(self, world: World) -> Sequence[str]:
        """Commands that its institutions may type from then on."""
        ...

    def as_json(self, data: Data, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Everything a machine may want to know."""
        ...

    def for_people(self, found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
        """The same in words."""
        ...


def run_demo(demo: Demo[Data], report: Report) -> tuple[dict[str, Any], list[object]]:
    """Run every seed; returns the figures for machines and for people.

    Raises:
        ArchipelError: what stopped it; nothing is left running.
    """
    settings = demo.settings
    outcomes: list[Outcome] = []
    first: Data | None = None
    for seed in range(settings.seed, settings.seed + settings.num_seeds):
        report(f"seed {seed}: loading the data")
        data = demo.prepare(seed)
        first = first or data
        say(f"seed {seed}: {demo.describe(data)}")
        outcomes.append(_run_seed(demo, data, seed, report))
    if first is None:
        raise RuntimeError("a demo has at least one seed")
    result = demo.as_json(first, outcomes)
    return result, demo.for_people(result, outcomes)


def _run_seed(demo: Demo[Data], data: Data, seed: int, report: Report) -> Outcome:
    world, staging = World(demo.settings.directory_of(seed), demo.settings), demo.staging(data)
    world.root.mkdir(parents=True, exist_ok=True)
    clear(world)
    seconds: dict[str, float] = {}
    with Processes() as processes:
        try:
            with _timed(seconds, "preparation"):
                found(world, staging, processes, report)
                forecast = propose_plan(world, staging, processes, report)
            with _timed(seconds, "job"):
                state = run_job(world, processes, report)
            with _timed(seconds, "sessions"):
                sessions = demo.hold_sessions(world, data, state.job, processes)
        finally:
            (world.root / "commands.txt").write_text("\n".join(processes.shown) + "\n")
    if seed == demo.settings.seed:
        _say_commands(processes, demo.afterwards(world), forecast)
    with _timed(seconds, "evaluation"):
        measured = demo.measure(world, data, state.job, report)
    seconds["total"] = sum(seconds.values())
    return Outcome(seed, world, state, measured, sessions, seconds)


def _say_commands(processes: Processes, afterwards: Sequence[str], forecast: str) -> None:
    say("The demo ran these commands; institutions type the same, each in its own directory:")
    for line in processes.shown:
        say("  " + line)
    say("  … then, at any time:")
    for line in afterwards:
        say("  " + line)
    say(forecast.rstrip())


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
