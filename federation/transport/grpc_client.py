"""A party's way to the coordinator: mutual TLS, dialling out only, failures explained."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, Final

import grpc

from federation.transport.base import MAX_MESSAGE_BYTES, UnreachableError
from federation.transport.codec import SERVICE_NAME, Method, decode_error
from federation.transport.connection import Patience, WireConnection
from federation.transport.handshake import Endpoint, check_own_certificate, explain
from privacy.errors import ArchipelError, PeerError, ProtocolError

_WORTH_A_RETRY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class GrpcWire:
    """Carries calls over one channel.

    Args:
        endpoint: where the coordinator is and who asks.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        identity, pinned = endpoint.identity, endpoint.pinned
        credentials = grpc.ssl_channel_credentials(
            root_certificates=pinned.coordinator_pem,
            private_key=identity.key_pem,
            certificate_chain=identity.certificate_pem,
        )
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._channel = grpc.aio.secure_channel(
            f"{host}:{endpoint.port}", credentials, options=_options(endpoint)
        )
        self._is_open = True
        self._calls = {m: self._channel.unary_unary(f"/{SERVICE_NAME}/{m.value}") for m in Method}

    async def call(self, method: Method, request: bytes, *, deadline_seconds: float) -> bytes:
        """One call; see :class:`~federation.transport.connection.Wire`."""
        if not self._is_open:
            raise UnreachableError("the connection is closed", where=str(self._endpoint))
        try:
            answer: bytes = await self._calls[method](request, timeout=deadline_seconds)
        except grpc.aio.AioRpcError as error:
            raise await self._explained(error) from error
        return answer

    async def close(self) -> None:
        """Close the channel."""
        self._is_open = False
        await self._channel.close()

    async def _explained(self, error: Any) -> ArchipelError:
        where = str(self._endpoint)
        status, text = error.code(), error.details() or ""
        told = decode_error(text, where=where)
        if told is not None:
            return told
        if status is grpc.StatusCode.UNAVAILABLE:
            return await asyncio.to_thread(explain, self._endpoint)
        if status in _WORTH_A_RETRY:
            return UnreachableError(f"no answer ({status.name.lower()})", where=where, remedy="try again")
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ProtocolError(
                f"a message of more than {MAX_MESSAGE_BYTES} bytes was refused",
                where=where,
                remedy="send less",
            )
        if status is grpc.StatusCode.UNIMPLEMENTED:
            return ProtocolError(
                "the coordinator does not know this call",
                where=where,
                remedy="run the same version on both sides",
            )
        return PeerError(
            f"the call failed ({status.name.lower()})", where=where, remedy="see the coordinator's log"
        )


def connect(endpoint: Endpoint, *, patience: Patience | None = None) -> WireConnection:
    """A connection to the coordinator; nothing is sent before the first call. Needs a running event loop.

    Raises:
        TrustError: the party's own certificate cannot be accepted.
    """
    check_own_certificate(endpoint)
    return WireConnection(GrpcWire(endpoint), patience=patience)


def _options(endpoint: Endpoint) -> tuple[tuple[str, str | int], ...]:
    options: tuple[tuple[str, str | int], ...] = (
        ("grpc.ssl_target_name_override", endpoint.pinned.coordinator),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Channels of one process to one address would share a connection and so a certificate.
        ("grpc.use_local_subchannel_pool", 1),
    )
    # A company proxy in the environment cannot lead back to this machine.
    return (*options, ("grpc.enable_http_proxy", 0)) if _is_loopback(endpoint.host) else options


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
