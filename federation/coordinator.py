"""The coordinator: the I/O shell around :mod:`federation.rounds`.

It stores signed posts, relays bulk bytes, adds ciphertexts in a worker process without a key, and says when a
job has ended. It holds no secret of any silo: not an update, not the sum, not the model.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from federation.aggregation import SumWorker
from federation.identity import Party
from federation.messages import (
    BlobKind,
    BlobRef,
    Ended,
    Envelope,
    PostKind,
    Proposal,
    Stream,
    Sum,
    parse_envelope,
    proposal_id,
    seal,
    verify_envelope,
)
from federation.rounds import Close, JobState, Phase, SumStreams, advance, pending, propose
from federation.steps import Step, durable
from federation.store import Store
from federation.trail import Trail
from federation.transport.base import CoordinatorInfo
from policies.canonical import digest
from policies.charter import Charter
from policies.trust import require_unexpired
from privacy.encryption.parameters import TENSEAL_VERSION
from privacy.errors import ArchipelError, DeniedError, ProtocolError

log = structlog.get_logger("coordinator")

MAX_CHUNK_BYTES = 4 * 1024 * 1024
MAX_CATALOGUE_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True)
class CoordinatorLimits:
    """What bounds a job's stay.

    Attributes:
        max_job_hours: a job that has not ended by then is closed as expired.
    """

    max_job_hours: float = 72.0


def utc_now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


class Coordinator:
    """One running coordinator; offers the :class:`~federation.transport.base.Service` methods.

    Args:
        directory: its directory (``coordinator.db``, ``trail.db``, ``spool/``).
        party: its name and keys.
        charter: the charter in force.
        limits: see :class:`CoordinatorLimits`.
        clock: current time; tests pass their own.
    """

    def __init__(
        self,
        directory: Path,
        party: Party,
        charter: Charter,
        *,
        limits: CoordinatorLimits | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._party = party
        self._charter = charter
        self._limits = limits or CoordinatorLimits()
        self._clock = clock
        self._store = Store(directory)
        self._trail = Trail(directory, party.identity)
        self._worker = SumWorker()
        self._jobs: dict[str, JobState] = {}
        self._posts: list[tuple[int, str, Envelope]] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._summing: set[tuple[str, int, int]] = set()
        self._keys = {party.name: party.identity_key for party in charter.parties()}

    async def start(self) -> None:
        """Fold what is stored and take up what was left undone."""
        for seq, job, envelope in self._store.posts():
            self._admit(seq, job, envelope)
        for job, state in self._jobs.items():
            if state.phase is Phase.ENDED and self._store.has_spool(job):
                self._erase(job)
            self._take_up(job)
        self._spawn(self._watch_expiry())

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
            self._refuse(party, error)
            raise

    async def handle_posts(self, party: str, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        """Posts numbered above ``after`` in jobs that ``party`` belongs to; waits for the first one."""
        self._check_party(party)
        deadline = asyncio.get_running_loop().time() + wait_seconds
        async with self._changed:
            while not (found := self._posts_for(party, after)):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return []
                try:
                    await asyncio.wait_for(self._changed.wait(), left)
                except TimeoutError:
                    return []
            return found

    async def blob_offset(self, party: str, ref: BlobRef) -> int:
        """How many bytes of ``ref`` are here: where an upload goes on."""
        self._manifest(party, ref)
        return self._store.blob_offset(ref)

    async def append_blob(self, party: str, ref: BlobRef, offset: int, chunk: bytes, sha256: str) -> int:
        """Take one chunk of the party's own announced bytes; returns the new offset.

        Raises:
            ProtocolError: not announced, altered, out of place or too long.
        """
        try:
            expected_sha256, num_bytes = self._manifest(party, ref)
            if ref.sender != party or ref.kind is BlobKind.SUM:
                raise ProtocolError(f"{party} may not upload this {ref.kind}")
            if len(chunk) > MAX_CHUNK_BYTES or hashlib.sha256(chunk).hexdigest() != sha256:
                raise ProtocolError("a chunk that is too long or does not fit its digest")
            have = self._store.append_blob(ref, offset, chunk, num_bytes=num_bytes)
            if have == num_bytes and not self._store.is_complete(ref):
                with durable(Step.BLOB_COMPLETED):
                    self._store.complete_blob(ref, expected_sha256)
                self._take_up(ref.job)
        except ArchipelError as error:
            self._refuse(party, error)
            raise
        return have

    async def read_blob(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
        """Bytes of a complete blob, for the job's roster only; streams only once their sum is fixed."""
        self._manifest(party, ref)
        state = self._jobs[ref.job]
        if party not in state.roster:
            raise ProtocolError(f"{party} is not in this job's roster")
        fixed = state.post(PostKind.SUM, state.coordinator, round=ref.round, attempt=ref.attempt)
        if ref.kind is not BlobKind.CATALOGUE and fixed is None:
            raise ProtocolError("streams are given out once their sum is fixed")
        return self._store.read_blob(ref, offset, min(limit, MAX_CHUNK_BYTES))

    # ── what happens inside ──────────────────────────────────────────────────────────────────────────────

    def _check_party(self, party: str) -> None:
        require_unexpired("charter", self._charter.expires, self._clock())
        if party not in self._keys:
            raise DeniedError(f"{party} is not a party of the charter {self._charter.name}")

    def _refuse(self, party: str, error: ArchipelError) -> None:
        log.warning("refused", party=party, code=error.code, what=error.message)
        self._trail.refused(party, error.code, error.message)

    async def _accept(self, envelope: Envelope) -> int:
        if envelope.kind is PostKind.PROPOSAL:
            return await self._accept_proposal(envelope)
        state = self._jobs.get(envelope.job)
        if state is None:
            raise ProtocolError(f"no job {envelope.job or '(unnamed)'} is known here")
        advance(state, envelope)
        return await self._publish(envelope.job, envelope)

    async def _accept_proposal(self, envelope: Envelope) -> int:
        state = propose(envelope, self._party.name)
        strangers = [silo for silo in state.roster if self._charter.member(silo) is None]
        if strangers:
            raise ProtocolError(f"not in the charter: {', '.join(strangers)}")
        if envelope.content(Proposal).catalogue_bytes > MAX_CATALOGUE_BYTES:
            raise ProtocolError(f"a catalogue of more than {MAX_CATALOGUE_BYTES} bytes")
        return await self._publish(proposal_id(envelope), envelope)

    async def _publish(self, job: str, envelope: Envelope) -> int:
        known = self._jobs.get(job)
        if known is not None and known.posts.get(envelope.place) == envelope:
            return self._store.append(job, envelope)
        with durable(Step.POST_STORED):
            seq = self._store.append(job, envelope)
        self._trail.accepted(job, seq, envelope)
        self._admit(seq, job, envelope)
        log.info(
            "posted",
            job=job,
            kind=envelope.kind.value,
            sender=envelope.sender,
            phase=self._jobs[job].phase.value,
        )
        async with self._changed:
            self._changed.notify_all()
        self._take_up(job)
        return seq

    def _admit(self, seq: int, job: str, envelope: Envelope) -> None:
        known = self._jobs.get(job)
        self._jobs[job] = propose(envelope, self._party.name) if known is None else advance(known, envelope)
        self._posts.append((seq, job, envelope))

    def _posts_for(self, party: str, after: int) -> list[tuple[int, bytes]]:
        return [
            (seq, envelope.to_bytes())
            for seq, job, envelope in self._posts
            if seq > after and party in (*self._jobs[job].roster, self._jobs[job].proposer)
        ]

    def _manifest(self, party: str, ref: BlobRef) -> tuple[str, int]:
        """SHA-256 and size of announced bytes."""
        self._check_party(party)
        state = self._jobs.get(ref.job)
        if state is None or party not in (*state.roster, state.proposer):
            raise ProtocolError(f"no job {ref.job} of {party} is known here")
        if ref.kind is BlobKind.CATALOGUE:
            if ref.sender != state.proposer:
                raise ProtocolError("a catalogue comes from the job's proposer")
            proposal = state.posts[next(iter(state.posts))]
            return state.plan.catalogue.sha256, proposal.content(Proposal).catalogue_bytes
        kind = PostKind.STREAM if ref.kind is BlobKind.STREAM else PostKind.SUM
        post = state.post(kind, ref.sender, round=ref.round, attempt=ref.attempt)
        if post is None:
            raise ProtocolError(f"the {ref.kind} has not been announced")
        manifest = post.content(Stream if ref.kind is BlobKind.STREAM else Sum)
        return manifest.sha256, manifest.num_bytes

    def _take_up(self, job: str) -> None:
        """Start whatever the state says the coordinator owes this job."""
        match pending(self._jobs[job]):
            case SumStreams(round=round_, attempt=attempt):
                refs = self._stream_refs(job, round_, attempt)
                place = (job, round_, attempt)
                if place not in self._summing and all(map(self._store.is_complete, refs)):
                    self._summing.add(place)
                    self._spawn(self._sum(self._jobs[job], refs))
            case Close() as close:
                self._spawn(self._close(job, close))
            case None:
                pass

    def _stream_refs(self, job: str, round_: int, attempt: int) -> list[BlobRef]:
        return [
            BlobRef(job=job, kind=BlobKind.STREAM, round=round_, attempt=attempt, sender=silo)
            for silo in self._jobs[job].roster
        ]

    async def _sum(self, state: JobState, refs: list[BlobRef]) -> None:
        ref = refs[0].model_copy(update={"kind": BlobKind.SUM, "sender": self._party.name})
        path = self._store.blob_path(ref)
        streams = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
        num_frames = streams[0].content(Stream).num_frames
        try:
            with durable(Step.SUM_WRITTEN):
                written = await self._worker.sum([self._store.blob_path(r) for r in refs], num_frames, path)
        except ArchipelError as error:
            self._refuse(self._party.name, error)
            await self._close(state.job, Close("failed", f"the streams could not be added: {error.message}"))
            return
        body = Sum(
            sha256=written.sha256,
            num_bytes=written.num_bytes,
            num_frames=num_frames,
            streams={envelope.sender: envelope.body["sha256"] for envelope in streams},
        )
        with durable(Step.SUM_POSTED):
            await self._say(state.job, body, state.round, state.attempt)

    async def _close(self, job: str, close: Close) -> None:
        if self._jobs[job].phase is Phase.ENDED:
            return
        with durable(Step.END_POSTED):
            await self._say(job, Ended.model_validate({"outcome": close.outcome, "reason": close.reason}))
        self._erase(job)

    def _erase(self, job: str) -> None:
        with durable(Step.SPOOL_ERASED):
            self._store.erase_spool(job)

    async def _say(self, job: str, body: Sum | Ended, round_: int = 0, attempt: int = 0) -> None:
        envelope = seal(
            body,
            job=job,
            sender=self._party.name,
            identity=self._party.identity,
            round=round_,
            attempt=attempt,
        )
        advance(self._jobs[job], envelope)
        await self._publish(job, envelope)

    async def _watch_expiry(self) -> None:
        """Close jobs that outstayed their time, and those of an expired charter."""
        while True:
            for job, state in list(self._jobs.items()):
                proposal = state.posts[next(iter(state.posts))].content(Proposal)
                submitted = datetime.fromisoformat(proposal.submitted_at)
                outstayed = self._clock() - submitted > timedelta(hours=self._limits.max_job_hours)
                if state.phase is not Phase.ENDED and outstayed:
                    hours = self._limits.max_job_hours
                    await self._close(job, Close("expired", f"not finished within {hours:g} hours"))
            await asyncio.sleep(60)

    def _spawn(self, work: object) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except ArchipelError as error:
            log.error("failed", code=error.code, what=error.message)
