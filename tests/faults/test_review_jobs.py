"""Attacks on a running job by its coordinator, a member, or an old disk, against a real silo directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from federation.client import make_proposal
from federation.messages import (
    Acceptance,
    Body,
    Ended,
    Envelope,
    Ephemeral,
    Failed,
    Fingerprint,
    Keys,
    LedgerHead,
    Opened,
    PostKind,
    Receipt,
    Receipts,
    Received,
    Stream,
    Sum,
    parse_envelope,
    seal,
)
from federation.rounds import Duty, JobState, Phase, advance, propose
from policies.canonical import digest, signed_bytes
from policies.files import save_signatures, save_yaml
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.signing import DetachedSignatures
from policies.silo_policy import SiloPolicy
from privacy.agreement import EphemeralKey
from privacy.errors import ArchipelError, ProtocolError
from silo.agent import Agent
from silo.audit.receipts import load_receipts
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.jobs import close, start
from silo.jobs import open as opening
from silo.jobs.aggregates import received_hash
from silo.jobs.context import JOB_SECRETS, JobContext
from silo.site import Site
from silo.worker import Worker
from tests.contracts.federation_directories import SILOS, Federation, make_federation

ME = "shop-a"
HASH = "ab" * 32


def make_catalogue(items: int = 6) -> Catalogue:
    return Catalogue.from_items(
        CatalogueItem(item_id=f"{number:03d}", attributes=("x",)) for number in range(items)
    )


def make_plan(**changes: Any) -> Plan:
    catalogue = make_catalogue()
    fields: dict[str, Any] = {
        "silos": SILOS,
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "family": "popularity",
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 100,
        "max_silos_per_user": 1,
    }
    return complete_plan(Draft(**{**fields, **changes}))


def policy_document(**accepts: Any) -> dict[str, Any]:
    return {
        "kind": "SiloPolicy",
        "schema_version": 1,
        "version": 1,
        "silo": ME,
        "expires": "2099-01-01",
        "datasets": {
            "purchases": {
                "source": {"csv": "rows.csv"},
                "max_interactions_per_user": 200,
                "population": "customers",
                "max_silos_per_user": 1,
            }
        },
        "budgets": {
            "customers": {"epsilon": 8.0, "delta": 1e-6, "scope": "lifetime", "filter": "zcdp"},
        },
        "accepts": {
            "purposes": {"product-recommendation": "purchases"},
            "with_members": [name for name in SILOS if name != ME],
            "max_epsilon_per_plan": 8.0,
            "min_silos": 3,
            "min_colluding_silos": 1,
            "metrics": "noised",
            "verify_sums": 0.1,
            **accepts,
        },
    }


class NoConnection:
    """A coordinator that serves nothing, and counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bytes_sent = self.bytes_received = 0

    async def download(self, ref: Any, path: Path, *, sha256: str, num_bytes: int) -> None:
        self.asked.append(ref.kind)
        raise ProtocolError("not now")

    async def post(self, envelope: bytes) -> int:
        return 1


