"""A label silo and two feature silos after a vertical job, with the real coordinator between them.

What the job left is written by the product's own functions; the job itself is not run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from federation.coordinator import Coordinator
from federation.questions import NotAnsweringError
from federation.quotas import CoordinatorLimits
from federation.transport.base import Connection
from federation.transport.connection import Patience
from federation.transport.grpc_server import GrpcServer
from federation.transport.inprocess import connect_in_process
from policies.administration import sign_policy
from policies.catalog import render_template
from policies.plans.plan import Plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from silo.site import Site
from silo.vertical.artefacts import BASIS_FILE, MODEL_FILE, LabelModel, feature_columns, save_basis
from silo.vertical.columns import feature_interactions
from silo.vertical.joint.model import FeatureMoments, Vector, Weights
from silo.vertical.merging.keys import save_merge_keys
from silo.vertical.serving.answering import AnsweringDesk
from silo.vertical.serving.asking import FeatureClient
from silo.vertical.serving.consent import ConsentBook
from silo.vertical.serving.issuing import IssuedConsent, issue_consent
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import SILOS, Federation, make_federation

LABEL, FEATURE, OTHER = SILOS
PURPOSE = "product-recommendation"
JOB = "ab" * 16
DIMENSIONS = 3
PEOPLE = ("anna", "ben", "carla", "dora")
CATALOGUE = make_catalogue(12)
ONCE = Patience(total_seconds=0.0, call_seconds=10.0)


@dataclass
class ServingScene:
    """Directories in which a job has ended, and clocks to turn."""

    parties: Federation
    plan: Plan
    bases: dict[str, np.ndarray]
    shift: dict[str, timedelta] = field(default_factory=dict)

    def copied(self, to: Path) -> ServingScene:
        """The same with copies of all parties' directories, to break."""
        parties = {
            name: replace(party, directory=Path(shutil.copytree(party.directory, to / name)))
            for name, party in self.parties.parties.items()
        }
        return replace(self, parties=replace(self.parties, parties=parties))

    def has_now(self, silo: str, person: str, items: Iterable[int]) -> None:
        """Give a person other rows than they had."""
        path = self.directory(silo) / "data" / "rows.parquet"
        others = pl.read_parquet(path).filter(pl.col("user_id") != person)
        mine = [(person, CATALOGUE.items[item].item_id) for item in items]
        pl.concat([others, pl.DataFrame(mine, schema=others.schema, orient="row")]).write_parquet(path)

    def directory(self, silo: str) -> Path:
        return self.parties.parties[silo].directory

    @contextmanager
    def site(self, silo: str) -> Iterator[Site]:
        def clock() -> datetime:
            return datetime.now(UTC) + self.shift.get(silo, timedelta(0))

        with Site(self.directory(silo), clock=clock) as site:
            yield site

    def numbers(self, silo: str, person: str) -> Vector:
        """What a silo's answer about a person must be, computed from its rows anew."""
        with self.site(silo) as site:
            policy = site.trusted_policy()
        found = policy.dataset_for(PURPOSE)
        assert found is not None
        rows = feature_interactions(self.directory(silo), self.plan, found[1])
        index = [place for place, name in enumerate(rows.user_ids) if name == person]
        columns = feature_columns(rows.matrix()[index], rows, found[1])
        numbers: Vector = (columns @ self.bases[silo])[0]
        return numbers

    def items_of(self, silo: str, person: str) -> NDArray[np.int64]:
        """Catalogue indices of what a person has at a silo."""
        rows = pl.read_parquet(self.directory(silo) / "data" / "rows.parquet")
        mine = rows.filter(pl.col("user_id") == person)["item_id"]
        return np.array(sorted(CATALOGUE.index(item) for item in mine))

    def issue(
        self, person: str = "anna", *, by: str = FEATURE, audience: str = LABEL, purpose: str = PURPOSE
    ) -> IssuedConsent:
        return issue_consent(self.directory(by), person, audience=audience, purpose=purpose)

    def issue_unchecked(self, person: str, audience: str, purpose: str, by: str = FEATURE) -> str:
        """A token that the book writes and the policy did not see."""
        with ConsentBook(self.directory(by) / "consent.db") as book:
            return book.issue(person, audience=audience, purpose=purpose, now=datetime.now(UTC))

    def sign(self, silo: str, **serving: Any) -> None:
        """Sign a newer policy with another serving section."""
        path = self.directory(silo) / "policy.yaml"
        _write_policy(
            path, silo, version=int(path.read_text().split("version: ")[2].split()[0]) + 1, **serving
        )
        sign_policy(self.directory(silo), datetime.now(UTC))

    def finish(self, silo: str, job: str, plan: Plan, *, outcome: str | None = "completed") -> Path:
        """What every silo keeps of a job, up to its note that it has ended."""
        with self.site(silo) as site:
            site.remember_job(job, plan, site.trusted_policy())
        directory = self.directory(silo) / "jobs" / job
        note = {
            "job": job, "phase": "ended", "round": 9, "num_rounds": 9, "outcome": outcome, "reason": "",
            "problem": None, "finished": True,
        }  # fmt: skip
        (directory / "state.json").write_text(json.dumps(note))
        return directory

    @asynccontextmanager
    async def running(
        self, *answering: str, hub: Callable[[Coordinator], Any] = lambda made: made, **limits: Any
    ) -> AsyncIterator[Any]:
        """The coordinator, behind whatever ``hub`` makes of it, and the desks of the answering silos."""
        party = self.parties.hub
        coordinator = Coordinator(
            party.directory, party, self.parties.charter, limits=CoordinatorLimits(**limits)
        )
        await coordinator.start()
        service = hub(coordinator)
        desks = [asyncio.create_task(self._desk(name, service)) for name in answering or (FEATURE,)]
        try:
            await asyncio.gather(
                *(self._until_listening(coordinator, name) for name in answering or (FEATURE,))
            )
            yield service
        finally:
            crashed = [desk for desk in desks if desk.done()]
            for desk in desks:
                desk.cancel()
            await asyncio.gather(*desks, return_exceptions=True)
            for desk in crashed:
                desk.result()
            await coordinator.stop()

    async def _until_listening(self, coordinator: Coordinator, name: str) -> None:
        """Give a desk a moment; one whose policy answers nobody never listens."""
        for _ in range(100):
            try:
                await coordinator.offer_of(LABEL, name)
                return
            except NotAnsweringError:
                await asyncio.sleep(0.01)

    async def _desk(self, name: str, service: Any) -> None:
        with self.site(name) as site:
            await AnsweringDesk(site, self.connect(service, name)).run()

    @asynccontextmanager
    async def over_tls(self, *answering: str, **limits: Any) -> AsyncIterator[None]:
        """The same, with the coordinator where the charter says it is."""
        async with self.running(*answering, **limits) as service:
            server = await GrpcServer.start(
                service, identity=self.parties.hub.tls, pinned=self.parties.pinned, host="127.0.0.1",
                port=self.parties.charter.coordinator.port,
            )  # fmt: skip
            try:
                yield
            finally:
                await server.stop(0)

    def connect(self, service: Any, name: str) -> Connection:
        return connect_in_process(service, name, patience=ONCE)

    async def ask(
        self, service: Any, token: str, *, by: str = LABEL, of: str = FEATURE, job: str = JOB,
        plan: Plan | None = None,
    ) -> Vector:  # fmt: skip
        client = FeatureClient(
            self.connect(service, by), self.parties.parties[by], self.parties.charter,
            job=job, plan=plan or self.plan,
        )  # fmt: skip
        return await client.features(of, token, now=datetime.now(UTC))


