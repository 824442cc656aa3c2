"""A vertical job in one process: the product's coordinator and agents, and contents that are only opaque.

What travels is what real contents would send: bytes made from what was received before. Each reader checks
whose they are and which silos they went through, so a leg that is lost, exchanged or read twice shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from federation import client, steps
from federation.coordinator import Coordinator
from federation.legs.legs import Leg, LegPurpose, origin
from federation.legs.matching import Found, Match, TooFew
from federation.legs.spines import find_spine
from federation.rounds import JobState, Phase
from federation.transport.base import Connection, UnreachableError
from federation.transport.connection import Patience
from federation.transport.inprocess import connect_in_process
from policies.administration import sign_policy
from policies.catalog import render_template
from policies.plans.plan import Plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from policies.plans.vertical.terms import AlignmentTerms
from privacy.errors import ProtocolError
from silo.agent import Agent
from silo.jobs.context import JobContext
from silo.jobs.leg_contents import LegContentError
from silo.site import Site
from silo.vertical.contents import CONTENTS
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import SILOS, Federation, make_federation

CAPACITIES = dict(zip(SILOS, (200, 150, 100), strict=True))
EPSILON, DELTA = 4.0, 1e-6
LITTLE_NOISE = 4.0
"""Epsilon of an alignment with which lists of a hundred places leave none of seventy people out."""
PATIENCE_SECONDS = 180.0
IN_COMMON = 40
PARTY: contextvars.ContextVar[str] = contextvars.ContextVar("party", default="")


class Killed(BaseException):
    """Raised where a party is killed in the middle of its own code; nothing may catch it."""


class OpaqueContent:
    """Lists that remember their way, a key, blocks, and moments that are a hash over all of them."""

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        await asyncio.to_thread(target.write_bytes, self._made(context, leg))

    def _made(self, context: JobContext, leg: Leg) -> bytes:
        kept, me = Kept(context), context.me
        match leg.purpose:
            case LegPurpose.HOP if leg.index == 1:
                ids = [f"common-{n}" for n in range(IN_COMMON)] + [f"{me}-{n}" for n in range(5)]
                return _as_bytes({"origin": me, "layers": [me], "ids": ids, "salt": os.urandom(8).hex()})
            case LegPurpose.HOP:
                return kept.read(f"hop-{leg.index - 1}")
            case LegPurpose.BLINDED:
                return kept.read(f"hop-{len(context.state.roster) - 1}")
            case LegPurpose.KEY | LegPurpose.BLOCK:
                made = f"{leg.in_words} ".encode() + os.urandom(50_000)
                kept.write(f"sent-{leg.number}", made)
                return made
            case _:
                return kept.digest_of("got-")

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        kept = Kept(context)
        for sender, path in received.items():
            found = await asyncio.to_thread(path.read_bytes)
            if leg.purpose is LegPurpose.HOP:
                content = json.loads(found)
                if content["origin"] != origin(context.state.plan, leg, sender):
                    raise LegContentError(f"somebody else's list in {leg.in_words}")
                content["layers"].append(context.me)
                kept.write(f"hop-{leg.index}", _as_bytes(content))
            elif leg.purpose is LegPurpose.SLOTS:
                kept.write("slots", found)
            elif leg.purpose is LegPurpose.MOMENTS:
                kept.write(f"moments-{sender}", found)
            else:
                kept.write(f"got-{leg.number}", found)

    async def conclude(self, context: JobContext) -> None:
        """The label silo compares what every feature silo made of its key and blocks; all have slots."""
        kept = Kept(context)
        said = {"slots": kept.read("slots").decode(), "moments": {}}
        if context.me == context.state.leader:
            mine = kept.digest_of("sent-")
            said["moments"] = {s: kept.read(f"moments-{s}") == mine for s in context.state.roster[1:]}
        await asyncio.to_thread((context.directory / "concluded.json").write_text, json.dumps(said))


class Kept:
    """What a content keeps between legs, durable."""

    def __init__(self, context: JobContext) -> None:
        self._path = context.site.outbox.kept_path(context.job, "")

    def write(self, name: str, content: bytes) -> None:
        path = self._path.with_name(self._path.name + name)
        part = path.with_name(path.name + ".new")
        part.write_bytes(content)
        part.replace(path)

    def read(self, name: str) -> bytes:
        return self._path.with_name(self._path.name + name).read_bytes()

    def digest_of(self, beginning: str) -> bytes:
        paths = self._path.parent.glob(f"{self._path.name}{beginning}*")
        numbered = sorted(paths, key=lambda path: int(path.name.rsplit("-", 1)[1]))
        return hashlib.sha256(b"".join(path.read_bytes() for path in numbered)).digest()


def match_ids(lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]) -> Found | TooFew:
    """Count whom all lists have in common, in clear; every list must have gone through every silo."""
    found = {silo: json.loads(path.read_bytes()) for silo, path in lists.items()}
    for silo, content in found.items():
        if content["origin"] != silo or sorted(content["layers"]) != sorted(found):
            raise ProtocolError(f"{silo}'s list went through {content['layers']}")
    common = set.intersection(*(set(content["ids"]) for content in found.values()))
    if len(common) < terms.min_intersection:
        return TooFew()
    for silo, path in slots.items():
        path.write_text(f"slots of {silo}")
    return Found(terms.spine_slots if terms.reveal == "none" else len(common))


class Hub:
    """The coordinator that runs now, for wires that outlive it."""

    def __init__(self) -> None:
        self.coordinator: Coordinator | None = None

    def __getattr__(self, name: str) -> Any:
        if self.coordinator is None:
            raise UnreachableError("the coordinator is down")
        return getattr(self.coordinator, name)


@dataclass
class VerticalFederation:
    """Directories of a hub and three silos, and a vertical plan; parties that are killed start again."""

    parties: Federation
    plan: Plan
    catalogue: Path
    hub: Hub = field(default_factory=Hub)
    sites: dict[str, Site] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)
    job: str = ""
    kills: set[tuple[str, str]] = field(default_factory=set)
    killed: list[str] = field(default_factory=list)
    deaths: dict[str, asyncio.Event] = field(default_factory=dict)
    match: Match = match_ids

    def failpoint(self, when: str, step: steps.Step) -> None:
        """Kill, once, whoever comes to a step of :attr:`kills`."""
        if (when, step.value) in self.kills:
            self.kills.remove((when, step.value))
            of_hub = step in (steps.Step.RELAYED_POSTED, steps.Step.SLOTS_WRITTEN, steps.Step.MATCHED_POSTED)
            self.killed.append("hub" if of_hub else PARTY.get())
            self.deaths[self.killed[-1]].set()
            raise Killed

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[client.Board]:
        """Run everybody, submit the plan as the label silo."""
        lives = [asyncio.create_task(self._live(name)) for name in ("hub", *SILOS)]
        party, charter = self.parties.parties[SILOS[0]], self.parties.charter
        self._leader = self._connect(SILOS[0])
        try:
            await asyncio.sleep(0.05)
            self.job = await client.submit(
                self._leader, party, charter, self.plan, self.catalogue, now=datetime.now(UTC)
            )
            yield client.Board(charter)
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)

    def _connect(self, name: str) -> Connection:
        if name in self.connections:
            return self.connections[name]
        return connect_in_process(self.hub, name, patience=Patience(total_seconds=20))

    async def _live(self, name: str) -> None:
        PARTY.set(name)
        while True:
            death = self.deaths[name] = asyncio.Event()
            task = asyncio.create_task(self._run_hub() if name == "hub" else self._run_silo(name))
            try:
                await death.wait()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _run_hub(self) -> None:
        party = self.parties.hub
        coordinator = Coordinator(party.directory, party, self.parties.charter, match=self.match)
        await coordinator.start()
        self.hub.coordinator = coordinator
        try:
            await asyncio.Event().wait()
        finally:
            self.hub.coordinator = None
            await coordinator.stop()

    async def _run_silo(self, name: str) -> None:
        with Site(self.parties.parties[name].directory) as site:
            self.sites[name] = site
            await Agent(site, self._connect(name)).run()

    async def state(self, board: client.Board) -> JobState:
        await board.refresh(self._leader)
        return board.find(self.job)

    async def until(self, condition: Callable[[JobState], bool], board: client.Board) -> JobState:
        async with asyncio.timeout(PATIENCE_SECONDS):
            state = await self.state(board)
            while not condition(state):
                state = await self._next_state(board)
        return state

    async def _next_state(self, board: client.Board) -> JobState:
        await asyncio.sleep(0.02)
        return await self.state(board)

    async def until_ended(self, board: client.Board) -> JobState:
        """Wait for the end, and until every silo has cleared up."""
        return await self.until(
            lambda state: (
                state.phase is Phase.ENDED
                and all(self.sites[name].job_note(self.job).get("finished") for name in SILOS)
            ),
            board,
        )

    def play(self, scenario: Callable[[client.Board], Any]) -> Any:
        """Run a scenario among running parties."""

        async def whole() -> Any:
            async with self.running() as board:
                return await scenario(board)

        return asyncio.run(whole())

    def concluded(self, silo: str) -> dict[str, Any]:
        """What the content left at a silo."""
        directory = self.parties.parties[silo].directory
        return dict(json.loads((directory / "jobs" / self.job / "concluded.json").read_bytes()))


def vertical_federation(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, port: int = 8443, **draft: Any
) -> VerticalFederation:
    """Make keys, charter, signed policies and rows, and a plan of three roles; contents are opaque."""
    for purpose in LegPurpose:
        monkeypatch.setitem(CONTENTS, purpose, OpaqueContent())
    return make_vertical_federation(directory, monkeypatch, port=port, **draft)


def make_vertical_federation(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    port: int = 8443,
    rows: Mapping[str, pl.DataFrame] | None = None,
    encoder: EncoderDraft | None = None,
    asking: tuple[str, ...] = (),
    **draft: Any,
) -> VerticalFederation:
    """The same with the product's own contents, unless ``rows`` are left out; what they are is by silo.

    With ``encoder`` the plan is one of a private encoder; ``asking`` names the silos whose policy wants
    somebody to approve each alignment.
    """
    parties = make_federation(directory, port=port)
    parties.install_charter()
    catalogue = make_catalogue()
    path = catalogue.save(directory / "catalogues")
    for name in SILOS:
        of_silo = _FEW_ROWS if rows is None else rows[name]
        epsilon = draft.get("target_epsilon", EPSILON)
        approval = "ask" if name in asking else "automatic"
        _furnish(
            parties.parties[name].directory, name, draft.get("reveal", "none"), of_silo, epsilon, approval
        )
    wanted = VerticalDraft(**{
        "label": SILOS[0], "features": dict.fromkeys(SILOS[1:], "user"),
        "catalogue_sha256": catalogue.sha256, "catalogue_items": len(catalogue),
        "target_epsilon": EPSILON, "target_delta": DELTA, "capacities": CAPACITIES,
        "min_intersection": 20, **({} if rows is None else {"alignment_epsilon": LITTLE_NOISE}), **draft,
    })  # fmt: skip
    plan = complete_vertical_plan(wanted) if encoder is None else complete_encoder_plan(wanted, encoder)
    federation = VerticalFederation(parties, plan, path)
    if rows is not None:
        federation.match = find_spine
    monkeypatch.setattr(steps, "_failpoint", federation.failpoint)
    return federation


_FEW_ROWS = pl.DataFrame(
    [(f"person-{n}", f"i{n:04d}") for n in range(10)], schema=["user_id", "item_id"], orient="row"
)


def _furnish(silo: Path, name: str, reveal: str, rows: pl.DataFrame, epsilon: float, approval: str) -> None:
    (silo / "data").mkdir()
    rows.write_parquet(silo / "data" / "rows.parquet")
    others = tuple(other for other in SILOS if other != name)
    text = alignment_policy(
        name, others=others, capacity=CAPACITIES[name], reveal=reveal, epsilon=epsilon, approval=approval
    )
    (silo / "policy.yaml").write_text(text)
    sign_policy(silo, datetime.now(UTC))


def alignment_policy(
    name: str,
    *,
    others: tuple[str, ...],
    capacity: int,
    reveal: str,
    epsilon: float,
    approval: str = "automatic",
) -> str:
    """A retailer's policy that lets common people be found."""
    text = render_template(
        "retailer", silo=name, with_members=list(others),
        source={"parquet": "data/*.parquet"}, columns={"user_id": "user_id", "item_id": "item_id"},
        epsilon=epsilon, delta=DELTA, max_epsilon_per_plan=epsilon, min_silos=3, max_silos_per_user=3,
        min_colluding_silos=1, verify_sums=0.0,
    )  # fmt: skip
    limits = {"capacity": capacity, "min_intersection": 20, "reveal": reveal, "max_runs_per_30_days": 9}
    limits["approval"] = approval
    return f"{text}\nalignment: {json.dumps(limits)}\n"


def _as_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
