"""``archipel silo run``: the agent as a process that stops cleanly."""

from __future__ import annotations

import asyncio
import fcntl
import math
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from federation.transport.connection import Patience
from federation.transport.grpc_client import connect
from federation.transport.handshake import Endpoint
from federation.transport.tls import PinnedCertificates
from privacy.errors import HostError
from silo.agent import Agent
from silo.config import AgentConfig, load_config
from silo.logs import configure_logs
from silo.site import Site

log = structlog.get_logger("silo")


async def run_agent(directory: Path) -> None:
    """Run until SIGTERM (returns) or Ctrl-C (``KeyboardInterrupt`` at the caller).

    Raises:
        ArchipelError: the silo cannot run: not joined, policy not signed, coordinator of another charter.
    """
    config = load_config(directory)
    with Site(directory) as site, only_agent_of(directory):
        policy = site.trusted_policy()
        configure_logs(directory, config.log_level)
        log.info("agent_started", silo=site.name, policy_version=policy.version)
        connection = connect(endpoint_of(site, config), patience=Patience(total_seconds=math.inf))
        try:
            await _until_terminated(Agent(site, connection).run())
        finally:
            await connection.close()
            log.info("agent_stopped", silo=site.name)


def endpoint_of(site: Site, config: AgentConfig) -> Endpoint:
    """Where this silo finds its coordinator."""
    entry = site.charter.coordinator
    return Endpoint(
        host=config.coordinator_host or entry.host,
        port=config.coordinator_port or entry.port,
        party=site.name,
        identity=site.party.tls,
        pinned=PinnedCertificates.of(site.charter),
    )


@contextmanager
def only_agent_of(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: two agents on one outbox would say two things.

    Raises:
        HostError: another agent runs here.
    """
    with (directory / "agent.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError(
                "another agent runs on this directory", where=str(directory), remedy="stop it first"
            ) from error
        yield


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work``; SIGTERM ends it as if it had returned."""
    task = asyncio.ensure_future(work)
    terminated = asyncio.Event()

    def terminate() -> None:
        terminated.set()
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await task
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise
