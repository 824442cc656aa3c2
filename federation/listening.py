"""The coordinator as a process: where it listens, one per directory, a clean end."""

from __future__ import annotations

import asyncio
import signal
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TextIO, cast

import structlog
from pydantic import ValidationError

from federation.amendments import amended
from federation.coordinator import Coordinator
from federation.identity import Party
from federation.legs.spines import find_spine
from federation.locking import exclusive
from federation.quotas import CoordinatorLimits
from federation.transport.tls import PinnedCertificates
from policies.charters.charter import Charter
from policies.files import load_charter, write_atomically
from privacy.errors import DataError, TrustError, UsageError

_SETTINGS = "agent.toml"
log = structlog.get_logger("coordinator")
Announce = Callable[[str, str, int], None]


class SettingsError(DataError):
    """``agent.toml`` cannot be read."""

    code: ClassVar[str] = "settings"


def save_listen_address(directory: Path, host: str, port: int) -> None:
    """Write ``agent.toml``: what only this machine needs to know."""
    text = (
        "# Where this coordinator listens. The charter says where others reach it; behind NAT they differ.\n"
        f'listen_host = "{host}"\n'
        f"listen_port = {port}\n"
    )
    write_atomically(directory / _SETTINGS, text.encode())


def load_listen_address(directory: Path, charter: Charter) -> tuple[str, int]:
    """Host and port of ``agent.toml``; those of the charter where it says nothing.

    Raises:
        SettingsError: not TOML, or values of another kind.
    """
    settings = _settings(directory)
    host = settings.get("listen_host", charter.coordinator.host)
    port = settings.get("listen_port", charter.coordinator.port)
    if not isinstance(host, str) or not isinstance(port, int) or not 0 <= port < 65_536:
        raise SettingsError(
            "listen_host must be a text and listen_port a number below 65536",
            where=str(directory / _SETTINGS),
            remedy='write listen_host = "127.0.0.1" and listen_port = 8443',
        )
    return host, port


def load_limits(directory: Path) -> CoordinatorLimits:
    """The table ``[limits]`` of ``agent.toml``; defaults where it says nothing.

    Raises:
        SettingsError: not TOML, an unknown limit, or a value that none can have.
    """
    try:
        return CoordinatorLimits.model_validate(_settings(directory).get("limits", {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            f"limits.{'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=str(directory / _SETTINGS),
            remedy="known limits: " + ", ".join(CoordinatorLimits.model_fields),
        ) from error


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / _SETTINGS
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"not TOML: {error}", where=str(path), remedy="mend or delete the file"
        ) from error


def log_to_stderr() -> None:
    """Structured log lines on standard error: JSON for machines, plain for people at a terminal."""
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
    )


class _StandardError:
    """Standard error, of which a full disk behind it makes no failure of the protocol."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


async def serve(directory: Path, *, host: str | None, port: int | None, announce: Announce) -> bool:
    """Run the coordinator of ``directory`` until a signal; returns whether that was Ctrl-C.

    Args:
        directory: its directory, with the charter in force.
        host: listen there instead of as in ``agent.toml``.
        port: likewise; 0 takes any free port.
        announce: called with name, host and port once it listens.

    Raises:
        HostError: the address is taken, or another coordinator runs here.
        TrustError: the charter is not in force, or is another coordinator's.
    """
    _charter_of(directory, Party.load(directory))
    stop, signals = asyncio.Event(), list[signal.Signals]()

    def on_signal(received: signal.Signals) -> None:
        signals.append(received)
        stop.set()

    with exclusive(directory, "coordinator"):
        log_to_stderr()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        bound: int | None = None
        while not stop.is_set():
            bound = await _serve_charter(directory, host, port if bound is None else bound, announce, stop)
            announce = _announced
    return signals[0] is signal.SIGINT


async def _serve_charter(
    directory: Path, host: str | None, port: int | None, announce: Announce, stop: asyncio.Event
) -> int:
    """Serve until ``stop`` is set or an amendment is installed; returns the port."""
    from federation.transport.grpc_server import GrpcServer

    party = Party.load(directory)
    charter = _charter_of(directory, party)
    own_host, own_port = load_listen_address(directory, charter)
    coordinator = Coordinator(directory, party, charter, limits=load_limits(directory), match=find_spine)
    await coordinator.start()
    try:
        server = await GrpcServer.start(
            coordinator,
            identity=party.tls,
            pinned=PinnedCertificates.of(charter),
            host=host or own_host,
            port=own_port if port is None else port,
        )
        announce(party.name, server.host, server.port)
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(amended(directory, charter))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await server.stop()
        return server.port
    finally:
        await coordinator.stop()


def _announced(name: str, _host: str, _port: int) -> None:
    """The address is known already; the log says under which charter it goes on."""
    log.info("charter_in_force", name=name)


def _charter_of(directory: Path, party: Party) -> Charter:
    if party.role != "coordinator":
        raise UsageError(
            f"{party.name} is a silo",
            where=str(directory),
            remedy="name the coordinator's directory with --dir",
        )
    charter = load_charter(directory, datetime.now(UTC))
    entry = charter.coordinator
    pinned = (entry.name, entry.identity_key, entry.certificate_sha256)
    if pinned != (party.name, party.card.identity_key, party.card.certificate_sha256):
        raise TrustError(
            f"the charter's coordinator is another one than {party.name}, or has other keys",
            where=str(directory),
            remedy="have the charter drafted with this coordinator's card.json",
        )
    return charter
