"""Bulk bytes beside the board: who may send and read which, and where an upload stands.

A signed post announces size and SHA-256 first; what nobody announced is not taken. Streams are kept until
their attempt or leg is over, sums until the job ends, so that a silo that was absent can replay them.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from weakref import WeakValueDictionary

from federation.bulletin import Bulletin
from federation.job_state import IN_LEG, IN_ROUND, JobState, Phase
from federation.messages import BlobKind, BlobRef, Matched, PostKind, Stream, Sum
from federation.steps import Step, durable
from federation.store import Store
from federation.transport.base import MAX_CHUNK_BYTES
from privacy.errors import ProtocolError


class Blobs:
    """The bulk bytes of one coordinator's jobs.

    Args:
        store: where they lie.
        board: the posts that announce them.
    """

    def __init__(self, store: Store, board: Bulletin) -> None:
        self._store = store
        self._board = board
        self._completing: WeakValueDictionary[BlobRef, asyncio.Lock] = WeakValueDictionary()

    async def offset(self, party: str, ref: BlobRef) -> int:
        """How many bytes of ``ref`` are here: where an upload goes on. What is over needs none."""
        expected_sha256, num_bytes = self._manifest(party, ref)
        if self._is_over(ref):
            return num_bytes
        have = self._store.blob_offset(ref)
        if have == num_bytes:  # a crash between the last byte and its check left it unchecked
            await self._complete(ref, expected_sha256)
        return have

    async def append(self, party: str, ref: BlobRef, offset: int, chunk: bytes, sha256: str) -> int:
        """Take one chunk of the party's own announced bytes; returns the new offset.

        Raises:
            ProtocolError: not announced, altered, out of place or too long.
        """
        expected_sha256, num_bytes = self._manifest(party, ref)
        if ref.sender != party or ref.kind in (BlobKind.SUM, BlobKind.SLOTS):
            raise ProtocolError(f"{party} may not upload this {ref.kind}")
        if len(chunk) > MAX_CHUNK_BYTES or hashlib.sha256(chunk).hexdigest() != sha256:
            raise ProtocolError("a chunk that is too long or does not fit its digest")
        if self._is_over(ref):
            return num_bytes
        have = self._store.append_blob(ref, offset, chunk, num_bytes=num_bytes)
        if have == num_bytes:
            await self._complete(ref, expected_sha256)
        return have

    def read(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
        """Bytes of a complete blob, for the job's roster only; streams only once their sum is fixed.

        What is sent in a leg is for its readers only, once the coordinator has said that all of it is here.

        Raises:
            ProtocolError: the party may not, or they are not here.
        """
        self._manifest(party, ref)
        state = self._board.jobs[ref.job]
        if party not in state.roster:
            raise ProtocolError(f"{party} is not in this job's roster")
        if ref.kind is not BlobKind.CATALOGUE and state.plan.is_vertical:
            _check_reader(state, party, ref)
            return self._store.read_blob(ref, offset, min(limit, MAX_CHUNK_BYTES))
        fixed = state.post(PostKind.SUM, state.coordinator, round=ref.round, attempt=ref.attempt)
        if ref.kind is not BlobKind.CATALOGUE and fixed is None:
            raise ProtocolError("streams are given out once their sum is fixed")
        return self._store.read_blob(ref, offset, min(limit, MAX_CHUNK_BYTES))

    def streams(self, state: JobState) -> list[BlobRef]:
        """The contributors' streams of the current attempt, the senders' of a leg, in roster order."""
        at = {"round": state.round, "attempt": state.attempt}
        senders = state.leg.senders if state.phase in IN_LEG else state.contributors
        return [BlobRef(job=state.job, kind=BlobKind.STREAM, sender=silo, **at) for silo in senders]

    def are_complete(self, refs: list[BlobRef]) -> bool:
        """Whether all bytes of all of them are here."""
        return all(map(self._store.is_complete, refs))

    def bytes_here(self, state: JobState) -> dict[str, int]:
        """Bytes of each contributor's stream, where streams are collected and that stream is not complete."""
        if state.phase is not Phase.COLLECTING:
            return {}
        waiting = [ref for ref in self.streams(state) if not self._store.is_complete(ref)]
        return {ref.sender: self._store.blob_offset(ref) for ref in waiting}

    def path(self, ref: BlobRef) -> Path:
        """Where its bytes lie."""
        return self._store.blob_path(ref)

    def drop_streams(self, before: JobState, after: JobState) -> None:
        """Forget the streams of an attempt once another one begins: everybody has checked its sum."""
        has_left = (before.round, before.attempt) != (after.round, after.attempt)
        if has_left and before.phase in IN_ROUND:
            for ref in self.streams(before):
                self._store.drop_blob(ref)
            if before.phase in IN_LEG:
                for ref in self._slots(before):
                    self._store.drop_blob(ref)

    def _slots(self, state: JobState) -> list[BlobRef]:
        """The slot files that belong to the current leg; mostly none is there."""
        at = {"round": state.round, "attempt": state.attempt}
        return [BlobRef(job=state.job, kind=BlobKind.SLOTS, sender=silo, **at) for silo in state.roster]

    def _manifest(self, party: str, ref: BlobRef) -> tuple[str, int]:
        """SHA-256 and size of announced bytes."""
        if not self._board.belongs(party, ref.job):
            raise ProtocolError(f"no job {ref.job} of {party} is known here")
        state = self._board.jobs[ref.job]
        if ref.kind is BlobKind.CATALOGUE:
            if ref.sender != state.proposer:
                raise ProtocolError("a catalogue comes from the job's proposer")
            return state.plan.catalogue.sha256, state.proposal.catalogue_bytes
        if ref.kind is BlobKind.SLOTS:
            return _slots_manifest(state, ref)
        kind = PostKind.STREAM if ref.kind is BlobKind.STREAM else PostKind.SUM
        post = state.post(kind, ref.sender, round=ref.round, attempt=ref.attempt)
        if post is None:
            raise ProtocolError(f"the {ref.kind} has not been announced")
        manifest = post.content(Stream if ref.kind is BlobKind.STREAM else Sum)
        return manifest.sha256, manifest.num_bytes

    def _is_over(self, ref: BlobRef) -> bool:
        """Whether nobody needs these bytes any more: the job has ended, or has left the stream's attempt."""
        state = self._board.jobs[ref.job]
        has_left = (ref.round, ref.attempt) != (state.round, state.attempt)
        return self._board.has_ended(ref.job) or (ref.kind in (BlobKind.STREAM, BlobKind.SLOTS) and has_left)

    async def _complete(self, ref: BlobRef, sha256: str) -> None:
        """Check and keep finished bytes, in a thread; whoever asks meanwhile waits for the same answer."""
        lock = self._completing.setdefault(ref, asyncio.Lock())
        async with lock:
            if self._store.is_complete(ref):
                return
            with durable(Step.BLOB_COMPLETED):
                try:
                    await asyncio.to_thread(self._store.complete_blob, ref, sha256)
                except FileNotFoundError:  # deleted meanwhile, as what is over is
                    if not self._is_over(ref):
                        raise


def _check_reader(state: JobState, party: str, ref: BlobRef) -> None:
    """Whether ``party`` may read this of a vertical job, now."""
    is_here = state.phase is Phase.FETCHING and (ref.round, ref.attempt) == (state.round, state.attempt)
    if not is_here:
        raise ProtocolError("what is sent in a leg is given out while its readers fetch, not before or after")
    parcel = state.leg.parcels.get(ref.sender)
    if parcel is None or party not in parcel.readers:
        raise ProtocolError(f"what {ref.sender} sends in {state.leg.in_words} is not for {party}")


def _slots_manifest(state: JobState, ref: BlobRef) -> tuple[str, int]:
    """The slots of the silo that ``ref`` names, announced by MATCHED in the leg before."""
    post = state.post(PostKind.MATCHED, state.coordinator, round=ref.round - 1, attempt=ref.attempt)
    if post is None or ref.sender not in state.roster:
        raise ProtocolError("the slots have not been announced")
    manifest = post.content(Matched).slots[ref.sender]
    return manifest.sha256, manifest.num_bytes
