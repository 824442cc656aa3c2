from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from federation.transport.base import UnreachableError
from federation.transport.codec import SERVICE_NAME, Method
from federation.transport.connection import Wire
from federation.transport.grpc_client import GrpcWire, connect
from federation.transport.grpc_server import GrpcServer
from privacy.errors import ArchipelError, HostError, ProtocolError
from tests.contracts.federation_directories import Federation, make_federation
from tests.contracts.transport_contract import ONCE, QUICK, MemoryService, TransportContract


@asynccontextmanager
async def serving(federation: Federation, service: MemoryService, port: int = 0) -> AsyncIterator[GrpcServer]:
    server = await GrpcServer.start(
        service, identity=federation.hub.tls, pinned=federation.pinned, host="127.0.0.1", port=port
    )
    try:
        yield server
    finally:
        await server.stop(0.1)


class TestGrpc(TransportContract):
    @asynccontextmanager
    async def reach(self, service: MemoryService, party: str, tmp_path: Path) -> AsyncIterator[Wire]:
        federation = make_federation(tmp_path / "parties")
        async with serving(federation, service) as server:
            wire = GrpcWire(federation.endpoint(party, server.port))
            try:
                yield wire
            finally:
                await wire.close()


def test_a_bug_of_the_coordinator_is_not_told_to_peers(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        service = MemoryService(refusal=KeyError("the secret of shop-b"))
        async with serving(federation, service) as server:
            connection = connect(federation.endpoint("shop-a", server.port), patience=ONCE)
            with pytest.raises(ArchipelError, match="failed unexpectedly") as caught:
                await connection.info()
            await connection.close()
        assert "secret" not in str(caught.value)

    asyncio.run(scenario())


def test_a_full_disk_of_the_coordinator_is_told_as_such(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        service = MemoryService(refusal=OSError(28, "No space left on device", "/var/lib/hub/spool"))
        async with serving(federation, service) as server:
            connection = connect(federation.endpoint("shop-a", server.port), patience=ONCE)
            with pytest.raises(HostError, match="disk is full") as caught:
                await connection.post(b"x")
            await connection.close()
        assert "/var" not in str(caught.value)

    asyncio.run(scenario())


def test_clients_outlast_a_restart_of_the_coordinator(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        service = MemoryService()
        async with serving(federation, service) as server:
            port = server.port
            connection = connect(federation.endpoint("shop-a", port), patience=QUICK)
            assert await connection.post(b"before") == 1
            waiting = asyncio.create_task(connection.posts(1, 50))
            await service.polled.wait()
        later = asyncio.create_task(connection.post(b"after"))
        await asyncio.sleep(0.05)
        async with serving(federation, service, port):
            assert await later == 2
            assert await waiting == [(2, b"after")]
            await connection.close()

    asyncio.run(scenario())


def test_an_address_where_nobody_listens_is_explained(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        connection = connect(federation.endpoint("shop-a", port), patience=ONCE)
        with pytest.raises(UnreachableError, match="Connection refused") as caught:
            await connection.info()
        await connection.close()
        assert f"127.0.0.1:{port}" in str(caught.value)

    asyncio.run(scenario())


def test_something_else_than_a_coordinator_is_explained(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        federation = make_federation(tmp_path)
        web = await asyncio.start_server(say_hello, "127.0.0.1", 0)
        async with web:
            port = web.sockets[0].getsockname()[1]
            connection = connect(federation.endpoint("shop-a", port), patience=ONCE)
            with pytest.raises(UnreachableError, match="TLS handshake failed"):
                await connection.info()
            await connection.close()

    asyncio.run(scenario())


def test_a_port_in_use_is_a_host_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        async with serving(federation, MemoryService()) as server:
            with pytest.raises(HostError, match="already in use") as caught:
                async with serving(federation, MemoryService(), server.port):
                    pass
        assert str(server.port) in str(caught.value)
        assert caught.value.remedy is not None

    asyncio.run(scenario())


def test_an_address_that_is_not_ours_is_a_host_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        with pytest.raises(HostError, match="cannot listen"):
            await GrpcServer.start(
                MemoryService(),
                identity=federation.hub.tls,
                pinned=federation.pinned,
                host="192.0.2.1",
                port=0,
            )

    asyncio.run(scenario())


def test_an_unknown_call_is_a_protocol_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        async with serving(federation, MemoryService()) as server:
            endpoint = federation.endpoint("shop-a", server.port)
            wire = GrpcWire(endpoint)
            wire._calls[Method.INFO] = wire._channel.unary_unary(f"/{SERVICE_NAME}/Conquer")
            with pytest.raises(ProtocolError, match="does not know this call"):
                await wire.call(Method.INFO, b"", deadline_seconds=5)
            await wire.close()

    asyncio.run(scenario())


def test_only_grpc_modules_import_grpc() -> None:
    root = Path(grpc.__file__).parents[0]
    assert root.name == "grpc"
    folder = Path(__file__).parents[2] / "federation"
    importing = {
        path.name for path in folder.rglob("*.py") if "import grpc\n" in path.read_text(encoding="utf-8")
    }
    assert importing == {"grpc_server.py", "grpc_client.py"}