@dataclass
class Scene:
    """``shop-a`` as a real directory, its peers as keys, one job as the posts it was shown."""

    federation: Federation
    site: Site
    plan: Plan
    state: JobState
    connection: NoConnection = field(default_factory=NoConnection)
    worker: Any = field(default_factory=Worker)

    @property
    def context(self) -> JobContext:
        worker = cast(Worker, self.worker)
        return JobContext(self.site, cast(Any, self.connection), worker, self.state)

    def sealed(self, sender: str, body: Body, *, in_round: bool = False) -> Envelope:
        round_, attempt = (self.state.round, self.state.attempt) if in_round else (0, 0)
        identity = self.federation.parties[sender].identity
        return seal(body, job=self.state.job, sender=sender, identity=identity, round=round_, attempt=attempt)

    def show(self, envelope: Envelope) -> None:
        self.state = advance(self.state, envelope)

    def all_say(
        self, make: Callable[[str], Body], *, but: tuple[str, ...] = (), in_round: bool = False
    ) -> None:
        for silo in SILOS:
            if silo not in but:
                self.show(self.sealed(silo, make(silo), in_round=in_round))

    def ephemeral(self) -> Ephemeral:
        return Ephemeral(
            public_key=EphemeralKey.generate().public_bytes().hex(),
            nonce=os.urandom(32).hex(),
            plan_sha256=digest(self.plan),
            roster=SILOS,
            policy_version=1,
            expires="2099-01-01",
        )

    def start(self) -> None:
        """``shop-a`` accepts for real; everybody else says what it must until the first round begins."""
        mine = asyncio.run(start.answer(self.context))
        self.show(mine)
        accepted = Acceptance(plan_sha256=digest(self.plan), policy_sha256=HASH, policy_version=1)
        self.all_say(lambda _: accepted, but=(ME,))
        self.all_say(lambda _: self.ephemeral())
        self.show(self.sealed(SILOS[0], Keys(wrapped=dict.fromkeys(SILOS[1:], "AAAA"))))
        self.all_say(lambda me: Fingerprint(macs={name: HASH for name in SILOS if name != me}))
        for place, envelope in self.state.posts.items():
            if place.sender == ME and envelope != mine:
                self.site.outbox.store_post(envelope)
        self.site.outbox.store_secret(self.state.job, JOB_SECRETS, os.urandom(96))

    def stream(self) -> Stream:
        shape = self.context.shape
        return Stream(sha256=os.urandom(32).hex(), num_bytes=1000, num_frames=shape.layout.num_frames)

    def contribute(self) -> None:
        """Every silo, this one included, has contributed; its own stream is on record."""
        self.all_say(lambda _: self.ephemeral(), in_round=True)
        self.site.ledger.commit(
            self.state.job, round=self.state.round, attempt=self.state.attempt, event=self.context.shape.event
        )
        mine = self.sealed(ME, self.stream(), in_round=True)
        self.site.outbox.store_post(mine)
        self.show(mine)
        self.all_say(lambda _: self.stream(), but=(ME,), in_round=True)

    def sum_of(self, content: bytes) -> Envelope:
        at = {"round": self.state.round, "attempt": self.state.attempt}
        streams = {e.sender: e.body["sha256"] for e in self.state.roster_posts(PostKind.STREAM, **at)}
        body = Sum(
            sha256=hashlib.sha256(content).hexdigest(),
            num_bytes=len(content),
            num_frames=self.context.shape.layout.num_frames,
            streams=streams,
        )
        return self.sealed("hub", body, in_round=True)

    def receive(self, content: bytes) -> None:
        """Everybody fetched ``content`` and has posted its keyed hash."""
        self.site.outbox.path(self.state.job, "sum", *self.context.at).write_bytes(content)
        for silo in SILOS:
            mac = received_hash(self.context, silo, *self.context.at)
            envelope = self.sealed(silo, Received(mac=mac.hex()), in_round=True)
            if silo == ME:
                self.site.outbox.store_post(envelope)
            self.show(envelope)


def make_scene(directory: Path, plan: Plan, *, policy: dict[str, Any] | None = None) -> Scene:
    federation = make_federation(directory)
    federation.install_charter()
    mine = federation.parties[ME].directory
    document = SiloPolicy.model_validate(policy or policy_document())
    payload = document.signed_bytes()
    key = federation.parties[ME].administrator
    assert key is not None
    save_yaml(mine / "policy.yaml", document)
    save_signatures(mine / "policy.yaml", DetachedSignatures.over(payload).signed_by(key, payload))
    make_catalogue().save(mine / "catalogues")
    site = Site(mine)
    proposal = make_proposal(federation.parties["shop-b"], plan, 1000, site.now())
    return Scene(federation, site, plan, propose(proposal, "hub"))


def sampled_plan() -> Plan:
    """Several rounds, of which a policy of ``verify_sums: 0.1`` checks some."""
    return make_plan(family="linear", rounds=4, max_burned_rounds=2)


