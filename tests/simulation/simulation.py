"""One schedule as it is played: the parties, their network, people, and whoever watches."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import silo.jobs.open
from federation import client, steps
from federation.legs import desk
from federation.legs.legs import LegPurpose
from federation.messages import PostKind, parse_envelope
from federation.rounds import JobState
from federation.steps import Step
from federation.transport.codec import Method
from federation.transport.connection import Patience, WireConnection
from privacy.errors import ArchipelError, PeerError
from silo.vertical.contents import CONTENTS
from tests.simulation.clock import EPOCH, OWNER, VirtualTimeLoop
from tests.simulation.network import Network
from tests.simulation.parties import Hub, Silo, SimulatedParty
from tests.simulation.probes import InlineAdder, KeyPool, Notebook, match_inline
from tests.simulation.processes import HEAL_SECONDS, Killed, Process
from tests.simulation.schedules import AtTime, Beginning, Command, Request, Restore, Schedule
from tests.simulation.stages import Stage
from tests.simulation.trace import Trace, logged_into
from tests.simulation.world import Template, copy_disk
from tests.support.vertical_federation import OpaqueContent

MAX_SECONDS = HEAL_SECONDS + 1800.0
"""By then every job has ended at every silo."""

LOOK_SECONDS = 1.0
FIRST_PERSON = 1000
"""Processes of people are numbered from here: they have no disk, and nobody kills them."""


class Simulation:
    """The parties of one schedule, their network and whoever watches.

    Args:
        template: the disks to begin with.
        schedule: what will go wrong.
        keys: job keys.
        root: an empty directory.
        stage: where to begin instead, the job that runs there included.
    """

    def __init__(
        self, template: Template, schedule: Schedule, keys: KeyPool, root: Path, stage: Stage | None = None
    ) -> None:
        self.template = template
        self.schedule = schedule
        self.root = root
        self.loop = VirtualTimeLoop(stage.at if stage else EPOCH)
        self.trace = Trace(self.loop)
        self.notebook = stage.notebook.copy() if stage else Notebook()
        self.job_key = stage.job_key if stage else keys.key_of(schedule.seed)
        self.job = stage.job if stage else ""
        self.plan = template.plans[schedule.scenario]
        parties = template.parties
        sources = stage.disks if stage else {name: party.directory for name, party in parties.parties.items()}
        disks = {name: self._disk(name, sources[name]) for name in (parties.hub.name, *schedule.silos)}
        self.hub = Hub(self, disks[parties.hub.name], parties.hub, parties.charter)
        self.network = Network(self.hub, self, schedule.weather, schedule.cuts, self.hub.name)
        self.silos = {name: Silo(self, name, disks[name], self.network) for name in schedule.silos}
        self.parties: dict[str, SimulatedParty] = {self.hub.name: self.hub, **self.silos}
        self._people: list[Process] = []

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────

    async def play(self) -> None:
        """Run the job to its end at every silo, or until time is up."""
        self._begin()
        while not self.is_finished() and self.loop.time() < MAX_SECONDS:  # noqa: ASYNC110 - files say so
            await asyncio.sleep(LOOK_SECONDS)
        if not self.is_finished():
            self.notebook.wrongs.append(f"the job has not ended after {MAX_SECONDS:g} virtual seconds")
        await asyncio.sleep(self.schedule.weather.max_lateness)  # what was sent long ago may arrive now
        await self.stop()

    async def play_until(self, beginning: Beginning) -> dict[str, Path]:
        """Run the job until another may begin there, then kill everybody; returns the disks that are left."""
        self._begin()
        while not any(_has_come(state, beginning) for state in self._states()):
            await asyncio.sleep(0.05)
            assert self.loop.time() < HEAL_SECONDS, "\n".join(self.trace.lines())
        for party in self.parties.values():
            party.kill("to begin from here", math.inf)
        await self.stop()
        return {name: party.disk for name, party in self.parties.items()}

    def _states(self) -> list[JobState]:
        return list(self.hub.service._board.jobs.values()) if self.hub.service else []

    def is_finished(self) -> bool:
        """Whether every silo's disk says that it is done with the job, and the coordinator is up."""
        is_done = bool(self.job) and all(silo.note(self.job).get("finished") for silo in self.silos.values())
        return is_done and self.hub.service is not None

    def _begin(self) -> None:
        for party in self.parties.values():
            party.start()
        if not self.job:
            self._ask(self.schedule.silos[0], self._submit)
        self._set_timers()

    def _set_timers(self) -> None:
        for crash in self.schedule.crashes:
            if isinstance(crash.at, AtTime):
                party = self.parties[crash.party]
                self.loop.call_at(crash.at.seconds, party.kill, str(crash.at), crash.down_seconds)
        for restore in self.schedule.restores:
            self.loop.call_at(restore.saved_at, self._save, restore)
        for request in self.schedule.requests:
            self.loop.call_at(request.at, self._ask, request.by, self._request, request)

    def _save(self, restore: Restore) -> None:
        party, backup = self.silos[restore.silo], self.root / f"{restore.silo}-backup"
        copy_disk(party.disk, backup)
        self.trace.add(party.name, "backed up")
        self.loop.call_at(restore.restored_at, party.restore, backup, restore)

    def _ask(self, name: str, what: Callable[..., Any], *args: object) -> None:
        """Let a person of a party do something with a client of their own."""
        process = Process(name, FIRST_PERSON + len(self._people), self.root, seed=str(self.schedule.seed))
        self._people.append(process)
        process.run(what(process, *args))

    async def _submit(self, process: Process) -> None:
        party, charter = self.template.parties.parties[process.party], self.template.parties.charter
        while not self.job:
            try:
                self.job = await client.submit(
                    self._connect(process), party, charter, self.plan, self.template.catalogue,
                    now=self.loop.now(),
                )  # fmt: skip
            except PeerError as error:
                self.trace.add(process.party, f"not submitted: {error.code}", error.message)
                await asyncio.sleep(1.0)
        self.trace.add(process.party, "submitted")

    async def _request(self, process: Process, request: Request) -> None:
        """Ask once, as a person does; a refusal is an answer."""
        party, board = self.template.parties.parties[request.by], client.Board(self.template.parties.charter)
        connection = self._connect(process)
        try:
            await board.refresh(connection)
            state = board.find(self.job)
            match request.command:
                case Command.PAUSE:
                    await client.pause(connection, party, state)
                case Command.RESUME:
                    await self._resume(connection, board, request)
                case Command.CANCEL:
                    await client.cancel(connection, party, state.job)
        except ArchipelError as error:
            self.trace.add(request.by, f"could not {request.command}: {error.code}", error.message)

    async def _resume(self, connection: WireConnection, board: client.Board, request: Request) -> None:
        """A pause is always lifted in the end: a job that is paused for ever does not end."""
        party = self.template.parties.parties[request.by]
        while True:
            try:
                await board.refresh(connection)
                await client.resume(connection, party, board.find(self.job))
            except PeerError as error:
                self.trace.add(request.by, f"not yet resumed: {error.code}", error.message)
            else:
                return
            await asyncio.sleep(5.0)

    def _connect(self, process: Process) -> WireConnection:
        """A person's connection: it asks until it is answered, so that nothing is proposed twice."""
        return WireConnection(
            self.network.wire(process), patience=Patience(total_seconds=math.inf), rng=process.rng
        )

    async def stop(self) -> None:
        """End every process for good."""
        for party in self.parties.values():
            party.stop()
        for process in self._people:
            process.die()
        for process in self.processes():
            await process.wait_for_end()

    def processes(self) -> Iterator[Process]:
        """Every process that ever ran."""
        for party in self.parties.values():
            yield from party.dead
        yield from self._people

    # ── what is seen of it ───────────────────────────────────────────────────────────────────────────────

    def arrived(self, party: str, method: Method, request: bytes) -> None:
        """A request reached the coordinator."""
        if method is Method.POST:
            self.notebook.note_post(request)

    def refused(self, party: str, method: Method, request: bytes, error: ArchipelError) -> None:
        """The coordinator refused a request, just now: nothing of it may be on the board."""
        self.trace.add(party, f"{method} refused: {error.code}", error.message)
        if method is Method.POST and self.hub.service is not None:
            envelope = parse_envelope(request)
            state = self.hub.service._board.jobs.get(envelope.job)
            if state is not None and state.posts.get(envelope.place) == envelope:
                self.notebook.wrongs.append(f"a refused {envelope.kind} of {party} is on the board")

    def lost(self, party: str, what: str, method: Method) -> None:
        """The network did something to a call."""
        self.trace.add(party, f"{method} {what}")

    # ── what production code meets ───────────────────────────────────────────────────────────────────────

    def on_step(self, when: str, step: Step) -> None:
        """Production code has come to a durable step."""
        owner = OWNER.get()
        if isinstance(owner, Process) and owner.is_alive and owner.party in self.parties:
            self.parties[owner.party].on_step(when, step)

    def on_sync(self, _descriptor: object) -> None:
        """Production code waits for its disk."""
        owner = OWNER.get()
        if isinstance(owner, Process) and owner.is_alive and owner.number < FIRST_PERSON:
            self.parties[owner.party].on_sync()

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Lead failpoints, fsync, logs and a silo's own summing here while the block runs."""
        with pytest.MonkeyPatch.context() as patch, logged_into(self.trace):
            patch.setattr(steps, "_failpoint", self.on_step)
            patch.setattr(os, "fsync", self.on_sync)
            patch.setattr(silo.jobs.open, "SumWorker", InlineAdder)
            patch.setattr(desk, "run_match", match_inline)
            for purpose in LegPurpose:
                patch.setitem(CONTENTS, purpose, OpaqueContent())
            yield

    def _disk(self, name: str, source: Path) -> Path:
        disk = self.root / f"{name}-1"
        copy_disk(source, disk)
        return disk

    def unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody caught; only a kill may come here."""
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.notebook.wrongs.append(f"in the event loop: {context['message']}: {error!r}")


def _has_come(state: JobState, beginning: Beginning) -> bool:
    match beginning:
        case Beginning.PROPOSAL:
            return True
        case Beginning.FIRST_ROUND:
            return state.round == 1
        case Beginning.LAST_ROUND:
            return state.round == state.num_rounds
        case Beginning.LAST_SUM:
            return any(
                place.kind is PostKind.SUM and place.round == state.num_rounds for place in state.posts
            )
