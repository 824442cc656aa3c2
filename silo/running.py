"""``archipel silo run``: the agent as a process that stops cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from federation.locking import exclusive
from federation.transport.base import Connection
from federation.transport.connection import Patience
from federation.transport.grpc_client import connect
from federation.transport.handshake import Endpoint
from federation.transport.tls import PinnedCertificates
from silo.agent import Agent
from silo.config import AgentConfig, load_config
from silo.logs import configure_logs
from silo.rollout import PolicyWatch
from silo.site import Site

log = structlog.get_logger("silo")

PATIENCE_SECONDS = 30.0
"""After that long without an answer the agent says so in its log, and goes on asking."""


async def run_agent(directory: Path) -> None:
    """Run until SIGTERM (returns) or Ctrl-C (``KeyboardInterrupt`` at the caller).

    Raises:
        ArchipelError: the silo cannot run: not joined, policy not signed, coordinator of another charter.
    """
    config = load_config(directory)
    with Site(directory) as site, exclusive(directory, "agent"):
        policy = site.trusted_policy()
        configure_logs(directory, config.log_level)
        log.info("agent_started", silo=site.name, policy_version=policy.version)
        connection = connect(endpoint_of(site, config), patience=Patience(total_seconds=PATIENCE_SECONDS))
        try:
            await _until_terminated(_work(site, connection))
        finally:
            await connection.close()
            log.info("agent_stopped", silo=site.name)


async def _work(site: Site, connection: Connection) -> None:
    """The agent, and beside it the watch over its policy."""
    watch = asyncio.create_task(PolicyWatch(site).run())
    try:
        await Agent(site, connection).run()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


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
