"""The coordinator on mutual TLS. Only parties of the charter get an answer, and each only in its own name."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import structlog

from federation.transport.base import MAX_MESSAGE_BYTES, Service
from federation.transport.codec import SERVICE_NAME, Method, encode_error
from federation.transport.dispatch import Dispatcher
from federation.transport.tls import PinnedCertificates, TlsIdentity
from policies.console import explain_error
from privacy.errors import (
    ArchipelError,
    DeniedError,
    ExitCode,
    HostError,
    PeerError,
    TrustError,
)

log = structlog.get_logger("transport")

_MAX_CONCURRENT_CALLS = 512
_OPTIONS: Final = (
    # Without this a second server on the same port starts silently and takes half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
_STATUS: Final = {
    DeniedError: grpc.StatusCode.PERMISSION_DENIED,
    TrustError: grpc.StatusCode.UNAUTHENTICATED,
    PeerError: grpc.StatusCode.FAILED_PRECONDITION,
    HostError: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

Handler = Callable[[bytes, Any], Awaitable[bytes]]


class GrpcServer:
    """A running server; made by :meth:`start`."""

    def __init__(self, server: Any, host: str, port: int) -> None:
        self._server = server
        self.host = host
        self.port = port

    @classmethod
    async def start(
        cls, service: Service, *, identity: TlsIdentity, pinned: PinnedCertificates, host: str, port: int
    ) -> GrpcServer:
        """Listen on ``host``:``port`` (0: any free port, see ``port``).

        Raises:
            HostError: the address cannot be taken.
        """
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CONCURRENT_CALLS)
        server.add_generic_rpc_handlers((_handlers(service, pinned),))
        credentials = grpc.ssl_server_credentials(
            [(identity.key_pem, identity.certificate_pem)],
            root_certificates=pinned.all_pem,
            require_client_auth=True,
        )
        try:
            bound = server.add_secure_port(_authority(host, port), credentials)
        except RuntimeError as error:
            await server.stop(None)
            raise _why_not_bound(host, port) from error
        await server.start()
        log.info("listening", host=host, port=bound)
        return cls(server, host, bound)

    async def stop(self, grace_seconds: float = 2.0) -> None:
        """Take no new calls, let running ones finish for ``grace_seconds``, hang up."""
        await self._server.stop(grace_seconds)
        log.info("stopped", host=self.host, port=self.port)


def _handlers(service: Service, pinned: PinnedCertificates) -> Any:
    dispatcher = Dispatcher(service)

    def handler(method: Method) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            party = "?"
            try:
                party = pinned.party_of(_leaf_of(context))
                return await dispatcher.answer(party, method, request)
            except ArchipelError as error:
                refusal = error
                log.warning("refused", party=party, peer=context.peer(), call=method.value, code=error.code,
                            what=error.message)  # fmt: skip
            except Exception as error:
                refusal = explain_error(error) or _unexpected()
                log.exception("failed", party=party, call=method.value)
            await context.abort(_status_of(refusal), encode_error(refusal))
            raise refusal

        return grpc.unary_unary_rpc_method_handler(answer)

    return grpc.method_handlers_generic_handler(SERVICE_NAME, {m.value: handler(m) for m in Method})


def _unexpected() -> ArchipelError:
    """What a peer is told of a bug here: nothing of its content."""
    return ArchipelError(
        "the coordinator failed unexpectedly", remedy="its log says more; nothing was changed"
    )


def _leaf_of(context: Any) -> bytes:
    leaves: list[bytes] = context.auth_context().get("x509_pem_cert", [])
    if len(leaves) != 1:
        raise TrustError("a call without a certificate", remedy="connect with the party's TLS key")
    return leaves[0]


def _status_of(error: ArchipelError) -> Any:
    for cls, status in _STATUS.items():
        if isinstance(error, cls):
            return status
    return grpc.StatusCode.INTERNAL if error.exit_code is ExitCode.UNEXPECTED else grpc.StatusCode.ABORTED


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why_not_bound(host: str, port: int) -> HostError:
    """The reason that gRPC keeps to itself; asking the system again tells it."""
    where = _authority(host, port)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        return HostError(
            f"cannot listen there: {reason}",
            where=where,
            remedy="stop the other program, or choose another --port",
        )
    return HostError("cannot listen there", where=where, remedy="choose another --host or --port")