# ── verify_sums ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_coordinator_that_withholds_streams_cannot_wait_for_the_coin_to_fall_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path, sampled_plan())
    scene.start()
    scene.contribute()
    scene.show(scene.sum_of(b"forged"))
    scene.receive(b"forged")
    tosses = iter([0, 0, (1 << 53) - 1])  # heads, heads, tails

    async def opened(*_: object) -> bytes:
        return bytes(32)

    monkeypatch.setattr("silo.jobs.open.secrets.randbelow", lambda _: next(tosses))
    monkeypatch.setattr(opening, "open_sum_of", opened)
    said = None
    for _ in range(3):  # as the agent does: a duty that fails is tried again
        try:
            said = asyncio.run(opening.open_sum(scene.context))
            break
        except ArchipelError:
            continue
    assert said is None or said.kind is PostKind.FAILED


def test_what_is_recomputed_is_compared_with_what_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.start()
    scene.contribute()
    before = scene.state
    scene.show(scene.sum_of(b"forged"))
    scene.receive(b"forged")
    received = scene.state.roster_posts(PostKind.RECEIVED, round=1, attempt=1)
    scene.state = before  # the agent restarts and reads the board anew
    scene.show(scene.sum_of(b"honest"))
    for envelope in received:
        scene.show(envelope)

    class HonestSum:
        async def sum(self, _streams: Any, _frames: int, out: Path) -> Any:
            out.write_bytes(b"honest")  # noqa: ASYNC240
            return cast(Any, Sum.model_construct(sha256=hashlib.sha256(b"honest").hexdigest()))

        def close(self) -> None:
            pass

    async def served(_ref: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"a stream")  # noqa: ASYNC240

    async def opened(*_: object) -> bytes:
        return bytes(32)

    monkeypatch.setattr(opening, "SumWorker", HonestSum)
    monkeypatch.setattr(opening, "open_sum_of", opened)
    monkeypatch.setattr(scene.connection, "download", served)
    assert asyncio.run(opening.open_sum(scene.context)).kind is PostKind.FAILED


def test_a_sum_larger_than_its_frames_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.start()
    scene.contribute()
    honest = scene.sum_of(b"sum").content(Sum)
    huge = honest.model_copy(update={"num_bytes": 1 << 50, "num_frames": 1})
    with pytest.raises(ProtocolError):
        scene.show(scene.sealed("hub", huge, in_round=True))


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_left_before_an_old_disk_was_restored_is_charged_again(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan(max_burned_rounds=1))
    scene.start()
    scene.all_say(lambda _: scene.ephemeral(), in_round=True)  # shop-a's is not in the restored outbox
    scene.show(scene.sealed(ME, scene.stream(), in_round=True))
    agent = Agent(scene.site, cast(Any, scene.connection))
    said = asyncio.run(agent._handle(Duty.UPLOAD, scene.context))
    assert said is not None
    assert said.kind in {PostKind.BURN, PostKind.CANCEL}
    scene.site.ledger.release_rest(scene.state.job)
    committed = scene.site.ledger.status("customers").committed
    assert sum(count for _, count in committed) == 1


