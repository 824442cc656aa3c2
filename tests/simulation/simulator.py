"""Schedules one after the other: from a seed to what happened and what does not hold."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import silo.session
from federation.rounds import JobState
from tests.simulation.invariants import check
from tests.simulation.probes import KeyPool
from tests.simulation.schedules import Beginning, Schedule, schedule_of
from tests.simulation.shortcuts import Shortcuts
from tests.simulation.simulation import Simulation
from tests.simulation.stages import Stage
from tests.simulation.trace import Trace
from tests.simulation.world import Template, copy_disk, template

NUM_KEYS = 3
RUNS_PER_COLLECTION = 10

Sabotage = Callable[[Simulation], AbstractContextManager[None]]


@dataclass
class Outcome:
    """What a simulation came to.

    Attributes:
        schedule: what went wrong in it.
        trace: what happened.
        wrongs: invariants that do not hold; empty for a correct product.
        state: the job as the coordinator's board has it at the end; None if it never began.
        seconds: virtual time it took.
    """

    schedule: Schedule
    trace: Trace
    wrongs: list[str]
    state: JobState | None
    seconds: float

    def report(self) -> str:
        """Everything a person needs to understand it."""
        state, seed = self.state, self.schedule.seed
        end = f"{state.outcome}: {state.reason}" if state else "no job"
        lines = [f"schedule {seed}", *self.schedule.describe(), "", *self.trace.lines(), ""]
        lines += [f"ended after {self.seconds:.0f} s, {end}", f"trace {self.trace.digest()}"]
        lines += [f"WRONG: {wrong}" for wrong in self.wrongs]
        return "\n".join([*lines, f"replay: python -m tests.simulation {seed}"])


@contextmanager
def simulator(*, vertical: bool = False) -> Iterator[Simulator]:
    """Make everything that simulations share; vertical jobs have their own disks, and no pool of keys."""
    with template(vertical=vertical) as disks:
        yield Simulator(disks, KeyPool(1 if vertical else NUM_KEYS), Shortcuts())


class Simulator:
    """Runs schedules one after the other.

    Args:
        template: the disks to begin with.
        keys: job keys.
        shortcuts: to be taken by whoever runs more than one.
    """

    def __init__(self, template: Template, keys: KeyPool, shortcuts: Shortcuts) -> None:
        self.shortcuts = shortcuts
        self._template = template
        self._keys = keys
        self._stages: dict[tuple[str, Beginning], Stage] = {}
        self._num_runs = 0

    def run(self, schedule: Schedule | int, *, sabotage: Sabotage | None = None) -> Outcome:
        """Run one schedule and check every invariant.

        Args:
            schedule: or its seed.
            sabotage: what to break in the product while it runs; nothing by default.
        """
        schedule = schedule_of(schedule) if isinstance(schedule, int) else schedule
        stage = self._stage(schedule.scenario, schedule.beginning)
        with self._simulation(schedule, stage, f"run-{schedule.seed}") as simulation:
            with sabotage(simulation) if sabotage else nullcontext():
                simulation.loop.run_until_complete(simulation.play())
            state, wrongs = check(simulation)
            return Outcome(schedule, simulation.trace, wrongs, state, simulation.loop.time())

    def _stage(self, scenario: str, beginning: Beginning) -> Stage | None:
        if beginning is Beginning.PROPOSAL:
            return None
        if (scenario, beginning) not in self._stages:
            self._stages[scenario, beginning] = self._make_stage(scenario, beginning)
        return self._stages[scenario, beginning]

    def _make_stage(self, scenario: str, beginning: Beginning) -> Stage:
        name = f"{scenario}-{beginning}"
        kept = self._template.root / name
        kept.mkdir()
        with self._simulation(Schedule(0, scenario), None, f"making-{name}") as simulation:
            left = simulation.loop.run_until_complete(simulation.play_until(beginning))
            for party, disk in left.items():
                copy_disk(disk, kept / party)
            return Stage(
                disks={party: kept / party for party in left},
                job=simulation.job,
                job_key=simulation.job_key,
                notebook=simulation.notebook,
                at=simulation.loop.now(),
            )

    def _collect_garbage(self) -> None:
        """The loops and tasks of simulations that are over; ``Shortcuts.taken`` lets nobody else do it."""
        self._num_runs += 1
        if self._num_runs % RUNS_PER_COLLECTION == 0:
            gc.collect()

    @contextmanager
    def _simulation(self, schedule: Schedule, stage: Stage | None, name: str) -> Iterator[Simulation]:
        root = self._template.root / name
        root.mkdir()
        simulation = Simulation(self._template, schedule, self._keys, root, stage)
        simulation.loop.set_exception_handler(simulation.unhandled)
        try:
            with simulation.hooked():
                yield simulation
        finally:
            simulation.loop.run_until_complete(simulation.stop())
            simulation.loop.close()
            silo.session._SESSIONS.clear()
            shutil.rmtree(root)
            self._collect_garbage()
