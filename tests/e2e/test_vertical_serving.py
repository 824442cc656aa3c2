"""One person's consent through real processes over TLS: issued, taken along, redeemed, then worth nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from policies.administration import sign_policy
from policies.files import load_charters
from privacy.devices import DeviceKey
from silo.vertical.artefacts import load_feature_basis, load_label_model
from silo.vertical.merging.feature import give_part
from silo.vertical.merging.label import start_merge
from silo.vertical.merging.person import merge_list
from silo.vertical.serving.desk import LabelDesk
from silo.vertical.serving.issuing import issue_consent
from tests.contracts.federation_directories import SILOS, free_port
from tests.contracts.small_federation import (
    Node,
    SmallFederation,
    nodes,
    small_catalogue,
    submit,
    wait_until,
)
from tests.support.nursery import typed
from tests.support.partners import NAMES, NUM_COMMON, make_partners
from tests.support.serving_scene import (
    CATALOGUE,
    FEATURE,
    JOB,
    LABEL,
    OTHER,
    PURPOSE,
    ServingScene,
    make_serving_scene,
)

pytestmark = pytest.mark.e2e


@contextmanager
def processes(scene: ServingScene, logs: Path) -> Iterator[dict[str, Node]]:
    """The coordinator and every agent; all listen, and none outlives the block."""
    made = {
        name: Node(
            name,
            ("coordinator" if name == "hub" else "silo", "run", "--dir", party.directory),
            logs / f"{name}.log",
        )
        for name, party in scene.parties.parties.items()
    }
    try:
        for node in made.values():
            node.start()
        yield made
    finally:
        for node in made.values():
            if node.poll() is None and node.process is not None:
                node.process.kill()
                node.process.wait()


class Desk:
    """The commands that people at each silo type."""

    def __init__(self, scene: ServingScene, root: Path) -> None:
        self.scene = scene
        self.root = root
        self.count = 0

    def consent(self, person: str, *, by: str = FEATURE) -> Path:
        self.count += 1
        path = self.root / f"token-{self.count}.json"
        done = typed(
            "consent", "issue", person, "--for", LABEL, "--purpose", PURPOSE,
            "--dir", self.scene.directory(by), "--json", path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(json.loads(path.read_text())["token"]) == 1
        return path

    def recommend(self, person: str, *options: str | Path) -> dict[str, Any]:
        done = typed(
            "recommend", "--job", JOB, "--user", person, "-k", "5", "--dir", self.scene.directory(LABEL),
            "--json", "-", *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def expected(self, person: str, *partners: str) -> list[str]:
        """The list computed here, from what each silo has in its own files."""
        model = load_label_model(self.scene.directory(LABEL), JOB)
        numbers = {silo: self.scene.numbers(silo, person) for silo in partners}
        rows = self.scene.items_of(LABEL, person)
        return [CATALOGUE.items[item].item_id for item, _ in model.recommend(rows, numbers, top=5)]


@pytest.mark.timeout(450)
def test_a_person_in_session_is_scored_with_what_partners_know(tmp_path: Path) -> None:
    scene = make_serving_scene(tmp_path / "parties", port=free_port())
    desk = Desk(scene, tmp_path)
    with processes(scene, tmp_path) as running:
        first = desk.consent("anna")
        wait_until(
            lambda: (
                desk.recommend("anna", "--consent", desk.consent("anna"))["partners"][FEATURE] == "answered"
            )
        )
        together = desk.recommend("anna", "--consent", first, "--consent", desk.consent("anna", by=OTHER))
        assert together["serving_mode"] == "consented_session"
        assert together["partners"] == {FEATURE: "answered", OTHER: "answered"}
        assert [row["item_id"] for row in together["items"]] == desk.expected("anna", FEATURE, OTHER)

        alone = desk.recommend("anna")
        assert alone["serving_mode"] == "own_features_only"
        assert [row["item_id"] for row in alone["items"]] == desk.expected("anna")
        assert alone["items"] != together["items"], "what partners know makes a difference"

        again = desk.recommend("anna", "--consent", first)
        assert again["partners"] == {FEATURE: "denied", OTHER: "no token"}
        assert (again["serving_mode"], again["items"]) == ("own_features_only", alone["items"])

        running[FEATURE].end(signal.SIGKILL)
        assert desk.recommend("anna", "--consent", first)["partners"][FEATURE] in ("denied", "unreachable")
        token = desk.consent("ben")
        running[FEATURE].start()
        wait_until(lambda: "connected" in running[FEATURE].said().rpartition("--- started")[2])
        wait_until(
            lambda: desk.recommend("ben", "--consent", desk.consent("ben"))["partners"][FEATURE] == "answered"
        )
        word = f"{FEATURE}={json.loads(token.read_text())['token']}"
        after = desk.recommend("ben", "--token", word)
        assert [row["item_id"] for row in after["items"]] == desk.expected("ben", FEATURE)

        scene.sign(LABEL, mode="own_features_only")
        denied = typed(
            "recommend", "--job", JOB, "--user", "anna", "--dir", scene.directory(LABEL),
            "--consent", desk.consent("anna"),
        )  # fmt: skip
        assert (denied.returncode, "error[serving_denied]" in denied.stderr) == (3, True)
        assert [node.end() for node in running.values()] == [0] * len(running)

    shown = json.loads(typed("consent", "show", "--dir", scene.directory(FEATURE), "--json", "-").stdout)
    outcomes = {entry["outcome"]: entry["questions"] for entry in shown}
    assert outcomes["answered"] >= 3
    assert outcomes["redeemed"] == 1
    check_that_nobody_is_named(scene, tmp_path)


def check_that_nobody_is_named(scene: ServingScene, root: Path) -> None:
    """Neither people nor tokens are in any log, nor in anything that the coordinator keeps."""
    tokens = [json.loads(path.read_text())["token"] for path in root.glob("token-*.json")]
    kept = [*root.glob("*.log"), *(path for path in scene.directory("hub").rglob("*") if path.is_file())]
    kept += [path for name in SILOS for path in (scene.directory(name) / "logs").glob("*")]
    assert len(kept) > 8
    for path in kept:
        content = path.read_bytes()
        for word in ("anna", "ben", *tokens):
            assert word.encode() not in content.replace(b"benchmark", b""), path


@pytest.mark.timeout(500)
def test_consent_after_a_real_vertical_job(tmp_path: Path) -> None:
    """From the plan to the list: what the job left at each silo is what the question is answered from."""
    federation = make_partners(
        tmp_path, holdout="random", holdout_fraction=0.4, label_items=len(small_catalogue())
    )
    shop, platform, network = NAMES
    at_shop, at_platform = ("--dir", federation.directory(shop)), ("--dir", federation.directory(platform))
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        job = submit(federation)
        notes = [federation.directory(name) / "jobs" / job / "state.json" for name in NAMES]
        wait_until(
            lambda: all(note.exists() and json.loads(note.read_text()).get("finished") for note in notes),
            seconds=300,
        )
        allow_serving(federation.directory(shop))
        allow_serving(federation.directory(platform), answers={shop: [PURPOSE]})
        wait_until(lambda: said(running[platform], "policy_in_force", "policy_version=2"))
        token = tmp_path / "token.json"
        issued = typed("consent", "issue", "person-0", "--for", shop, "--purpose", PURPOSE, *at_platform,
                       "--json", token)  # fmt: skip
        assert issued.returncode == 0, issued.stderr
        listed = typed(
            "recommend", "--user", "person-0", "-k", "5", "--consent", token, *at_shop, "--json", "-"
        )
        assert listed.returncode == 0, listed.stderr
        model = load_label_model(federation.directory(shop), job)
        check_evaluation(federation, job, running)
    found = json.loads(listed.stdout)
    assert found["partners"] == {platform: "answered", network: "no token"}
    mine = federation.rows[shop].filter(pl.col("user_id") == "person-0")["item_id"]
    items = np.array(sorted(federation.catalogue.index(item) for item in mine))
    numbers = load_feature_basis(federation.directory(platform), job).project("person-0")
    expected = model.recommend(items, {platform: numbers}, top=5)
    assert [row["item_id"] for row in found["items"]] == [
        federation.catalogue.items[item].item_id for item, _ in expected
    ]
    assert expected != model.recommend(items, top=5)
    check_merge(federation, job, "person-0", items)


def check_evaluation(federation: SmallFederation, job: str, running: dict[str, Node]) -> None:
    """The shop learns how far to trust its partners, from everybody who consented at both."""
    shop, *partners = NAMES
    allow_serving(federation.directory(NAMES[2]), answers={shop: [PURPOSE]})
    wait_until(lambda: said(running[NAMES[2]], "policy_in_force", "policy_version=2"))
    people = [f"person-{number}" for number in range(NUM_COMMON)]
    lines = []
    for partner, person in product(partners, people):
        issued = issue_consent(federation.directory(partner), person, audience=shop, purpose=PURPOSE)
        lines.append(f"{person},{partner},{issued.token}")
    consents = federation.root / "consents.csv"
    consents.write_text("\n".join(["user_id,silo,token", *lines]) + "\n")
    words = ("evaluate", "--job", job, "--dir", federation.directory(shop), "--json", "-")
    alone = typed(*words)
    assert alone.returncode == 0, alone.stderr
    done = typed(*words, "--consents", consents, "--keep")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["people"], found["answered"]) == (NUM_COMMON, dict.fromkeys(partners, NUM_COMMON))
    assert found["metrics"]["with_partners"] > found["metrics"]["popularity"]
    model = load_label_model(federation.directory(shop), job)
    assert (model.weights.mixing, len(model.weights.feature_ridges)) == (found["weights"]["mixing"], 2)
    again = typed(*words, "--consents", consents)
    assert (again.returncode, "too_few_sessions" in again.stderr) == (6, True), "tokens are spent"


def check_merge(federation: SmallFederation, job: str, person: str, items: NDArray[np.int64]) -> None:
    """What the job left at both ends merges to the same list on the person's device; no agent runs."""
    shop, platform, _ = (federation.directory(name) for name in NAMES)
    allow_serving(shop, 3, mode="user_side_merge")
    allow_serving(platform, 3, mode="user_side_merge", answers={NAMES[0]: [PURPOSE]})
    device = DeviceKey.generate()
    begun = start_merge(LabelDesk(shop, job), person, device.address)
    given = give_part(platform, person, begun.ticket, device.address)
    charter = load_charters(shop / "charter.yaml", datetime.now(UTC))[-1]
    found = merge_list((begun.part, given), device, charter, 5)
    assert (found.merged, found.missing) == ((NAMES[1],), (NAMES[2],))
    numbers = load_feature_basis(platform, job).project(person)
    expected = load_label_model(shop, job).recommend(items, {NAMES[1]: numbers}, top=5)
    ids = [federation.catalogue.items[item].item_id for item, _ in expected]
    assert [row.item_id for row in found.rows] == ids
    assert [row.score for row in found.rows] == pytest.approx([score for _, score in expected], abs=1e-6)


