"""Parties of a simulation: a disk, and one process after the other over it."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

from federation.coordinator import Coordinator
from federation.identity import Party
from federation.rounds import JobState
from federation.steps import Step
from federation.transport.connection import Patience, WireConnection
from policies.charters.charter import Charter
from privacy.errors import ArchipelError
from silo.agent import Agent
from silo.site import Site
from tests.simulation.clock import VirtualTimeLoop
from tests.simulation.network import Network
from tests.simulation.probes import InlineAdder, Notebook, WatchedWorker
from tests.simulation.processes import Killed, Process
from tests.simulation.schedules import AtStep, AtSync, Crash, Restore, Schedule, When
from tests.simulation.trace import Trace
from tests.simulation.world import copy_disk
from tests.support.vertical_federation import match_ids

PATIENCE = Patience(total_seconds=30.0)
RESTART_SECONDS = 10.0
"""How long a service manager waits before it starts a process again that ended by itself."""


class Scene(Protocol):
    """What parties share."""

    loop: VirtualTimeLoop
    schedule: Schedule
    trace: Trace
    notebook: Notebook
    job_key: bytes


class SimulatedParty(ABC):
    """A name, a disk, and its present process if it is up.

    Args:
        scene: what parties share.
        name: of the party.
        disk: its directory.

    Attributes:
        process: the one that runs; None while the party is down.
        disk: what the present process works on, or the next one will.
        dead: earlier processes.
    """

    def __init__(self, scene: Scene, name: str, disk: Path) -> None:
        self.scene = scene
        self.name = name
        self.disk = disk
        self.process: Process | None = None
        self.dead: list[Process] = []
        self._crashes = [crash for crash in scene.schedule.crashes if crash.party == name]
        self._came: Counter[object] = Counter()

    def start(self) -> None:
        """Start the next process."""
        number = len(self.dead) + 1
        slowness = self.scene.schedule.slowness.get(self.name, 1.0)
        seed = str(self.scene.schedule.seed)
        self.process = Process(self.name, number, self.disk, seed=seed, slowness=slowness)
        self.scene.trace.add(self.name, f"start {number}")
        task = self.process.run(self._live(self.process))
        task.add_done_callback(partial(self._see_end, self.process))

    def stop(self) -> None:
        """End the present process for good."""
        if self.process is not None:
            self.process.die()
            self.dead.append(self.process)
            self.process = None

    def kill(self, why: str, down_seconds: float) -> None:
        """End the process at this very moment; its disk is as it is now, and another one starts later."""
        if self.process is None:
            self.scene.trace.add(self.name, f"is down already: {why}")
            return
        self.scene.trace.add(self.name, f"KILLED {why}")
        self._leave_disk()
        self.stop()
        if down_seconds < math.inf:
            self.scene.loop.call_later(down_seconds, self.start)

    def restore(self, backup: Path, restore: Restore) -> None:
        """Go on from an older disk."""
        self.kill("and restored from its backup", 1.0)
        if restore.outbox_only:
            shutil.rmtree(self.disk / "outbox", ignore_errors=True)
            if (backup / "outbox").exists():
                copy_disk(backup / "outbox", self.disk / "outbox")
        else:
            self.disk = backup

    def on_step(self, when: str, step: Step) -> None:
        """The party's process has come to a failpoint; does not return where that is its end."""
        self._came[when, step] += 1
        at = AtStep(When(when), step, self._came[when, step])
        self._perhaps_die([crash for crash in self._crashes if crash.at == at])

    def on_sync(self) -> None:
        """The party's process is about to wait for its disk; does not return where that is its end."""
        self._came["sync"] += 1
        at = AtSync(self._came["sync"])
        self._perhaps_die([crash for crash in self._crashes if crash.at == at])

    def _perhaps_die(self, crashes: list[Crash]) -> None:
        for crash in crashes:
            self.kill(str(crash.at), crash.down_seconds)
            raise Killed

    def _leave_disk(self) -> None:
        assert self.process is not None
        self.disk = self.process.directory.with_name(f"{self.name}-{self.process.number + 1}")
        copy_disk(self.process.directory, self.disk)

    def _see_end(self, process: Process, _task: asyncio.Task[None]) -> None:
        """A process that ended by itself is started again by whoever looks after the machine."""
        if process is self.process:
            self.scene.trace.add(self.name, "ENDED by itself")
            process.bugs.append(f"{self.name} ended by itself")
            self.kill("after its end", RESTART_SECONDS)

    @abstractmethod
    async def _live(self, process: Process) -> None:
        """What the process does until it is cancelled."""


class Hub(SimulatedParty):
    """The coordinator's party.

    Attributes:
        service: the coordinator that answers, None while there is none.
        states: the jobs of the last one, as it had them when it stopped.
    """

    def __init__(self, scene: Scene, disk: Path, party: Party, charter: Charter) -> None:
        super().__init__(scene, party.name, disk)
        self._party = party
        self._charter = charter
        self.service: Coordinator | None = None
        self.states: dict[str, JobState] = {}

    @override
    async def _live(self, process: Process) -> None:
        coordinator = Coordinator(
            process.directory, self._party, self._charter, clock=self.scene.loop.now, adder=InlineAdder(),
            match=match_ids,
        )  # fmt: skip
        try:
            await coordinator.start()
            self.service = coordinator
            await asyncio.get_running_loop().create_future()
        finally:
            await coordinator.stop()

    @override
    def stop(self) -> None:
        super().stop()
        if self.service is not None:
            self.states = dict(self.service._board.jobs)
            self.service = None


class Silo(SimulatedParty):
    """A silo's party."""

    def __init__(self, scene: Scene, name: str, disk: Path, network: Network) -> None:
        super().__init__(scene, name, disk)
        self._network = network
        self._wrong = [m.occurrence for m in scene.schedule.miscalculations if m.silo == name]

    def note(self, job: str) -> dict[str, Any]:
        """What the agent last noted on the disk about the job."""
        path = self.disk / "jobs" / job / "state.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    @override
    async def _live(self, process: Process) -> None:
        with Site(process.directory, clock=self.scene.loop.now) as site:
            connection = WireConnection(self._network.wire(process), patience=PATIENCE, rng=process.rng)
            agent = Agent(site, connection)
            wrong = self._wrong if process.number == 1 else ()
            agent._worker = WatchedWorker(process, self.scene.notebook, self.scene.job_key, wrong)
            try:
                await agent.run()
            except ArchipelError as error:
                self.scene.trace.add(self.name, f"agent ended: {error.code}", error.message)
                raise
