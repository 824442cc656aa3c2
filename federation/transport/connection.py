"""The client's end of the protocol over any wire: retries, resumable bulk, byte counters."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from federation.messages import BlobRef
from federation.transport.base import MAX_WAIT_SECONDS, CoordinatorInfo, UnreachableError
from federation.transport.codec import (
    AnswerRequest,
    AskRequest,
    DownloadRequest,
    ListenRequest,
    Method,
    Nothing,
    OfferRequest,
    Offset,
    Posted,
    PostsRequest,
    Questions,
    StatusRequest,
    UploadHeader,
    decode,
    decode_posts,
    encode,
    encode_upload,
)
from privacy.errors import ProtocolError

CHUNK_BYTES = 1024 * 1024
"""Smaller than allowed: a coordinator holds one chunk of every silo that is uploading."""


class Wire(Protocol):
    """Carries one call; the only thing a transport has to bring."""

    async def call(self, method: Method, request: bytes, *, deadline_seconds: float) -> bytes:
        """Answer of the coordinator.

        Raises:
            UnreachableError: no answer; the call may or may not have been carried out.
            ArchipelError: the coordinator's refusal, or a peer that cannot be trusted.
        """
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


@dataclass(frozen=True)
class Patience:
    """How long and how often an unreachable coordinator is asked again.

    Attributes:
        total_seconds: how long one call may keep failing; ``math.inf`` never gives up.
        call_seconds: deadline of one attempt, on top of the time a call is meant to wait.
        first_pause_seconds: upper bound of the first pause; every next one is twice as long.
        max_pause_seconds: upper bound of all pauses.
    """

    total_seconds: float = 60.0
    call_seconds: float = 30.0
    first_pause_seconds: float = 0.2
    max_pause_seconds: float = 10.0


class _Failures:
    """Failures in a row of one call: pauses between them, and the end of patience."""

    def __init__(self, patience: Patience, rng: random.Random) -> None:
        self._patience = patience
        self._rng = rng
        self._count = 0
        self._give_up_at: float | None = None

    async def pause(self, error: UnreachableError) -> None:
        """Wait before the next attempt, or raise ``error`` when the patience is over."""
        now = asyncio.get_running_loop().time()
        if self._give_up_at is None:
            self._give_up_at = now + self._patience.total_seconds
        bound = min(self._patience.max_pause_seconds, self._patience.first_pause_seconds * 2**self._count)
        seconds = bound * self._rng.uniform(0.5, 1.0)
        if now + seconds > self._give_up_at:
            raise error
        self._count = min(self._count + 1, 30)
        await asyncio.sleep(seconds)


class WireConnection:
    """A :class:`~federation.transport.base.Connection` over a :class:`Wire`.

    Args:
        wire: what carries the calls.
        patience: see :class:`Patience`.
        rng: jitter of the pauses.
    """

    def __init__(
        self, wire: Wire, *, patience: Patience | None = None, rng: random.Random | None = None
    ) -> None:
        self._wire = wire
        self._patience = patience or Patience()
        self._rng = rng or random.SystemRandom()
        self._bytes_sent = 0
        self._bytes_received = 0

    @property
    def bytes_sent(self) -> int:
        """Bytes of all requests handed to the wire, repetitions included."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes of all answers taken from the wire."""
        return self._bytes_received

    async def info(self) -> CoordinatorInfo:
        """Who answers, and with which versions."""
        return decode(CoordinatorInfo, await self._call(Method.INFO, b""))

    async def post(self, envelope: bytes) -> int:
        """Hand in a signed post and return its number."""
        return decode(Posted, await self._call(Method.POST, envelope)).seq

    async def posts(self, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        """Posts numbered above ``after``; waits up to ``wait_seconds`` (at most a minute) for the first."""
        wait = min(wait_seconds, MAX_WAIT_SECONDS)
        request = encode(PostsRequest(after=after, wait_seconds=wait))
        found = decode_posts(await self._call(Method.POSTS, request, wait_seconds=wait))
        numbers = [after, *(seq for seq, _ in found)]
        if any(second <= first for first, second in pairwise(numbers)):
            raise ProtocolError("the coordinator's posts are out of order")
        return found

    async def upload(self, ref: BlobRef, path: Path) -> None:
        """Send ``path``, going on where an earlier upload stopped."""
        num_bytes = await asyncio.to_thread(_size, path)
        offset = await self._blob_offset(ref)
        while True:
            if offset > num_bytes:
                raise ProtocolError(f"the coordinator claims {offset} bytes of a file of {num_bytes}")
            chunk = await asyncio.to_thread(_read, path, offset)
            # With nothing left the empty chunk still goes out: it lets a coordinator that stopped between the
            # last byte and its check finish.
            offset = await self._append(ref, offset, chunk)
            if offset == num_bytes:
                return

    async def download(self, ref: BlobRef, path: Path, *, sha256: str, num_bytes: int) -> None:
        """Fetch into ``path``, going on where an earlier download stopped.

        Raises:
            ProtocolError: the bytes are not those of the manifest; what was fetched is deleted.
        """
        if await asyncio.to_thread(_has_digest, path, sha256):
            return
        part = path.with_name(path.name + ".part")
        offset = await asyncio.to_thread(_size_up_to, part, num_bytes)
        while offset < num_bytes:
            limit = min(CHUNK_BYTES, num_bytes - offset)
            request = encode(DownloadRequest(ref=ref, offset=offset, limit=limit))
            chunk = await self._call(Method.DOWNLOAD, request)
            if not 0 < len(chunk) <= limit:
                raise ProtocolError(f"{len(chunk)} bytes where 1 to {limit} were asked for")
            await asyncio.to_thread(_append_to, part, chunk)
            offset += len(chunk)
        await asyncio.to_thread(_finish, part, path, sha256)

    async def offer_of(self, silo: str) -> bytes:
        """The signed key that ``silo`` answers questions with."""
        return await self._call(Method.OFFER, encode(OfferRequest(silo=silo)))

    async def ask(self, silo: str, question: bytes, wait_seconds: float) -> bytes:
        """Put a sealed question to ``silo`` and wait for its sealed answer; repeated, it is the same one."""
        request = encode(AskRequest(silo=silo, question=question, wait_seconds=wait_seconds))
        return await self._call(Method.ASK, request, wait_seconds=wait_seconds)

    async def listen(self, offer: bytes, wait_seconds: float) -> list[tuple[str, str, bytes]]:
        """(ticket, asker, sealed question) of what this party is asked; waits for the first one."""
        request = encode(ListenRequest(offer=offer, wait_seconds=wait_seconds))
        found = decode(Questions, await self._call(Method.LISTEN, request, wait_seconds=wait_seconds))
        return [(one.ticket, one.asker, one.question) for one in found.questions]

    async def answer(self, ticket: str, answer: bytes) -> None:
        """Hand in the sealed answer to a question."""
        request = encode(AnswerRequest(ticket=ticket, answer=answer))
        decode(Nothing, await self._call(Method.ANSWER, request))

    async def close(self) -> None:
        """Hang up."""
        await self._wire.close()

    async def _call(self, method: Method, request: bytes, *, wait_seconds: float = 0.0) -> bytes:
        """Repeat a call that may be repeated until it is answered."""
        failures = _Failures(self._patience, self._rng)
        while True:
            try:
                return await self._once(method, request, wait_seconds=wait_seconds)
            except UnreachableError as error:
                await failures.pause(error)

    async def _once(self, method: Method, request: bytes, *, wait_seconds: float = 0.0) -> bytes:
        self._bytes_sent += len(request)
        deadline = self._patience.call_seconds + wait_seconds
        answer = await self._wire.call(method, request, deadline_seconds=deadline)
        self._bytes_received += len(answer)
        return answer

    async def _blob_offset(self, ref: BlobRef) -> int:
        return decode(Offset, await self._call(Method.BLOB_STATUS, encode(StatusRequest(ref=ref)))).offset

    async def _append(self, ref: BlobRef, offset: int, chunk: bytes) -> int:
        """Send one chunk; where an answer was lost, the coordinator's own offset says how to go on."""
        header = UploadHeader(ref=ref, offset=offset, sha256=hashlib.sha256(chunk).hexdigest())
        request = encode_upload(header, chunk)
        failures = _Failures(self._patience, self._rng)
        while True:
            try:
                now = decode(Offset, await self._once(Method.UPLOAD, request)).offset
            except UnreachableError as error:
                await failures.pause(error)
                now = await self._blob_offset(ref)
                if now == offset:
                    continue
            except ProtocolError:
                now = await self._blob_offset(ref)
                if now <= offset:
                    raise
            if now < offset or (now == offset and chunk):
                raise ProtocolError(f"the coordinator fell back from byte {offset} to {now}")
            return now


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def _size(path: Path) -> int:
    return path.stat().st_size


def _has_digest(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _size_up_to(part: Path, num_bytes: int) -> int:
    """How much of ``part`` can be kept."""
    size = part.stat().st_size if part.exists() else 0
    if size > num_bytes:
        part.unlink()
        return 0
    return size


def _append_to(part: Path, chunk: bytes) -> None:
    with part.open("ab") as file:
        file.write(chunk)


def _finish(part: Path, path: Path, sha256: str) -> None:
    if not _has_digest(part, sha256):
        part.unlink()
        raise ProtocolError(
            "the downloaded bytes differ from their signed manifest",
            where=path.name,
            remedy="what was fetched is deleted; fetch again, and if it recurs distrust the coordinator",
        )
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