def allow_serving(directory: Path, version: int = 2, **serving: Any) -> None:
    """Sign that version of a policy, which serves with consent."""
    path = directory / "policy.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("serving:")]
    text = "\n".join(lines).replace(f"\nversion: {version - 1}", f"\nversion: {version}")
    path.write_text(f"{text}\nserving: {json.dumps({'mode': 'consented_session', **serving})}\n")
    sign_policy(directory, datetime.now(UTC))


def said(node: Node, *words: str) -> bool:
    return any(all(word in line for word in words) for line in node.said().splitlines())


@pytest.mark.timeout(300)
def test_what_recommend_refuses_before_anybody_is_asked(tmp_path: Path) -> None:
    scene = make_serving_scene(tmp_path / "parties", port=free_port())
    desk = Desk(scene, tmp_path)
    token = desk.consent("anna")
    at_label, at_feature = ("--dir", scene.directory(LABEL)), ("--dir", scene.directory(FEATURE))
    word = json.loads(token.read_text())["token"]
    for words, code, said in (
        ((*at_label, "--token", word), 2, "name whose it is"),
        ((*at_label, "--consent", token, "--token", f"{FEATURE}={word}"), 2, f"two tokens of {FEATURE}"),
        ((*at_label, "--token", f"nobody={word}"), 2, "feature silos are"),
        ((*at_label, "--consent", tmp_path / "none.json"), 6, "no token can be read"),
        ((*at_label, "-k", "0"), 2, "a list of 0 items"),
        (at_feature, 6, "at its label silo"),
    ):
        done = typed("recommend", "--user", "anna", *words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    unreachable = desk.recommend("anna", "--consent", token)
    assert unreachable["partners"] == {FEATURE: "unreachable", OTHER: "no token"}
    assert np.isfinite([row["score"] for row in unreachable["items"]]).all()
