"""A federation of three silos in one process: the product's coordinator and agents, in-memory wires.

Quick enough to run a job per test, and open enough to put a sabotaged part into one silo, which no agent with
a charter has a way to do by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import polars as pl

from federation import client
from federation.coordinator import Coordinator
from federation.rounds import JobState
from federation.transport.connection import Patience
from federation.transport.inprocess import connect_in_process
from policies.administration import sign_policy
from policies.catalog import render_template
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from silo.agent import Agent
from silo.site import Site
from silo.worker import Worker
from tests.contracts.family_contract import make_catalogue, random_histories
from tests.contracts.federation_directories import SILOS, Federation, make_federation

EPSILON, DELTA = 4.0, 1e-5
MAX_USERS = 64
PATIENCE_SECONDS = 60.0

P = ParamSpec("P")
R = TypeVar("R")


class InThreadWorker(Worker):
    """The worker's tasks in this process: a test may then replace a function they call."""

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)


@dataclass
class LittleFederation:
    """Directories of a hub and three silos that have joined, and the plan they will run."""

    parties: Federation
    plan: Plan
    catalogue: Path
    workers: dict[str, Worker] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    job: str = ""

    def note(self, silo: str) -> dict[str, Any]:
        """What a silo's agent last noted about the job, as ``silo status`` shows it."""
        return self.sites[silo].job_note(self.job)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[client.Board]:
        """Run coordinator and agents, submit the plan as the first silo; the board is an observer's."""
        hub = self.parties.hub
        coordinator = Coordinator(hub.directory, hub, self.parties.charter)
        await coordinator.start()
        patience = Patience(total_seconds=5)
        leader = connect_in_process(coordinator, SILOS[0], patience=patience)
        tasks: list[asyncio.Task[None]] = []
        try:
            for name in SILOS:
                site = self.sites[name] = Site(self.parties.parties[name].directory)
                agent = Agent(site, connect_in_process(coordinator, name, patience=patience))
                agent._worker = self.workers.get(name) or InThreadWorker()
                tasks.append(asyncio.create_task(agent.run()))
            party, charter = self.parties.parties[SILOS[0]], self.parties.charter
            self.job = await client.submit(
                leader, party, charter, self.plan, self.catalogue, now=datetime.now(UTC)
            )
            self._leader = leader
            yield client.Board(charter)
        finally:
            await _end(tasks)
            await coordinator.stop()

    async def state(self, board: client.Board) -> JobState:
        """The job as the board has it now."""
        await board.refresh(self._leader)
        return board.find(self.job)

    async def next_state(self, board: client.Board) -> JobState:
        """The job a moment later."""
        await asyncio.sleep(0.05)
        return await self.state(board)

    async def until(self, condition: Callable[[JobState], bool], board: client.Board) -> JobState:
        """Wait for something to become true of the job or around it; returns the state then."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            state = await self.state(board)
            while not condition(state):
                state = await self.next_state(board)
        return state

    def close(self) -> None:
        """Close what the sites hold open."""
        for site in self.sites.values():
            site.close()


def little_federation(directory: Path) -> LittleFederation:
    """Make keys, charter, signed policies and rows; 30 users a silo, 24 items, a popularity plan."""
    parties = make_federation(directory)
    parties.install_charter()
    catalogue = make_catalogue()
    path = catalogue.save(directory / "catalogues")
    for seed, name in enumerate(SILOS):
        silo = parties.parties[name].directory
        histories = random_histories(seed)
        rows = [(f"{name}-{u}", f"i{i:04d}") for u, items in enumerate(histories) for i in items]
        (silo / "data").mkdir()
        pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").write_parquet(
            silo / "data" / "rows.parquet"
        )
        (silo / "policy.yaml").write_text(
            render_template(
                "retailer", silo=name, with_members=[other for other in SILOS if other != name],
                source={"parquet": "data/*.parquet"}, columns={"user_id": "user_id", "item_id": "item_id"},
                epsilon=EPSILON, delta=DELTA, max_epsilon_per_plan=EPSILON, min_silos=3, max_silos_per_user=1,
                min_colluding_silos=1, verify_sums=0.0,
            )
        )  # fmt: skip
        sign_policy(silo, datetime.now(UTC))
    plan = complete_plan(
        Draft(
            silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue),
            family="popularity", target_epsilon=EPSILON, target_delta=DELTA, max_users_per_silo=MAX_USERS,
            max_silos_per_user=1,
        )
    )  # fmt: skip
    return LittleFederation(parties, plan, path)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until they end: before Python 3.12 ``wait_for`` may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
