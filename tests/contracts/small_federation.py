"""A whole small federation in a directory, made by the product's own functions, and its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from federation import client
from federation.coordinator import Coordinator
from federation.identity import Party
from federation.messages import Envelope
from federation.rounds import JobState, Phase, fold
from federation.steps import FAILPOINT_VARIABLE
from federation.store import Store
from federation.transport.base import Connection
from federation.transport.connection import Patience
from federation.transport.inprocess import Faults, connect_in_process
from policies.catalog import render_template
from policies.files import save_yaml
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from silo.agent import Agent
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.joining import join
from silo.site import Site
from silo.worker import Worker
from tests.contracts.federation_directories import Federation, free_port, make_federation
from tests.support.nursery import Process, nursery

ROOT = Path(__file__).parents[2]
ATTRIBUTES = ("genre:a", "genre:b", "genre:c")


def small_catalogue(num_items: int = 30) -> Catalogue:
    items = (
        CatalogueItem(
            item_id=f"i{number:03d}",
            title=f"Item {number}",
            text="",
            attributes=(ATTRIBUTES[number % len(ATTRIBUTES)],),
        )
        for number in range(num_items)
    )
    return Catalogue(tuple(items))


def small_rows(
    seed: int, catalogue: Catalogue, *, num_users: int = 40, is_timed: bool = False
) -> pl.DataFrame:
    """Rows of one silo: users with a taste for every third item, more popular ones first; a day apart."""
    rng = np.random.default_rng(seed)
    users, items = [], []
    for user in range(num_users):
        weights = 1.0 / (1.0 + np.arange(len(catalogue))) ** 0.7
        weights[np.arange(len(catalogue)) % 3 == user % 3] *= 6
        chosen = rng.choice(len(catalogue), size=8, replace=False, p=weights / weights.sum())
        users += [f"u{seed}-{user}"] * 8
        items += [catalogue.items[int(index)].item_id for index in chosen]
    rows = pl.DataFrame({"user_id": users, "item_id": items})
    if is_timed:
        days = pl.int_range(pl.len()).over("user_id")
        rows = rows.with_columns((1_600_000_000 + 86_400 * days).alias("timestamp"))
    return rows


@dataclass
class SmallFederation:
    """Directories of a coordinator and silos that have joined, and the plan they could agree on."""

    root: Path
    parties: Federation
    catalogue: Catalogue
    plan: Plan
    rows: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return self.plan.silos

    @property
    def leader(self) -> str:
        return self.plan.silos[0]

    @property
    def port(self) -> int:
        return self.parties.charter.coordinator.port

    def directory(self, name: str) -> Path:
        return self.parties.parties[name].directory

    def table(self, name: str) -> Path:
        return self.directory(name) / "data" / "rows.parquet"

    @property
    def plan_path(self) -> Path:
        return self.root / "plan.yaml"

    @property
    def catalogue_path(self) -> Path:
        return self.root / "catalogues" / f"{self.catalogue.sha256}.jsonl"


def make_small_federation(
    root: Path,
    *,
    silos: tuple[str, ...] = ("shop-a", "shop-b", "shop-c"),
    num_items: int = 30,
    orders: tuple[float, ...] | None = None,
    budget_epsilon: float = 8.0,
    verify_sums: float = 1.0,
    own_items: Callable[[str], Catalogue] | None = None,
    is_timed: bool = False,
    **draft: Any,
) -> SmallFederation:
    """Parties, charter, data, signed policies and a plan; ``draft`` overrides the plan's fields.

    ``own_items`` gives each silo a list of its own, named in its policy, and rows over that. With
    ``is_timed`` rows have times, and policies name their column.
    """
    catalogue = small_catalogue(num_items)
    catalogue.save(root / "catalogues")
    parties = make_federation(root / "parties", silos=silos, port=free_port())
    parties.install_charter()
    fields: dict[str, Any] = {
        "silos": silos,
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": num_items,
        "family": "popularity",
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 64,
        "max_silos_per_user": 1,
        "max_interactions_per_user": 20,
    }
    plan = complete_plan(Draft(**(fields | draft)))
    made = SmallFederation(root, parties, catalogue, plan)
    save_yaml(made.plan_path, plan)
    for seed, name in enumerate(silos):
        items = catalogue if own_items is None else own_items(name)
        made.rows[name] = small_rows(seed, items, is_timed=is_timed)
        made.table(name).parent.mkdir()
        made.rows[name].write_parquet(made.table(name))
        policy = render_template(
            "retailer",
            silo=name,
            expires=datetime.now(UTC).date() + timedelta(days=30),
            with_members=[other for other in silos if other != name],
            source={"parquet": "data/*.parquet"},
            columns={column: column for column in made.rows[name].columns},
            max_interactions_per_user=20,
            max_silos_per_user=1,
            epsilon=budget_epsilon,
            delta=1e-6,
            orders=orders,
            max_epsilon_per_plan=4.0,
            min_silos=draft.get("min_silos", len(silos)),
            min_colluding_silos=1,
            verify_sums=verify_sums,
        )
        if own_items is not None:
            items.save(made.directory(name) / "catalogues")
            listed = f"    item_list: catalogues/{items.sha256}.jsonl\n    columns:"
            policy = policy.replace("    columns:", listed)
        (made.directory(name) / "policy.yaml").write_text(policy)
        join(made.directory(name), parties.hub.directory / "charter.yaml")
    return made


@dataclass
class InProcess:
    """Coordinator and agents in this process: the product's own, with the network in memory."""

    federation: SmallFederation
    coordinator: Coordinator
    sites: dict[str, Site] = field(default_factory=dict)
    agents: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def connect(self, name: str, faults: Faults | None = None) -> Connection:
        return connect_in_process(
            self.coordinator,
            name,
            faults=faults,
            patience=Patience(total_seconds=20, first_pause_seconds=0.01),
        )

    def start(self, name: str, faults: Faults | None = None, worker: Worker | None = None) -> None:
        site = Site(self.federation.directory(name))
        self.sites[name] = site
        agent = Agent(site, self.connect(name, faults))
        if worker is not None:
            agent._worker = worker
        self.agents[name] = asyncio.create_task(agent.run())

    async def stop(self, name: str) -> None:
        task = self.agents.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.sites.pop(name).close()

    async def submit(self, plan: Plan | None = None) -> str:
        leader = self.federation.parties.parties[self.federation.leader]
        return await client.submit(
            self.connect(leader.name),
            leader,
            self.federation.parties.charter,
            plan or self.federation.plan,
            self.federation.catalogue_path,
            now=datetime.now(UTC),
        )

    async def follow(self, job: str, until: Callable[[JobState], bool]) -> JobState:
        """The first state of ``job`` for which ``until`` holds."""
        board = client.Board(self.federation.parties.charter)
        connection = self.connect("hub")
        while True:
            await board.refresh(connection, wait_seconds=1.0)
            for name, agent in self.agents.items():
                assert not agent.done(), (name, agent)
            if job in board.jobs and until(board.jobs[job]):
                return board.jobs[job]

    async def finish(self, job: str) -> JobState:
        """The end of ``job``, once every running agent is done with it."""
        state = await self.follow(job, lambda state: state.phase is Phase.ENDED)
        while not all(site.job_note(job).get("finished") for site in self.sites.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return state


@asynccontextmanager
async def in_process(federation: SmallFederation, *, agents: bool = True) -> AsyncIterator[InProcess]:
    hub = federation.parties.hub
    coordinator = Coordinator(hub.directory, hub, federation.parties.charter)
    await coordinator.start()
    running = InProcess(federation, coordinator)
    try:
        for name in federation.names if agents else ():
            running.start(name)
        yield running
    finally:
        for name in list(running.agents):
            await running.stop(name)
        await coordinator.stop()


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "cli", *map(str, words)]


