"""An amendment is rolled out while coordinator and agents run: nobody starts anything again.

shop-a gets another TLS key, shop-b another administrator; then a job runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federation.identity import Party
from federation.rounds import Phase
from policies.signing import PrivateKey
from privacy.errors import ExitCode
from privacy.ledger.chain import LogReader
from privacy.ledger.fold import Fold
from silo.audit.verify import verify
from silo.site import utc_now
from tests.contracts.small_federation import (
    SmallFederation,
    make_small_federation,
    nodes,
    state_on_disk,
    submit,
    wait_until,
)
from tests.support.nursery import typed

pytestmark = pytest.mark.e2e


def run(*words: str | Path, code: int = 0) -> str:
    done = typed(*words)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def draft_and_sign(federation: SmallFederation, *cards: Path) -> Path:
    draft = federation.root / "amendment" / "charter.yaml"
    named = [word for card in cards for word in ("--member", card)]
    run("charter", "amend", *named, "--out", draft, "--dir", federation.directory("shop-c"))
    for name in federation.names:
        said = run("charter", "sign", draft, "--dir", federation.directory(name))
    assert "agreed to" in said
    return draft


def test_amendment_with_another_key_while_everything_runs(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path)
    auditor = federation.root / "auditor"
    auditor.mkdir()
    hub = federation.parties.hub.directory
    for name in ("charter.yaml", "charter.sig.json"):
        (auditor / name).write_bytes((hub / name).read_bytes())
    shop_a, shop_b = federation.directory("shop-a"), federation.directory("shop-b")
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        wait_until(lambda: all("connected" in running[name].said() for name in federation.names))

        before = Party.load(shop_a).tls.certificate_sha256
        said = run("silo", "rekey", "--dir", shop_a)
        assert "card-next.json" in said
        assert run("silo", "rekey", "--dir", shop_a) == said, "asking again makes no third key"
        assert Party.load(shop_a).tls.certificate_sha256 == before
        fresh = PrivateKey.generate()
        fresh.save(federation.root / "ada.pem")
        run("policy", "administrators", "--key", str(fresh.public_key), "--dir", shop_b)
        draft = draft_and_sign(federation, shop_a / "card-next.json", shop_b / "card.json")

        for name in federation.names:
            run("silo", "join", draft, "--dir", federation.directory(name))
        assert Party.load(shop_a).tls.certificate_sha256 != before
        assert not (shop_a / "card-next.json").exists()
        wait_until(lambda: "coordinator_behind" in running["shop-a"].said())
        assert "under another version of the charter" in run(
            "silo", "status", "--dir", federation.directory("shop-c")
        )
        run("charter", "install", draft, "--dir", hub)
        wait_until(
            lambda: all(running[name].said().count("event=connected") > 1 for name in federation.names)
        )

        run("policy", "sign", "--key", federation.root / "ada.pem", "--dir", shop_b)
        job = submit(federation, by="shop-c")
        wait_until(
            lambda: (state := state_on_disk(federation, job)) is not None and state.phase is Phase.ENDED
        )
        state = state_on_disk(federation, job)
        assert state is not None
        assert state.outcome == "completed"
        notes = [federation.directory(name) / "jobs" / job / "state.json" for name in federation.names]
        wait_until(lambda: all(json.loads(note.read_text()).get("finished") for note in notes))
        assert all(node.poll() is None for node in running.values()), "somebody had to start again"
        assert all(node.end() == ExitCode.OK for node in running.values())

    for name in federation.names:
        report = verify(federation.directory(name), auditor / "charter.yaml", now=utc_now())
        assert report.findings == ()
        with LogReader.open(federation.directory(name) / "ledger.db") as reader:
            fold, problems = Fold.of(reader.entries())
        assert problems == ()
        assert [item.record.charter_version for item in fold.charters] == [1, 2]