def make_merging_scene(directory: Path) -> ServingScene:
    """The same where lists are merged on devices, and both feature silos answer for the label silo's."""
    made = make_serving_scene(directory)
    made.sign(LABEL, mode="user_side_merge")
    for silo in (FEATURE, OTHER):
        made.sign(silo, mode="user_side_merge", answers={LABEL: [PURPOSE]})
    return made


def make_serving_scene(directory: Path, *, port: int = 8443) -> ServingScene:
    """Keys, charter, signed policies and rows of three silos, and what a job left at each."""
    parties = make_federation(directory, port=port)
    parties.install_charter()
    for name in SILOS:
        CATALOGUE.save(parties.parties[name].directory / "catalogues")
        _furnish(parties.parties[name].directory, name)
    plan = serving_plan()
    rng = np.random.default_rng(3)
    bases = {name: 10 * np.linalg.qr(rng.normal(size=(1_024, DIMENSIONS)))[0] for name in SILOS[1:]}
    scene = ServingScene(parties, plan, bases)
    for name in SILOS:
        with scene.site(name) as site:
            site.trusted_policy()
    for name in SILOS[1:]:
        left = scene.finish(name, JOB, plan)
        save_basis(left / BASIS_FILE, bases[name])
        save_merge_keys(left, {LABEL: merge_key(name)})
    left = scene.finish(LABEL, JOB, plan)
    _label_model(plan).save(left / MODEL_FILE)
    save_merge_keys(left, {name: merge_key(name) for name in SILOS[1:]})
    return scene