@dataclass
class Node:
    """One long-running process of a federation."""

    name: str
    words: tuple[str | Path, ...]
    log: Path
    process: Process | None = None

    def start(self, failpoint: str | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != FAILPOINT_VARIABLE}
        if failpoint is not None:
            environment[FAILPOINT_VARIABLE] = failpoint
        with self.log.open("ab") as log:
            log.write(f"--- started, failpoint {failpoint}\n".encode())
        self.process = nursery().start(self.words, self.log, environment=environment)

    def poll(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def said(self) -> str:
        return self.log.read_text()


@contextmanager
def nodes(federation: SmallFederation) -> Iterator[dict[str, Node]]:
    """The coordinator (``hub``) and every agent, none started; none outlives the block."""
    made = {
        name: Node(
            name,
            ("coordinator" if name == "hub" else "silo", "run", "--dir", party.directory),
            federation.root / f"{name}.log",
        )
        for name, party in federation.parties.parties.items()
    }
    try:
        yield made
    finally:
        for node in made.values():
            if node.poll() is None and node.process is not None:
                node.process.kill()
                node.process.wait()


def submit(federation: SmallFederation, *, by: str | None = None, plan: Plan | None = None) -> str:
    """Propose the plan over TLS; waits for a coordinator that is being restarted."""
    party = federation.parties.parties[by or federation.leader]

    async def propose() -> str:
        connection = client.dial(party, federation.parties.charter, patience=Patience(total_seconds=60))
        try:
            return await client.submit(
                connection,
                party,
                federation.parties.charter,
                plan or federation.plan,
                federation.catalogue_path,
                now=datetime.now(UTC),
            )
        finally:
            await connection.close()

    return asyncio.run(propose())


def talk(federation: SmallFederation, say: Callable[[Connection, Party], Awaitable[None]]) -> None:
    """Say something to the running coordinator as the leader, over TLS."""
    party = federation.parties.parties[federation.leader]

    async def once() -> None:
        connection = client.dial(party, federation.parties.charter, patience=Patience(total_seconds=60))
        try:
            await say(connection, party)
        finally:
            await connection.close()

    asyncio.run(once())


def posts_on_disk(federation: SmallFederation) -> list[Envelope]:
    """Every post that the coordinator's disk holds, in order; also while it runs."""
    store = Store(federation.parties.hub.directory)
    try:
        return [post.envelope for post in store.posts()]
    finally:
        store.close()


def state_on_disk(federation: SmallFederation, job: str) -> JobState | None:
    posts = [post for post in posts_on_disk(federation) if job in {post.job, client.proposal_id(post)}]
    return fold(posts, "hub") if posts else None


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
