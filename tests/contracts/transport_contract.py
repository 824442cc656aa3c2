"""What every transport promises, as tests that each one inherits; and a small service to try it on."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from federation.messages import BlobKind, BlobRef
from federation.rounds import StalePostError
from federation.transport.base import MAX_CHUNK_BYTES, CoordinatorInfo, UnreachableError
from federation.transport.codec import (
    MAX_POSTS_BYTES,
    DownloadRequest,
    Method,
    UploadHeader,
    decode_posts,
    encode,
    encode_upload,
)
from federation.transport.connection import CHUNK_BYTES, Patience, Wire, WireConnection
from privacy.errors import (
    ArchipelError,
    DataError,
    DeniedError,
    EquivocationError,
    HostError,
    PeerError,
    ProtocolError,
    TrustError,
)
from privacy.questions import ANSWER_BYTES, QUESTION_BYTES

QUICK = Patience(total_seconds=20.0, call_seconds=10.0, first_pause_seconds=0.01, max_pause_seconds=0.05)
ONCE = Patience(total_seconds=0.0, call_seconds=10.0)


@dataclass
class Blob:
    sha256: str
    num_bytes: int
    content: bytearray = field(default_factory=bytearray)
    is_complete: bool = False


@dataclass
class MemoryService:
    """A coordinator without rounds: a board and bulk bytes in memory, with the real one's checks."""

    refusal: Exception | None = None
    board: list[bytes] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    polled: asyncio.Event = field(default_factory=asyncio.Event)
    blobs: dict[str, Blob] = field(default_factory=dict)
    questions: list[tuple[str, str, bytes]] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def announce(self, ref: BlobRef, content: bytes, *, have: int = 0) -> None:
        blob = Blob(hashlib.sha256(content).hexdigest(), len(content), bytearray(content[:have]))
        self.blobs[ref.model_dump_json()] = blob

    def content(self, ref: BlobRef) -> bytes:
        blob = self.blobs[ref.model_dump_json()]
        assert blob.is_complete
        return bytes(blob.content)

    def _called_by(self, party: str) -> None:
        self.callers.append(party)
        if self.refusal is not None:
            raise self.refusal

    async def info(self, party: str) -> CoordinatorInfo:
        self._called_by(party)
        return CoordinatorInfo(name="hub", version=1, tenseal_version="0.3.18", charter_sha256="0" * 64)

    async def handle_post(self, party: str, raw: bytes) -> int:
        self._called_by(party)
        if raw not in self.board:
            self.board.append(raw)
            async with self.changed:
                self.changed.notify_all()
        return self.board.index(raw) + 1

    async def handle_posts(self, party: str, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        self._called_by(party)
        self.polled.set()
        async with self.changed:
            if len(self.board) <= after:
                try:
                    await asyncio.wait_for(self.changed.wait(), wait_seconds)
                except TimeoutError:
                    return []
        return list(enumerate(self.board, start=1))[after:]

    async def blob_offset(self, party: str, ref: BlobRef) -> int:
        self._called_by(party)
        return len(self._blob(ref).content)

    async def append_blob(self, party: str, ref: BlobRef, offset: int, chunk: bytes, sha256: str) -> int:
        self._called_by(party)
        blob = self._blob(ref)
        if hashlib.sha256(chunk).hexdigest() != sha256:
            raise ProtocolError("a chunk that does not fit its digest")
        if offset != len(blob.content):
            raise ProtocolError(f"a chunk at byte {offset}; {len(blob.content)} bytes are here")
        if offset + len(chunk) > blob.num_bytes:
            raise ProtocolError("bytes beyond the declared size")
        blob.content += chunk
        if len(blob.content) == blob.num_bytes:
            if hashlib.sha256(blob.content).hexdigest() != blob.sha256:
                blob.content.clear()
                raise ProtocolError("the uploaded bytes differ from their signed manifest")
            blob.is_complete = True
        return len(blob.content)

    async def read_blob(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
        self._called_by(party)
        return bytes(self._blob(ref).content[offset : offset + limit])

    async def offer_of(self, party: str, silo: str) -> bytes:
        self._called_by(party)
        return f"an offer of {silo}".encode()

    async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
        self._called_by(party)
        self.questions.append(("ab" * 16, party, question))
        return bytes(reversed(question))

    async def listen(self, party: str, offer: bytes, wait_seconds: float) -> list[tuple[str, str, bytes]]:
        self._called_by(party)
        return self.questions

    async def take_answer(self, party: str, ticket: str, answer: bytes) -> None:
        self._called_by(party)
        self.answers[ticket] = answer

    def _blob(self, ref: BlobRef) -> Blob:
        if ref.model_dump_json() not in self.blobs:
            raise ProtocolError("not announced")
        return self.blobs[ref.model_dump_json()]


def stream_ref(sender: str = "shop-a") -> BlobRef:
    return BlobRef(job="ab" * 16, kind=BlobKind.STREAM, round=1, attempt=1, sender=sender)


def some_bytes(count: int) -> bytes:
    return random.Random(count).randbytes(count)


class TransportContract:
    """Inherited by the tests of each transport, which says how ``party`` reaches ``service``."""

    def reach(self, service: MemoryService, party: str, tmp_path: Path) -> AbstractAsyncContextManager[Wire]:
        raise NotImplementedError

    @asynccontextmanager
    async def connected(
        self, service: MemoryService, tmp_path: Path, party: str = "shop-a", patience: Patience = QUICK
    ) -> AsyncIterator[WireConnection]:
        async with self.reach(service, party, tmp_path) as wire:
            yield WireConnection(wire, patience=patience)

    def test_a_post_gets_a_number_and_the_same_post_the_same_number(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service = MemoryService()
            async with self.connected(service, tmp_path) as connection:
                assert [await connection.post(post) for post in (b"one", b"two", b"one")] == [1, 2, 1]
            assert service.board == [b"one", b"two"]

        asyncio.run(scenario())

    def test_the_service_is_told_who_calls(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service = MemoryService()
            async with self.connected(service, tmp_path, party="shop-b") as connection:
                assert (await connection.info()).name == "hub"
            assert service.callers == ["shop-b"]

        asyncio.run(scenario())

    def test_posts_come_in_order_and_after_a_number(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service = MemoryService(board=[b"one", b"", b"three"])
            async with self.connected(service, tmp_path) as connection:
                assert await connection.posts(0, 0) == [(1, b"one"), (2, b""), (3, b"three")]
                assert await connection.posts(2, 0) == [(3, b"three")]
                assert await connection.posts(3, 0) == []

        asyncio.run(scenario())

    def test_a_long_poll_ends_with_the_first_new_post(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service = MemoryService()
            async with self.connected(service, tmp_path) as connection:
                waiting = asyncio.create_task(connection.posts(0, 50))
                await service.polled.wait()
                await connection.post(b"news")
                assert await waiting == [(1, b"news")]

        asyncio.run(scenario())

    def test_a_long_board_comes_in_pieces(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service = MemoryService(board=[some_bytes(200_000 + n) for n in range(40)])
            async with self.connected(service, tmp_path) as connection:
                seen: list[tuple[int, bytes]] = []
                pieces = 0
                while piece := await connection.posts(len(seen), 0):
                    assert sum(len(post) for _, post in piece) <= MAX_POSTS_BYTES
                    seen += piece
                    pieces += 1
            assert [post for _, post in seen] == service.board
            assert pieces > 1

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        "refusal",
        [
            DeniedError("no", remedy="ask"),
            ProtocolError("out of place"),
            StalePostError("the job has left that place"),
            TrustError("not signed", remedy="sign it"),
            EquivocationError("said two things"),
            HostError("the disk is full"),
            DataError("no such thing"),
            PeerError("later"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_a_refusal_arrives_as_what_it_is(self, tmp_path: Path, refusal: ArchipelError) -> None:
        async def scenario() -> None:
            refusal.where = "/secret/path/of/the/coordinator"
            async with self.connected(MemoryService(refusal=refusal), tmp_path) as connection:
                with pytest.raises(type(refusal)) as caught:
                    await connection.post(b"x")
            assert type(caught.value) is type(refusal)
            assert (caught.value.message, caught.value.remedy) == (refusal.message, refusal.remedy)
            assert "/secret" not in str(caught.value)

        asyncio.run(scenario())

    def test_a_refusal_is_not_repeated(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service = MemoryService(refusal=ProtocolError("no"))
            async with self.connected(service, tmp_path) as connection:
                with pytest.raises(ProtocolError):
                    await connection.post(b"x")
            assert len(service.callers) == 1

        asyncio.run(scenario())

    def test_control_characters_of_a_peer_never_reach_a_terminal(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            refusal = DeniedError("red \x1b[31malert\nfake line", remedy="\x07bell")
            async with self.connected(MemoryService(refusal=refusal), tmp_path) as connection:
                with pytest.raises(DeniedError) as caught:
                    await connection.post(b"x")
            assert str(caught.value).isprintable()

        asyncio.run(scenario())

    @pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
    def test_bulk_bytes_arrive_both_ways(self, tmp_path: Path, size: int) -> None:
        async def scenario() -> None:
            service, content = MemoryService(), some_bytes(size)
            service.announce(stream_ref(), content)
            source, target = tmp_path / "source", tmp_path / "target"
            source.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            async with self.connected(service, tmp_path) as connection:
                await connection.upload(stream_ref(), source)
                assert service.content(stream_ref()) == content
                await connection.download(stream_ref(), target, sha256=sha256, num_bytes=size)
            assert target.read_bytes() == content
            assert not (tmp_path / "target.part").exists()

        asyncio.run(scenario())

    @pytest.mark.parametrize("chunks", [0, 1, 2, 3])
    def test_an_upload_resumes_after_a_cut_at_any_chunk(self, tmp_path: Path, chunks: int) -> None:
        async def scenario() -> None:
            service, content = MemoryService(), some_bytes(2 * CHUNK_BYTES + 777)
            have = min(chunks * CHUNK_BYTES, len(content))
            service.announce(stream_ref(), content, have=have)
            source = tmp_path / "source"
            source.write_bytes(content)
            async with self.connected(service, tmp_path) as connection:
                await connection.upload(stream_ref(), source)
                assert service.content(stream_ref()) == content
                assert len(content) - have <= connection.bytes_sent < len(content) - have + 2_000

        asyncio.run(scenario())

    @pytest.mark.parametrize("have", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 777])
    def test_a_download_resumes_after_a_cut_anywhere(self, tmp_path: Path, have: int) -> None:
        async def scenario() -> None:
            service, content = MemoryService(), some_bytes(2 * CHUNK_BYTES + 777)
            service.announce(stream_ref(), content, have=len(content))
            target = tmp_path / "target"
            (tmp_path / "target.part").write_bytes(content[:have])
            sha256 = hashlib.sha256(content).hexdigest()
            async with self.connected(service, tmp_path) as connection:
                await connection.download(stream_ref(), target, sha256=sha256, num_bytes=len(content))
                assert connection.bytes_received == len(content) - have
                await connection.download(stream_ref(), target, sha256=sha256, num_bytes=len(content))
                assert connection.bytes_received == len(content) - have, (
                    "a complete file is not fetched again"
                )
            assert target.read_bytes() == content

        asyncio.run(scenario())

    def test_downloaded_bytes_that_differ_from_the_manifest_never_get_their_name(
        self, tmp_path: Path
    ) -> None:
        async def scenario() -> None:
            service, content = MemoryService(), some_bytes(5_000)
            service.announce(stream_ref(), content, have=len(content))
            target = tmp_path / "target"
            async with self.connected(service, tmp_path) as connection:
                with pytest.raises(ProtocolError, match="signed manifest"):
                    await connection.download(stream_ref(), target, sha256="0" * 64, num_bytes=len(content))

        asyncio.run(scenario())
        assert list(tmp_path.glob("target*")) == []

    def test_a_download_that_is_shorter_than_declared_is_refused(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service, content = MemoryService(), some_bytes(5_000)
            service.announce(stream_ref(), content, have=4_000)
            async with self.connected(service, tmp_path) as connection:
                with pytest.raises(ProtocolError, match="0 bytes where"):
                    await connection.download(
                        stream_ref(), tmp_path / "target", sha256="0" * 64, num_bytes=len(content)
                    )

        asyncio.run(scenario())

    def test_a_file_other_than_the_announced_one_is_refused(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service, content = MemoryService(), some_bytes(5_000)
            service.announce(stream_ref(), content)
            source = tmp_path / "source"
            async with self.connected(service, tmp_path) as connection:
                source.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
                with pytest.raises(ProtocolError, match="signed manifest"):
                    await connection.upload(stream_ref(), source)
                source.write_bytes(content + b"!")
                with pytest.raises(ProtocolError, match="beyond the declared size"):
                    await connection.upload(stream_ref(), source)

        asyncio.run(scenario())

    def test_a_chunk_beyond_the_limit_is_refused(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service, chunk = MemoryService(), some_bytes(MAX_CHUNK_BYTES + 1)
            service.announce(stream_ref(), chunk)
            header = UploadHeader(ref=stream_ref(), offset=0, sha256=hashlib.sha256(chunk).hexdigest())
            async with self.reach(service, "shop-a", tmp_path) as wire:
                with pytest.raises(ProtocolError, match="at most"):
                    await wire.call(Method.UPLOAD, encode_upload(header, chunk), deadline_seconds=10)

        asyncio.run(scenario())

    def test_questions_and_answers_are_carried_byte_by_byte(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            service, question, answer = MemoryService(), some_bytes(QUESTION_BYTES), some_bytes(ANSWER_BYTES)
            async with self.connected(service, tmp_path) as connection:
                assert await connection.offer_of("shop-b") == b"an offer of shop-b"
                assert await connection.ask("shop-b", question, 1.0) == bytes(reversed(question))
                assert await connection.listen(b"offer", 0.0) == [("ab" * 16, "shop-a", question)]
                await connection.answer("ab" * 16, answer)
            assert service.answers == {"ab" * 16: answer}

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        ("method", "request_bytes"),
        [
            (Method.OFFER, b'{"silo": "../shop-b"}'),
            (Method.ASK, b'{"silo": "shop-b", "question": "!", "wait_seconds": 0}'),
            (Method.ASK, b'{"silo": "shop-b", "question": "%s", "wait_seconds": 0}' % (b"AAAA" * 1000)),
            (Method.ASK, b'{"silo": "shop-b", "question": "", "wait_seconds": 1e9}'),
            (Method.LISTEN, b'{"offer": "%s", "wait_seconds": 0}' % (b"AAAA" * 1000)),
            (Method.ANSWER, b'{"ticket": "x", "answer": ""}'),
            (Method.ANSWER, b'{"ticket": "%s", "answer": "%s"}' % (b"ab" * 16, b"AAAA" * 1000)),
            (Method.POSTS, b"not json"),
            (Method.POSTS, b'{"after": -1, "wait_seconds": 0}'),
            (Method.POSTS, b'{"after": 0, "wait_seconds": 1e9}'),
            (Method.POSTS, b'{"after": 0, "wait_seconds": 0, "more": 1}'),
            (Method.BLOB_STATUS, b'{"ref": {"job": "../../etc/passwd", "kind": "stream", "sender": "a"}}'),
            (Method.BLOB_STATUS, b'{"ref": {"job": "", "kind": "stream", "sender": "../a"}}'),
            (Method.UPLOAD, b"\x00"),
            (Method.UPLOAD, b"\xff\xff\xff\xff{}"),
            (Method.DOWNLOAD, encode(DownloadRequest(ref=stream_ref(), offset=0, limit=1)) + b"x"),
            (Method.DOWNLOAD, b"{}"),
        ],
    )
    def test_a_malformed_request_is_refused(
        self, tmp_path: Path, method: Method, request_bytes: bytes
    ) -> None:
        async def scenario() -> None:
            service = MemoryService()
            async with self.reach(service, "shop-a", tmp_path) as wire:
                with pytest.raises(ProtocolError):
                    await wire.call(method, request_bytes, deadline_seconds=10)
            assert service.callers == [], "nothing of it reached the service"

        asyncio.run(scenario())

    def test_a_closed_connection_says_so(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.connected(MemoryService(), tmp_path, patience=ONCE) as connection:
                await connection.close()
                with pytest.raises(UnreachableError):
                    await connection.info()

        asyncio.run(scenario())


def test_a_list_of_posts_that_is_cut_off_is_refused() -> None:
    for raw in (b"\x00" * 5, (1).to_bytes(8, "big") + (9).to_bytes(4, "big") + b"short"):
        with pytest.raises(ProtocolError, match="cut off"):
            decode_posts(raw)
