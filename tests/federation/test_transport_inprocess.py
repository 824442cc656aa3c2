from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from federation.transport.base import UnreachableError
from federation.transport.codec import Method, decode_posts
from federation.transport.connection import CHUNK_BYTES, Patience, Wire, WireConnection
from federation.transport.inprocess import Faults, InProcessWire, connect_in_process
from privacy.errors import ProtocolError
from tests.contracts.transport_contract import (
    ONCE,
    QUICK,
    MemoryService,
    TransportContract,
    some_bytes,
    stream_ref,
)


class TestInProcess(TransportContract):
    @asynccontextmanager
    async def reach(self, service: MemoryService, party: str, tmp_path: Path) -> AsyncIterator[Wire]:
        yield InProcessWire(service, party)


@pytest.mark.parametrize("seed", range(8))
def test_a_lossy_network_changes_nothing_but_the_bytes_sent(tmp_path: Path, seed: int) -> None:
    async def scenario() -> None:
        content = some_bytes(4 * CHUNK_BYTES + 9)
        service = MemoryService()
        service.announce(stream_ref(), content)
        faults = Faults(random.Random(seed), drop_request=0.2, drop_answer=0.2, duplicate=0.2)
        connection = connect_in_process(service, "shop-a", faults=faults, patience=QUICK)
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(content)
        assert [await connection.post(post) for post in (b"a", b"b", b"c")] == [1, 2, 3]
        await connection.upload(stream_ref(), source)
        assert service.content(stream_ref()) == content
        digest = hashlib.sha256(content).hexdigest()
        await connection.download(stream_ref(), target, sha256=digest, num_bytes=len(content))
        assert target.read_bytes() == content
        assert connection.bytes_sent >= len(content)
        assert [post for _, post in await connection.posts(0, 0)] == [b"a", b"b", b"c"]

    asyncio.run(scenario())


def test_patience_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        faults = Faults(random.Random(0), drop_request=1.0)
        patience = Patience(total_seconds=0.2, first_pause_seconds=0.01)
        connection = connect_in_process(MemoryService(), "shop-a", faults=faults, patience=patience)
        with pytest.raises(UnreachableError, match="lost"):
            await connection.post(b"x")
        with pytest.raises(UnreachableError, match="lost"):
            await connection.upload(stream_ref(), _file(tmp_path, b"x"))

    asyncio.run(scenario())


def test_a_chunk_altered_on_its_way_is_refused_and_not_kept(tmp_path: Path) -> None:
    def flip_last_byte(method: Method, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if method is Method.UPLOAD else data

    async def scenario() -> None:
        content = some_bytes(CHUNK_BYTES + 5)
        service = MemoryService()
        service.announce(stream_ref(), content)
        faults = Faults(random.Random(0), alter_request=flip_last_byte)
        connection = connect_in_process(service, "shop-a", faults=faults, patience=ONCE)
        with pytest.raises(ProtocolError, match="digest"):
            await connection.upload(stream_ref(), _file(tmp_path, content))
        assert await service.blob_offset("shop-a", stream_ref()) == 0

    asyncio.run(scenario())


def test_altered_answers_are_refused(tmp_path: Path) -> None:
    def twist(method: Method, data: bytes) -> bytes:
        if method is Method.POSTS:
            first = len(data) // len(decode_posts(data))
            return data[first:] + data[:first]
        if method is Method.BLOB_STATUS:
            return b'{"offset": 99}'
        return b'{"seq": "many"}' if method is Method.POST else data

    async def scenario() -> None:
        service = MemoryService(board=[b"one", b"two"])
        service.announce(stream_ref(), b"ten bytes!")
        faults = Faults(random.Random(0), alter_answer=twist)
        connection = connect_in_process(service, "shop-a", faults=faults, patience=ONCE)
        with pytest.raises(ProtocolError, match="out of order"):
            await connection.posts(0, 0)
        with pytest.raises(ProtocolError, match="claims 99 bytes"):
            await connection.upload(stream_ref(), _file(tmp_path, b"ten bytes!"))
        with pytest.raises(ProtocolError, match="not a Posted"):
            await connection.post(b"x")

    asyncio.run(scenario())


def test_a_coordinator_that_never_moves_on_does_not_hold_a_client(tmp_path: Path) -> None:
    def stuck(method: Method, data: bytes) -> bytes:
        return b'{"offset": 0}' if method in (Method.UPLOAD, Method.BLOB_STATUS) else data

    async def scenario() -> None:
        service = MemoryService()
        service.announce(stream_ref(), b"ten bytes!")
        faults = Faults(random.Random(0), alter_answer=stuck)
        connection = connect_in_process(service, "shop-a", faults=faults, patience=QUICK)
        with pytest.raises(ProtocolError, match="fell back"):
            await connection.upload(stream_ref(), _file(tmp_path, b"ten bytes!"))

    asyncio.run(scenario())


def test_an_answer_that_takes_longer_than_the_deadline_counts_as_lost() -> None:
    async def scenario() -> None:
        service = MemoryService()
        wire = InProcessWire(service, "shop-a", Faults(random.Random(0), max_delay_seconds=0.001))
        patience = Patience(total_seconds=0.0, call_seconds=-0.5)
        with pytest.raises(UnreachableError, match="no answer in time"):
            await WireConnection(wire, patience=patience).posts(0, 1.0)

    asyncio.run(scenario())


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(content)
    return path
