"""The coordinator: the I/O shell around :mod:`federation.rounds`.

It stores signed posts, relays bulk bytes, adds ciphertexts in a worker process without a key, and says when a
job has ended. It holds no secret of any silo: not an update, not the sum, not the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from federation.absences import Patience
from federation.aggregation import SumWorker
from federation.blobs import Blobs
from federation.bulletin import Bulletin
from federation.identity import Party
from federation.legs.desk import LegDesk
from federation.legs.matching import Match as MatchFunction
from federation.messages import (
    MAX_REASON_CHARS,
    Absence,
    BlobKind,
    BlobRef,
    Body,
    Ended,
    Envelope,
    PostKind,
    Sum,
    parse_envelope,
    proposal_id,
    seal,
    verify_envelope,
)
from federation.questions import KeyOffer
from federation.quotas import MAX_CATALOGUE_BYTES, CoordinatorLimits, RefusalMeter, WaitingCalls
from federation.relay import QuestionRelay
from federation.rounds import Close, JobState, Match, Phase, Relay, SumStreams, advance, pending, propose
from federation.steps import Step, durable
from federation.store import Store
from federation.trail import Trail
from federation.transport.base import CoordinatorInfo
from policies.canonical import digest
from policies.charters.charter import Charter
from policies.trust import require_unexpired
from privacy.encryption.parameters import TENSEAL_VERSION
from privacy.errors import ArchipelError, DeniedError, HostError, PeerError, ProtocolError, TrustError

log = structlog.get_logger("coordinator")

MAX_SUM_TRIALS = 5
SUM_PAUSE_SECONDS = 5.0
EXPIRY_CHECK_SECONDS = 60.0

Work = Callable[[], Awaitable[None]]


def utc_now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


class Coordinator:
    """One running coordinator; offers the :class:`~federation.transport.base.Service` methods.

    Args:
        directory: its directory (``coordinator.db``, ``trail.db``, ``spool/``).
        party: its name and keys.
        charter: the charter in force.
        limits: see :class:`~federation.quotas.CoordinatorLimits`.
        clock: current time; tests pass their own. How long a silo lets its round wait is measured by the
            event loop's clock, which no correction of the machine's time can move.
        adder: adds ciphertexts; a process of its own if left out.
        match: finds the people in common of vertical jobs; left out: such jobs are refused.
    """

    def __init__(
        self,
        directory: Path,
        party: Party,
        charter: Charter,
        *,
        limits: CoordinatorLimits | None = None,
        clock: Callable[[], datetime] = utc_now,
        adder: SumWorker | None = None,
        match: MatchFunction | None = None,
    ) -> None:
        self._party = party
        self._charter = charter
        self._limits = limits or CoordinatorLimits()
        self._clock = clock
        self._store = Store(directory)
        self._trail = Trail(directory, party.identity)
        self._worker = adder or SumWorker(keeps_process=True)
        self._waiting = WaitingCalls(
            self._limits.max_waiting_calls_per_party,
            "max_waiting_calls_per_party",
            remedy="end other job watch commands of this party",
        )
        meter = RefusalMeter(self._limits)
        self._board = Bulletin(self._store, self._trail, party.name, clock, meter=meter)
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._summing: set[tuple[str, int, int]] = set()
        self._blobs = Blobs(self._store, self._board)
        self._legs = LegDesk(self._board, self._blobs, self._say, self._close, match)
        self._patience = Patience()
        self._relay = QuestionRelay(self._limits)
        self._moved = asyncio.Event()
        self._keys = {party.name: party.identity_key for party in charter.parties()}

    async def start(self) -> None:
        """Fold what is stored and take up what was left undone."""
        self._board.load()
        for job in self._board.jobs:
            if self._board.has_ended(job) and self._store.has_spool(job):
                self._erase(job)
            self._take_up(job)
        self._spawn(self._watch_expiry)
        self._spawn(self._watch_rounds)

    async def stop(self) -> None:
        """Finish cleanly: no new work, worker ended, databases closed."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._worker.close()
        self._trail.close()
        self._store.close()

    # ── the Service methods ──────────────────────────────────────────────────────────────────────────────

    async def info(self, party: str) -> CoordinatorInfo:
        """Who answers, with which versions and charter."""
        self._check_party(party)
        return CoordinatorInfo(
            name=self._party.name,
            version=1,
            tenseal_version=TENSEAL_VERSION,
            charter_sha256=digest(self._charter),
        )

    async def handle_post(self, party: str, raw: bytes) -> int:
        """Accept a signed post of ``party`` and return its number; the same bytes again change nothing.

        Raises:
            ArchipelError: why it is refused; nothing was changed.
        """
        try:
            self._check_party(party)
            envelope = parse_envelope(raw)
            if envelope.sender != party:
                raise ProtocolError(f"{party} sent a post in the name of {envelope.sender}")
            verify_envelope(envelope, self._keys[party])
            return await self._accept(envelope)
        except ArchipelError as error:
            self._board.refused(party, error)
            raise

    async def handle_posts(self, party: str, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        """Posts numbered above ``after`` in jobs that ``party`` belongs to; waits for the first one.

        Raises:
            OverQuotaError: too many calls of this party wait already.
        """
        self._check_party(party)
        deadline = asyncio.get_running_loop().time() + wait_seconds
        with self._waiting.one_of(party):
            return await self._posts_until(party, after, deadline)

    async def _posts_until(self, party: str, after: int, deadline: float) -> list[tuple[int, bytes]]:
        async with self._changed:
            while not (found := self._board.posts_for(party, after)):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return []
                try:
                    async with asyncio.timeout(left):
                        await self._changed.wait()
                except TimeoutError:
                    return []
            return found

    async def blob_offset(self, party: str, ref: BlobRef) -> int:
        """How many bytes of ``ref`` are here: where an upload goes on."""
        self._check_party(party)
        have = await self._blobs.offset(party, ref)
        self._take_up(ref.job)
        return have

    async def append_blob(self, party: str, ref: BlobRef, offset: int, chunk: bytes, sha256: str) -> int:
        """Take one chunk of the party's own announced bytes; returns the new offset.

        Raises:
            ProtocolError: not announced, altered, out of place or too long.
        """
        try:
            self._check_party(party)
            have = await self._blobs.append(party, ref, offset, chunk, sha256)
        except (PeerError, DeniedError, TrustError) as error:
            self._board.refused(party, error)
            raise
        self._take_up(ref.job)
        return have

    async def read_blob(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
        """Bytes of a complete blob, for the job's roster only; streams only once their sum is fixed."""
        self._check_party(party)
        return self._blobs.read(party, ref, offset, limit)

    async def offer_of(self, party: str, silo: str) -> bytes:
        """The signed key that ``silo`` answers questions with."""
        self._check_party(party)
        return self._relay.offer_of(silo)

    async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
        """Carry a sealed question to ``silo``, and its sealed answer back."""
        self._check_party(party)
        try:
            return await self._relay.ask(party, silo, question, wait_seconds)
        except ProtocolError as error:
            self._board.refused(party, error)
            raise

    async def listen(self, party: str, offer: bytes, wait_seconds: float) -> list[tuple[str, str, bytes]]:
        """Give out ``party``'s key offer, and hand it the questions that are for it."""
        self._check_party(party)
        try:
            KeyOffer.parse(offer).verify(party, self._keys[party], self._clock())
            with self._waiting.one_of(party):
                found = await self._relay.listen(party, offer, wait_seconds)
        except (ProtocolError, TrustError) as error:
            self._board.refused(party, error)
            raise
        return [(one.ticket, one.asker, one.question) for one in found]

    async def take_answer(self, party: str, ticket: str, answer: bytes) -> None:
        """Take ``party``'s sealed answer to a question that it was handed."""
        self._check_party(party)
        self._relay.answer(party, ticket, answer)

    # ── what happens inside ──────────────────────────────────────────────────────────────────────────────

    def _check_party(self, party: str) -> None:
        require_unexpired("charter", self._charter.expires, self._clock())
        if party not in self._keys:
            raise DeniedError(f"{party} is not a party of the charter {self._charter.name}")

    async def _accept(self, envelope: Envelope) -> int:
        if envelope.kind is PostKind.PROPOSAL:
            return await self._accept_proposal(envelope)
        state = self._board.jobs.get(envelope.job)
        if state is None:
            raise ProtocolError(f"no job {envelope.job or '(unnamed)'} is known here")
        advance(state, envelope)
        return await self._publish(envelope.job, envelope)

    async def _accept_proposal(self, envelope: Envelope) -> int:
        state = propose(envelope, self._party.name)
        strangers = [silo for silo in state.roster if self._charter.member(silo) is None]
        if strangers:
            raise ProtocolError(f"not in the charter: {', '.join(strangers)}")
        if state.plan.is_vertical and not self._legs.can_match:
            raise ProtocolError(
                "this coordinator cannot find people in common, so it takes no vertical plan",
                remedy="propose a horizontal plan, or ask its operator for a newer version",
            )
        if state.proposal.catalogue_bytes > MAX_CATALOGUE_BYTES:
            raise ProtocolError(f"a catalogue of more than {MAX_CATALOGUE_BYTES} bytes")
        job = proposal_id(envelope)
        if job not in self._board.jobs:
            self._board.check_quota(state, self._limits)
        return await self._publish(job, envelope)

    async def _publish(self, job: str, envelope: Envelope) -> int:
        """Put a post that its job admits on the board, tell everybody, do what follows from it."""
        before = self._board.jobs.get(job)
        seq, is_new = self._board.publish(job, envelope)
        if is_new:
            state = self._board.jobs[job]
            kind, sender, phase = envelope.kind.value, envelope.sender, state.phase.value
            log.info("posted", job=job, kind=kind, sender=sender, phase=phase)
            if before is not None:
                self._blobs.drop_streams(before, state)
            self._take_up(job)
            async with self._changed:
                self._changed.notify_all()
        return seq

    def _take_up(self, job: str) -> None:
        """Start whatever the state says the coordinator owes this job, and look at the clocks anew."""
        self._moved.set()
        state = self._board.jobs[job]
        match pending(state):
            case SumStreams(round=round_, attempt=attempt):
                refs = self._blobs.streams(state)
                place = (job, round_, attempt)
                if place not in self._summing and self._blobs.are_complete(refs):
                    self._summing.add(place)
                    self._spawn(partial(self._sum, state, refs))
            case Relay() | Match() as action:
                if self._legs.is_ready(state, action):
                    self._spawn(partial(self._legs.take_up, state, action))
            case Close() as close:
                self._spawn(partial(self._close, job, close))
            case None:
                pass

    async def _sum(self, state: JobState, refs: list[BlobRef]) -> None:
        """Add the streams and post the sum's manifest."""
        try:
            body = await self._add_streams(state, refs)
            if body is not None and self._owes_sum(state):
                with durable(Step.SUM_POSTED):
                    await self._say(state.job, body, state.round, state.attempt)
        finally:
            self._summing.discard((state.job, state.round, state.attempt))

    async def _add_streams(self, state: JobState, refs: list[BlobRef]) -> Sum | None:
        """A machine that fails is tried again; streams that cannot be added end the job."""
        ref = refs[0].model_copy(update={"kind": BlobKind.SUM, "sender": self._party.name})
        num_frames = state.shapes[state.round - 1].layout.num_frames
        paths, out = [self._blobs.path(item) for item in refs], self._blobs.path(ref)
        streams = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
        reason = "the coordinator's machine could not add the streams; its log says why"
        for trial in range(1, MAX_SUM_TRIALS + 1):
            if not self._owes_sum(state):
                return None
            try:
                with durable(Step.SUM_WRITTEN):
                    written = await self._worker.sum(paths, num_frames, out)
                return Sum(
                    sha256=written.sha256,
                    num_bytes=written.num_bytes,
                    num_frames=num_frames,
                    streams={envelope.sender: envelope.body["sha256"] for envelope in streams},
                )
            except (HostError, OSError) as error:
                if self._owes_sum(state):
                    log.error("sum_failed", job=state.job, attempts=trial, what=str(error))
                    await asyncio.sleep(trial * SUM_PAUSE_SECONDS)
            except ArchipelError as error:
                self._board.refused(self._party.name, error)
                reason = f"the streams could not be added: {error.message}"
                break
        await self._close(state.job, Close("failed", reason[:MAX_REASON_CHARS]))
        return None

    def _owes_sum(self, state: JobState) -> bool:
        return pending(self._board.jobs[state.job]) == SumStreams(state.round, state.attempt)

    async def _close(self, job: str, close: Close) -> None:
        """End a job: as its posts decided, or as the coordinator does where they decided nothing."""
        if self._board.has_ended(job):
            return
        decided = self._board.jobs[job].close or close
        with durable(Step.END_POSTED):
            await self._say(job, Ended.model_validate({"outcome": decided.outcome, "reason": decided.reason}))
        self._erase(job)

    def _erase(self, job: str) -> None:
        self._patience.forget(job)
        with durable(Step.SPOOL_ERASED):
            self._store.erase_spool(job)

    async def _say(self, job: str, body: Body, round: int = 0, attempt: int = 0) -> None:
        envelope = seal(
            body,
            job=job,
            sender=self._party.name,
            identity=self._party.identity,
            round=round,
            attempt=attempt,
        )
        advance(self._board.jobs[job], envelope)
        await self._publish(job, envelope)

    async def _watch_expiry(self) -> None:
        """Close jobs that outstayed their time; take up what a full disk once stopped."""
        stay = timedelta(hours=self._limits.max_job_hours)
        reason = f"not finished within {self._limits.max_job_hours:g} hours"
        while True:
            for job in [job for job in self._board.jobs if not self._board.has_ended(job)]:
                if self._clock() - self._board.begun_at(job) > stay:
                    await self._guarded(partial(self._close, job, Close("expired", reason)))
                else:
                    self._take_up(job)
            await asyncio.sleep(EXPIRY_CHECK_SECONDS)

    async def _watch_rounds(self) -> None:
        """Declare silos absent that let their round wait too long; sleeps until the next one may be late."""
        while True:
            self._moved.clear()
            states = [state for state in self._board.jobs.values() if state.phase is not Phase.ENDED]
            for state in states:
                await self._guarded(partial(self._look_at, state))
            waits = [seconds for state in states if (seconds := self._patience.seconds_left(state.job))]
            with suppress(TimeoutError):
                async with asyncio.timeout(min(waits, default=None)):
                    await self._moved.wait()

    async def _look_at(self, state: JobState) -> None:
        """Go on without silos that have been waited for too long."""
        now = asyncio.get_running_loop().time()
        late = self._patience.judge(state, self._blobs.bytes_here(state), now)
        if late:
            log.warning("absent", job=state.job, phase=state.phase.value, what=", ".join(late))
            await self._say(state.job, Absence(silos=late), *state.absence_place)

    def _spawn(self, work: Work) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Work) -> None:
        """Do ``work`` in the background; what it could not do is taken up again later."""
        try:
            await work()
        except (ArchipelError, OSError) as error:
            log.error("failed", code=getattr(error, "code", "host"), what=str(error))
