"""The silo agent: reads the board, does its duties, survives everything.

It dials out to the coordinator, verifies every post itself, folds them with :mod:`federation.rounds` and does
what :func:`~federation.rounds.duty` says. Each job has a task of its own. A duty that fails for a reason of
this silo's (a missing file, a full disk) is said in the log and in ``silo status`` and tried again; one that
fails because somebody cannot be trusted cancels the job.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from federation.messages import Envelope, parse_envelope, proposal_id, verify_envelope
from federation.rounds import Duty, JobState, StalePostError, advance, duty, propose
from federation.transport.base import Connection, UnreachableError
from policies.canonical import digest
from policies.files import write_atomically
from privacy.encryption.parameters import TENSEAL_VERSION
from privacy.errors import ArchipelError, EquivocationError, TrustError
from silo.jobs import close, contribute, start
from silo.jobs import open as opening
from silo.jobs.context import JobContext
from silo.release import cancel
from silo.site import RecordLostError, Site
from silo.worker import Worker

log = structlog.get_logger("silo")

POLL_SECONDS = 20.0
MAX_RETRY_SECONDS = 60.0
PAUSE_CHECK_SECONDS = 5.0

Handler = Callable[[JobContext], Awaitable[Envelope | None]]

HANDLERS: dict[Duty, Handler] = {
    Duty.ANSWER: start.answer,
    Duty.START: start.start,
    Duty.WRAP: start.wrap_keys,
    Duty.FINGERPRINT: start.fingerprint,
    Duty.CONTRIBUTE: contribute.contribute,
    Duty.PROTECT: contribute.protect,
    Duty.UPLOAD: contribute.upload,
    Duty.RECEIVE: opening.receive,
    Duty.OPEN: opening.open_sum,
    Duty.HEAD: close.head,
    Duty.RECEIPTS: close.countersign,
    Duty.FINISH: close.finish,
}


class CoordinatorMismatchError(TrustError):
    """The coordinator runs under another charter or another version of the encryption library."""

    code = "coordinator_mismatch"


class Agent:
    """One running silo agent."""

    def __init__(self, site: Site, connection: Connection) -> None:
        self._site = site
        self._connection = connection
        self._worker = Worker()
        self._jobs: dict[str, JobState] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._uploaded: set[tuple[str, int, int]] = set()
        self._changed: dict[str, asyncio.Event] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._check_coordinator()
            after = 0
            while True:
                try:
                    posts = await self._connection.posts(after, POLL_SECONDS)
                except UnreachableError as error:
                    log.warning("coordinator_unreachable", what=error.message)
                    continue
                for seq, raw in posts:
                    self._admit(raw)
                    after = seq
                self._wake()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._worker.close()

    async def _check_coordinator(self) -> None:
        """Compare charter and library versions before anything else; waits while nobody answers."""
        while True:
            try:
                info = await self._connection.info()
                break
            except UnreachableError as error:
                log.warning("coordinator_unreachable", what=error.message)
        if info.tenseal_version != TENSEAL_VERSION:
            raise CoordinatorMismatchError(
                f"the coordinator has tenseal {info.tenseal_version}, this silo {TENSEAL_VERSION}; their bytes differ",
                remedy="install the same version on both sides",
            )
        if info.charter_sha256 != digest(self._site.charter):
            raise CoordinatorMismatchError(
                "the coordinator runs under another charter",
                remedy="have everybody join the same charter.yaml",
            )
        log.info("connected", what=info.name)

    def _admit(self, raw: bytes) -> None:
        """Verify and fold one post; what does not verify changes nothing."""
        try:
            envelope = parse_envelope(raw)
            verify_envelope(envelope, self._site.identity_of(envelope.sender))
            job = envelope.job or proposal_id(envelope)
            known = self._jobs.get(job)
            coordinator = self._site.charter.coordinator.name
            self._jobs[job] = propose(envelope, coordinator) if known is None else advance(known, envelope)
        except ArchipelError as error:
            log.error("refused_post", code=error.code, what=error.message)
            return
        self._changed.setdefault(job, asyncio.Event()).set()

    def _wake(self) -> None:
        for job in self._jobs:
            task = self._tasks.get(job)
            if task is None or (task.done() and not self._is_finished(job)):
                self._tasks[job] = asyncio.create_task(self._work(job))

    async def _work(self, job: str) -> None:
        """Do this job's duties one after the other until it has ended."""
        retry_seconds = 1.0
        while not self._is_finished(job):
            changed = self._changed[job]
            changed.clear()
            try:
                finished = await self._do_duty(job)
                self._note(job, problem=None, finished=finished)
                retry_seconds = 1.0
            except StalePostError:
                pass  # the board has moved on; the next fold says where
            except (UnreachableError, OSError, ArchipelError) as error:
                await self._on_failure(job, error, retry_seconds)
                retry_seconds = min(2 * retry_seconds, MAX_RETRY_SECONDS)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), PAUSE_CHECK_SECONDS)

    async def _do_duty(self, job: str) -> bool:
        """Do what is due; returns whether the job is over for this silo."""
        state = self._jobs[job]
        due = duty(state, self._site.name)
        place = (job, state.round, state.attempt)
        if due is None or (self._site.is_paused and due is not Duty.FINISH):
            return False
        if due is Duty.UPLOAD and place in self._uploaded:
            return False
        log.info("duty", job=job, duty=due.value, round=state.round, attempt=state.attempt)
        context = JobContext(self._site, self._connection, self._worker, state)
        try:
            envelope = await HANDLERS[due](context)
        except RecordLostError as error:
            log.error("record_lost", job=job, duty=due.value, what=error.message)
            envelope = self._give_up(context)
        if due is Duty.UPLOAD:
            self._uploaded.add(place)
        if envelope is not None:
            await self._connection.post(envelope.to_bytes())
        if due is Duty.FINISH:
            log.info("job_ended", job=job, outcome=state.outcome)
        return due is Duty.FINISH

    def _give_up(self, context: JobContext) -> Envelope:
        """Within a round, burn the attempt; before it, there is nothing to burn and the job is cancelled."""
        if context.state.round and self._site.policy_of(context.job) is not None:
            return contribute.burn(context)
        return self._cancellation(context.job)

    async def _on_failure(self, job: str, error: Exception, retry_seconds: float) -> None:
        code = getattr(error, "code", "host")
        log.error("duty_failed", job=job, code=code, what=str(error))
        self._note(job, problem=str(error))
        if isinstance(error, TrustError) and not isinstance(error, EquivocationError):
            await self._cancel(job)
        await asyncio.sleep(retry_seconds)

    async def _cancel(self, job: str) -> None:
        try:
            await self._connection.post(self._cancellation(job).to_bytes())
        except ArchipelError as error:
            log.warning("not_cancelled", job=job, code=error.code, what=error.message)

    def _cancellation(self, job: str) -> Envelope:
        return cancel(job=job, sender=self._site.name, identity=self._site.party.identity)

    def _is_finished(self, job: str) -> bool:
        return bool(self._site.job_note(job).get("finished"))

    def _note(self, job: str, *, problem: str | None, finished: bool = False) -> None:
        """Leave word for ``silo status``: local, never sent."""
        state = self._jobs[job]
        note: dict[str, Any] = {
            "job": job,
            "phase": state.phase.value,
            "round": state.round,
            "num_rounds": state.num_rounds,
            "outcome": state.outcome,
            "reason": state.reason,
            "problem": problem,
            "finished": finished,
            "bytes_sent": self._connection.bytes_sent,
            "bytes_received": self._connection.bytes_received,
        }
        if note != self._site.job_note(job):
            directory = self._site.directory / "jobs" / job
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / "state.json", json.dumps(note, indent=2).encode())