def test_a_silo_whose_ledger_is_gone_does_not_begin_anew(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.start()
    scene.contribute()
    directory = scene.site.directory
    scene.site.close()
    for path in directory.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(ArchipelError):
        Site(directory).ledger_state(SiloPolicy.model_validate(policy_document()))


def test_a_peer_can_hand_out_the_receipt_that_proves_a_cut_ledger(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.start()
    job = scene.state.job
    heads = {silo: LedgerHead(seq=9, hash=os.urandom(32).hex()) for silo in SILOS}
    scene.site.outbox.store_post(scene.sealed(ME, heads[ME]))

    def receipts(by: str) -> Receipts:
        def one(silo: str) -> Receipt:
            statement = {"job": job, "silo": silo, **heads[silo].model_dump(), "by": by}
            signature = scene.federation.parties[by].identity.sign(signed_bytes("receipt", statement))
            return Receipt(silo=silo, signature=signature, **heads[silo].model_dump())

        return Receipts(receipts=tuple(one(silo) for silo in SILOS if silo != by))

    posts = dict(scene.state.posts)
    for silo in SILOS:
        for body in cast(tuple[Body, ...], (heads[silo], receipts(silo))):
            envelope = scene.sealed(silo, body)
            posts[envelope.place] = envelope
    object.__setattr__(scene.state, "posts", posts)
    asyncio.run(close.finish(scene.context))
    kept = load_receipts(scene.site.directory / "jobs" / job / "receipts.json")
    assert any(receipt.silo == "shop-b" for receipt in kept)


def test_a_dataset_that_has_been_charged_does_not_move_to_a_fresh_account(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.start()
    ledger = scene.site.ledger
    events = scene.context.authorization.events
    document = policy_document()
    document["version"] = 2
    document["datasets"]["purchases"]["population"] = "clients"
    document["budgets"] = {"clients": document["budgets"]["customers"]}
    newer = SiloPolicy.model_validate(document)
    scene.site.ledger_state(newer)
    with pytest.raises(ArchipelError):
        ledger.reserve(
            account="clients", job="b" * 32, dataset="purchases", plan_sha256=HASH,
            policy_sha256=digest(newer), requested_by="shop-b", events=events,
        )  # fmt: skip


# ── one party against the others ─────────────────────────────────────────────────────────────────────────


def test_a_plan_that_miscounts_its_catalogue_is_refused_before_anything_is_reserved(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan(catalogue_items=50))
    assert asyncio.run(start.answer(scene.context)).kind is PostKind.DENIAL


def test_nothing_is_fetched_for_a_plan_that_the_policy_denies(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan(), policy=policy_document(with_members=["shop-b"]))
    for path in (scene.site.directory / "catalogues").iterdir():
        path.unlink()
    with suppress(ArchipelError):
        asyncio.run(start.answer(scene.context))
    assert scene.connection.asked == []


def test_a_members_date_that_is_none_is_an_error_of_ours(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.show(asyncio.run(start.answer(scene.context)))
    accepted = Acceptance(plan_sha256=digest(scene.plan), policy_sha256=HASH, policy_version=1)
    scene.all_say(lambda _: accepted, but=(ME,))
    odd = scene.ephemeral().model_copy(update={"expires": "tomorrow"})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydantic says what the attacker does on purpose
        posted = scene.sealed("shop-b", odd)

    def believe_it() -> None:
        scene.show(posted)
        start.check_expiries(scene.context)

    with pytest.raises(ArchipelError):
        believe_it()


def test_a_burned_metrics_round_ends_or_is_paid_for(tmp_path: Path) -> None:
    plan = make_plan(max_burned_rounds=1, holdout="random", metrics_epsilon=0.5)
    scene = make_scene(tmp_path, plan)
    scene.start()
    for _ in range(2):
        scene.contribute()
        scene.show(scene.sum_of(b"sum"))
        scene.receive(b"sum")
        if scene.state.round == 1:
            scene.all_say(lambda _: Opened(digest=HASH), in_round=True)
    scene.all_say(lambda _: Failed(), in_round=True)
    if scene.state.phase is Phase.EXCHANGING:
        scene.site.ledger.commit(
            scene.state.job, round=2, attempt=scene.state.attempt, event=scene.context.shape.event
        )


def test_a_plan_that_is_refused_anyway_learns_nothing_about_the_budget(tmp_path: Path) -> None:
    def reasons(epsilon: float) -> set[str]:
        directory = tmp_path / f"epsilon-{epsilon}"
        plan = make_plan(target_epsilon=epsilon)
        scene = make_scene(directory, plan, policy=policy_document(with_members=["shop-b"]))
        envelope = asyncio.run(start.answer(scene.context))
        scene.site.close()
        return {reason["code"] for reason in parse_envelope(envelope.to_bytes()).body["reasons"]}

    assert reasons(7.9) == reasons(8.1) - {"epsilon_too_high"}


def test_a_job_is_completed_only_after_everybody_has_countersigned(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, make_plan())
    scene.start()
    with pytest.raises(ProtocolError):
        scene.show(scene.sealed("hub", Ended(outcome="completed", reason="")))
