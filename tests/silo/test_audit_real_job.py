"""Records that agents really write: nothing is found in them, and what is taken out of them is missed."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from silo.audit.evidence import open_evidence
from silo.audit.export import export_bundle
from silo.audit.replay import replay
from silo.audit.report import make_report
from silo.audit.verify import verify
from silo.site import Site
from tests.contracts.ledger_tools import reseal, tampering
from tests.contracts.small_federation import SmallFederation, in_process, make_small_federation

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    """One finished job of three silos."""
    federation = make_small_federation(tmp_path_factory.mktemp("finished"))

    async def play() -> None:
        async with in_process(federation) as running:
            assert (await running.finish(await running.submit())).outcome == "completed"

    asyncio.run(play())
    return federation


def charter(federation: SmallFederation, silo: str) -> Path:
    return federation.directory(silo) / "charter.yaml"


def test_a_real_record_is_clean_against_peers_and_coordinator(
    finished: SmallFederation, tmp_path: Path
) -> None:
    me, peer, other = finished.names[:3]
    bundles = {
        name: export_bundle(finished.directory(name), tmp_path / f"{name}.zip", now=datetime.now(UTC)).path
        for name in (me, peer)
    }
    trail = finished.parties.hub.directory / "trail.db"
    report = make_report(bundles[me], charter(finished, other), now=datetime.now(UTC))
    assert report.findings == ()
    assert report.replay is not None
    verified = verify(
        bundles[me],
        charter(finished, other),
        now=datetime.now(UTC),
        receipts=[bundles[peer], finished.directory(other)],
        trail=trail,
    )
    assert verified.findings == ()
    assert verified.receipts >= 2
    assert verified.charges >= 1


def test_the_site_kept_the_signed_policy_it_worked_under(finished: SmallFederation) -> None:
    with open_evidence(finished.directory(finished.names[0])) as evidence:
        assert {"policies/1.yaml", "policies/1.sig.json"} <= set(evidence.names())
        assert evidence.read("policies/1.yaml") == evidence.read("policy.yaml")


def test_the_second_accountant_agrees_with_the_model_card(finished: SmallFederation) -> None:
    with open_evidence(finished.directory(finished.names[0])) as evidence:
        assert any(name.endswith("model-card.json") for name in evidence.names())
        found = replay(evidence)
    assert found.findings == ()
    for row in found.rows:
        assert row.claimed is not None
        assert row.pld is not None
        assert row.pld <= row.claimed


def test_a_charge_taken_out_of_a_real_record_is_missed_by_peers_and_trail(
    finished: SmallFederation, tmp_path: Path
) -> None:
    """By the owner, with its identity's key, leaving a whole chain."""
    me, peer = finished.names[:2]
    copy = tmp_path / me
    shutil.copytree(finished.directory(me), copy)
    with Site(copy) as site:
        identity = site.party.identity
    with tampering(copy / "ledger.db") as connection:
        connection.execute("DELETE FROM entries WHERE kind = 'committed'")
        connection.execute("UPDATE entries SET seq = seq + 1000")
        reseal(connection, identity.sign_raw, identity.key_id)
    for receipts in (copy / "jobs").glob("*/receipts.json"):
        receipts.unlink()
    trail = finished.parties.hub.directory / "trail.db"
    found = verify(
        copy,
        charter(finished, peer),
        now=datetime.now(UTC),
        receipts=[finished.directory(peer)],
        trail=trail,
    )
    codes = {item.code for item in found.findings}
    assert {"receipt_contradicted", "contribution_uncharged", "accounts_differ"} <= codes
    assert not codes & {"entry_altered", "entry_signature", "chain_broken", "entry_missing"}
