"""``archipel silo run``: the agent as a process that stops cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from federation.amendments import amended
from federation.locking import exclusive
from federation.transport.base import Connection
from federation.transport.connection import Patience
from federation.transport.grpc_client import connect
from federation.transport.handshake import Endpoint
from federation.transport.tls import PinnedCertificates
from privacy.ledger.storage import check_pages
from silo.agent import Agent
from silo.config import AgentConfig, load_config
from silo.logs import configure_logs
from silo.rollout import PolicyWatch
from silo.site import Site
from silo.vertical.serving.answering import AnsweringDesk

log = structlog.get_logger("silo")

PATIENCE_SECONDS = 30.0
"""After that long without an answer the agent says so in its log, and goes on asking."""


async def run_agent(directory: Path) -> None:
    """Run until SIGTERM (returns) or Ctrl-C (``KeyboardInterrupt`` at the caller).

    Raises:
        ArchipelError: the silo cannot run: not joined, policy not signed, coordinator of another charter,
            a ledger with a damaged page.
    """
    config = load_config(directory)
    with Site(directory) as site, exclusive(directory, "agent"):
        check_pages(directory / "ledger.db")
        policy = site.trusted_policy()
        configure_logs(directory, config.log_level)
        log.info("agent_started", silo=site.name, policy_version=policy.version)
        was_amended = await _run_under_charter(site, config)
    while was_amended:  # whose policy is in force may have to be signed anew: running jobs keep theirs
        with Site(directory) as site, exclusive(directory, "agent"):
            log.info("charter_in_force", silo=site.name, charter_version=site.charter.version)
            was_amended = await _run_under_charter(site, config)
    log.info("agent_stopped", silo=site.name)


async def _run_under_charter(site: Site, config: AgentConfig) -> bool:
    """Run until SIGTERM, or until an amendment is installed; returns whether that is why it ended."""
    connection = connect(endpoint_of(site, config), patience=Patience(total_seconds=PATIENCE_SECONDS))
    try:
        return await _until_terminated(_work(site, connection))
    finally:
        await connection.close()


async def _work(site: Site, connection: Connection) -> bool:
    """The agent, what it answers beside its jobs, and the watch over policy and charter.

    Returns:
        Whether an amendment ended it.
    """
    desk = asyncio.create_task(AnsweringDesk(site, connection).run())
    policy = asyncio.create_task(PolicyWatch(site).run())
    charter = asyncio.create_task(amended(site.directory, site.charter))
    agent = asyncio.create_task(Agent(site, connection).run())
    try:
        done, _ = await asyncio.wait((agent, charter), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return charter in done
    finally:
        beside = (agent, charter, policy, desk)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


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


async def _until_terminated(work: Coroutine[Any, Any, bool]) -> bool:
    """Await ``work``; SIGTERM ends it as if it had returned false."""
    task = asyncio.ensure_future(work)
    terminated = asyncio.Event()

    def terminate() -> None:
        terminated.set()
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise
        return False