def merge_key(feature: str) -> bytes:
    """What a feature silo and the label silo have agreed in the job to merge lists with."""
    return hashlib.sha256(feature.encode()).digest()


def serving_plan(**draft: Any) -> Plan:
    """The plan of the job that has ended."""
    return complete_vertical_plan(
        VerticalDraft(**{
            "label": LABEL, "features": dict.fromkeys(SILOS[1:], "user"),
            "catalogue_sha256": CATALOGUE.sha256, "catalogue_items": len(CATALOGUE),
            "target_epsilon": 4.0, "target_delta": 1e-6, "capacities": dict.fromkeys(SILOS, 100),
            "min_intersection": 20, "label_items": len(CATALOGUE), "dimensions": DIMENSIONS, **draft,
        })
    )  # fmt: skip


def _label_model(plan: Plan) -> LabelModel:
    rng = np.random.default_rng(4)
    rows = (rng.random((60, len(CATALOGUE))) < 0.3).astype(float)
    partners = {}
    for name in SILOS[1:]:
        numbers = rng.normal(size=(60, DIMENSIONS)) / 3
        partners[name] = FeatureMoments(rows.T @ numbers, numbers.T @ numbers)
    return LabelModel(
        plan, np.arange(len(CATALOGUE)), rows.T @ rows, rows.sum(axis=0), partners, Weights(1.0, 1.0)
    )


def _furnish(silo: Path, name: str) -> None:
    (silo / "data").mkdir()
    rng = np.random.default_rng(len(name) + ord(name[-1]))
    rows = [
        (person, CATALOGUE.items[int(item)].item_id)
        for person in PEOPLE
        for item in rng.choice(len(CATALOGUE), 5, replace=False)
    ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    table.write_parquet(silo / "data" / "rows.parquet")
    serving = {"answers": {LABEL: [PURPOSE]}} if name != LABEL else {}
    _write_policy(silo / "policy.yaml", name, mode="consented_session", **serving)
    sign_policy(silo, datetime.now(UTC))


def _write_policy(
    path: Path, name: str, *, version: int = 1, exclude_users: str | None = None,
    purposes: dict[str, str] | None = None, **serving: Any,
) -> None:  # fmt: skip
    text = render_template(
        "retailer", silo=name, with_members=[other for other in SILOS if other != name],
        source={"parquet": "data/*.parquet"}, columns={"user_id": "user_id", "item_id": "item_id"},
        epsilon=4.0, delta=1e-6, max_epsilon_per_plan=4.0, min_silos=3, max_silos_per_user=3,
        min_colluding_silos=1, verify_sums=0.0,
    )  # fmt: skip
    lines = [line for line in text.splitlines() if not line.startswith("serving:")]
    text = "\n".join(lines).replace("\nversion: 1", f"\nversion: {version}")
    if exclude_users is not None:
        text = text.replace("    population:", f"    exclude_users: {exclude_users}\n    population:")
    if purposes is not None:
        text = re.sub(r"\n  purposes: .*", f"\n  purposes: {json.dumps(purposes)}", text)
    path.write_text(f"{text}\nserving: {json.dumps(serving)}\n")
