"""The silo agent: reads the board, does its duties, survives everything.

It dials out to the coordinator, verifies every post itself, folds them with :mod:`federation.rounds` and does
what :func:`~federation.rounds.duty` says. Each job has a task of its own.

====================================================  ===================================================
what happens                                          what the agent does
====================================================  ===================================================
the coordinator cannot be reached, or has trouble     says so and asks again
it or its charter cannot be trusted                   ends with exit code 8
it has not taken up this silo's amendment yet         waits for it, says so
a duty fails here (a missing column, a full disk)     says so in the log and ``silo status``, tries again
a peer cannot be trusted, the ledger may not pay      cancels the job
training leads nowhere, the same in every silo        cancels the job; the rounds before it make a model
the others went on without this silo                  replays what it missed, then says that it is back
the board shows what this silo's disk does not know   burns the attempt; the job, where that cannot help
====================================================  ===================================================
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from federation.job_state import IN_LEG
from federation.messages import Envelope, parse_envelope, proposal_id, verify_envelope
from federation.rounds import Duty, JobState, Phase, StalePostError, advance, duty, propose
from federation.steps import Step, durable
from federation.transport.base import Connection, CoordinatorInfo
from federation.transport.handshake import RefusedCertificateError
from policies.canonical import digest
from policies.files import write_atomically
from privacy.agreement import KeyAgreementError
from privacy.encryption.keyholder import JobKeyError
from privacy.encryption.parameters import TENSEAL_VERSION
from privacy.errors import ArchipelError, DeniedError, EquivocationError, HostError, TrustError
from silo.jobs import approval, close, contribute, legs, recover, start
from silo.jobs import open as opening
from silo.jobs.context import JobContext
from silo.jobs.records import charge_what_left, check_records
from silo.release import cancel
from silo.session import NoNextStateError
from silo.site import JobRecordLostError, RecordLostError, Site
from silo.worker import Worker

log = structlog.get_logger("silo")

POLL_SECONDS = 20.0
MAX_RETRY_SECONDS = 60.0
RECONNECT_SECONDS = 2.0
BEHIND_SECONDS = 5.0
PAUSE_CHECK_SECONDS = 5.0
REPEAT_SECONDS = 60.0
"""A duty that was done is done once more if the board still asks for it after so long."""

T = TypeVar("T")
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
    Duty.REPAIR: recover.repair,
    Duty.RETURN: recover.come_back,
    Duty.SEND: legs.send,
    Duty.APPROVE: approval.approve,
    Duty.FETCH: legs.fetch,
    Duty.HEAD: close.head,
    Duty.RECEIPTS: close.countersign,
    Duty.FINISH: close.finish,
}

_ENDS_AGENT = (TrustError, DeniedError)
_ENDS_JOB = (TrustError, DeniedError, KeyAgreementError, JobKeyError, NoNextStateError)


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
        self._done: dict[tuple[str, Duty | None, int, int], float] = {}
        self._changed: dict[str, asyncio.Event] = {}

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            TrustError: the coordinator, or the charter, cannot be trusted any more.
            DeniedError: the coordinator does not listen to this silo.
        """
        try:
            self._erase_what_is_over()
            await self._check_coordinator()
            after, has_read_all = 0, False
            while True:
                posts = await self._ask(
                    partial(self._connection.posts, after, POLL_SECONDS if has_read_all else 0.0)
                )
                for seq, raw in posts:
                    self._admit(raw)
                    after = seq
                has_read_all = has_read_all or not posts
                if has_read_all:
                    self._wake()
        finally:
            await self._stop()

    def _erase_what_is_over(self) -> None:
        """Erase secrets of finished jobs: an outbox that was restored from a backup brings them back."""
        for job in self._site.outbox.jobs_with_secrets():
            if self._is_finished(job):
                try:
                    self._site.outbox.erase_secrets(job)
                    log.warning("secrets_erased", job=job)
                except HostError as error:
                    log.error("secrets_not_erased", job=job, code=error.code, what=error.message)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the coordinator until it answers; only what no retry can mend is raised."""
        while True:
            try:
                return await call()
            except RefusedCertificateError:
                if not self._site.is_rekeyed:
                    raise
                self._say_behind()
                await asyncio.sleep(BEHIND_SECONDS)
            except _ENDS_AGENT:
                raise
            except ArchipelError as error:
                log.warning("no_answer", code=error.code, what=error.message, remedy=error.remedy)
                await asyncio.sleep(RECONNECT_SECONDS)

    def _say_behind(self) -> None:
        version = self._site.charter.version
        remedy = "install the amendment there: archipel charter install"
        log.warning("coordinator_behind", charter_version=version, remedy=remedy)

    async def _stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._worker.close()

    async def _check_coordinator(self) -> None:
        """Compare charter and library versions before anything else; waits while nobody answers."""
        info: CoordinatorInfo = await self._ask(self._connection.info)
        former = {digest(charter) for charter in self._site.charters[:-1]}
        while info.charter_sha256 in former:
            self._say_behind()
            await asyncio.sleep(BEHIND_SECONDS)
            info = await self._ask(self._connection.info)
        if info.tenseal_version != TENSEAL_VERSION:
            raise CoordinatorMismatchError(
                f"the coordinator has tenseal {info.tenseal_version}, this silo {TENSEAL_VERSION}: "
                "their ciphertexts differ",
                remedy="install the same version on both sides",
            )
        if info.charter_sha256 != digest(self._site.charter):
            raise CoordinatorMismatchError(
                "the coordinator runs under another charter",
                remedy="install its newest amendment here: archipel silo join; compare with charter show",
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
            if (task is None or task.done()) and not self._is_finished(job):
                self._tasks[job] = asyncio.create_task(self._work(job))
                self._tasks[job].add_done_callback(partial(_say_crash, job))

    async def _work(self, job: str) -> None:
        """Do this job's duties one after the other until it has ended."""
        retry_seconds = 1.0
        while not self._is_finished(job):
            changed = self._changed[job]
            changed.clear()
            due = duty(self._jobs[job], self._site.name)
            try:
                if self._jobs[job].phase is not Phase.ENDED and self._site.stops(job):
                    log.warning("stopped_by_freeze", job=job)
                    await self._cancel(job)
                else:
                    await self._do(due, job)
                retry_seconds = 1.0
            except StalePostError:
                pass  # the board has moved on; the next fold says where
            except (OSError, ArchipelError) as error:
                await self._on_failure(job, due, error)
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(2 * retry_seconds, MAX_RETRY_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_CHECK_SECONDS):
                    await changed.wait()

    async def _do(self, due: Duty | None, job: str) -> None:
        """Do what is due, once, and leave word of it."""
        state, loop = self._jobs[job], asyncio.get_running_loop()
        done = (job, due, state.round, state.attempt)
        is_held = self._site.is_paused and due is not Duty.FINISH
        is_held |= due is Duty.APPROVE and approval.is_awaited(self._site, job)
        is_done = loop.time() < self._done.get(done, -REPEAT_SECONDS) + REPEAT_SECONDS
        if due is not None and not is_held and not is_done:
            log.info("duty", job=job, duty=due.value, round=state.round, attempt=state.attempt)
            envelope = await self._handle(due, JobContext(self._site, self._connection, self._worker, state))
            if envelope is not None:
                await self._connection.post(envelope.to_bytes())
            self._done[done] = loop.time()
        if due is Duty.FINISH:
            with durable(Step.JOB_FINISHED):
                self._note(job, problem=None, finished=True)
            log.info("job_ended", job=job, outcome=state.outcome)
        else:
            self._note(job, problem=None)

    async def _handle(self, due: Duty, context: JobContext) -> Envelope | None:
        try:
            check_records(context)
            return await HANDLERS[due](context)
        except RecordLostError as error:
            log.error("record_lost", job=context.job, duty=due.value, what=error.message)
            return self._give_up(context, error)

    def _give_up(self, context: JobContext, error: RecordLostError) -> Envelope:
        """Burn the attempt; before a round, or where no further attempt can help, cancel the job.

        A silo that is absent stops nobody: it stays away, and says so to its own people.
        """
        charge_what_left(context)
        if context.me in context.state.absent:
            raise error
        if context.state.round and not isinstance(error, JobRecordLostError):
            with suppress(JobRecordLostError):
                return contribute.burn(context)
        return self._cancellation(context.job)

    async def _on_failure(self, job: str, due: Duty | None, error: Exception) -> None:
        log.error("duty_failed", job=job, code=getattr(error, "code", "host"), what=str(error))
        with suppress(OSError):
            self._note(job, problem=str(error))
        ends_job = isinstance(error, _ENDS_JOB) and not isinstance(error, EquivocationError)
        if ends_job and due not in (None, Duty.ANSWER, Duty.RETURN, Duty.FINISH):
            await self._cancel(job)

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
            "spine_slots": state.spine_slots,
            "leg": state.leg.in_words if state.phase in IN_LEG else None,
            "absent": self._site.name in state.absent and state.phase is not Phase.ENDED,
            "outcome": state.outcome,
            "reason": state.reason,
            "given_up_by": state.given_up_by,
            "problem": problem,
            "finished": finished,
            "bytes_sent": self._connection.bytes_sent,
            "bytes_received": self._connection.bytes_received,
        }
        if note != self._site.job_note(job):
            directory = self._site.directory / "jobs" / job
            directory.mkdir(parents=True, exist_ok=True)
            _write_note(directory / "state.json", json.dumps(note, indent=2).encode(), is_durable=finished)


def _write_note(path: Path, content: bytes, *, is_durable: bool) -> None:
    """Replace a note for people; it may be lost with the power as long as nothing depends on it."""
    if is_durable:
        write_atomically(path, content)
        return
    part = path.with_name(f"{path.name}.new")
    part.write_bytes(content)
    part.replace(path)


def _say_crash(job: str, task: asyncio.Task[None]) -> None:
    """Say where a job's task met a bug, without what it held; the job is taken up at the next poll."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    log.error("job_crashed", job=job, code="unexpected", what=type(error).__name__, where=place)
