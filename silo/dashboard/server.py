"""Serves the dashboard until it is stopped: on a loopback address, without a line of access log."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from privacy.errors import HostError, UsageError
from silo.dashboard.access import OPEN, Session
from silo.dashboard.app import make_app
from silo.dashboard.snapshot import Lookout

MAX_CONNECTIONS = 64


def serve(lookout: Lookout, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM (returns) or Ctrl-C (``KeyboardInterrupt``).

    Args:
        lookout: the silo that is shown.
        host: a loopback address, or localhost.
        port: 0 stands for any free one.
        announce: told the link that opens the session, once.

    Raises:
        UsageError: the address is not a loopback address.
        HostError: the port is in use.
    """
    with listen(host, port) as listening:
        session = Session()
        config = uvicorn.Config(
            make_app(lookout, session),
            access_log=False,  # its lines would hold the token
            log_config=None,
            log_level="warning",
            lifespan="off",
            ws="none",
            http="h11",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
        # uvicorn sends itself the signals it caught once it has ended; SIGTERM is no failure.
        former = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            announce(f"http://{_authority(listening)}{OPEN}?token={session.token}")
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            signal.signal(signal.SIGTERM, former)


def listen(host: str, port: int) -> socket.socket:
    """A socket that only this machine reaches.

    Raises:
        UsageError: the address is not a loopback address.
        HostError: the port is in use.
    """
    address = "127.0.0.1" if host == "localhost" else host
    if address not in ("127.0.0.1", "::1"):
        raise UsageError(
            "the dashboard is shown on this machine only",
            where=f"--host {host}",
            remedy="leave --host out; from elsewhere: ssh -L 8440:127.0.0.1:8440 THIS-MACHINE",
        )
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise HostError(
            f"cannot listen: {error.strerror}",
            where=f"{address}:{port}",
            remedy="stop the other program, or choose another port; --port 0 takes any free one",
        ) from error


def _authority(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(directory: Path, charter: Path, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Look once, so that what is wrong ends the command and not a page, then serve."""
    lookout = Lookout(directory, charter)
    lookout.look()
    serve(lookout, host=host, port=port, announce=announce)
