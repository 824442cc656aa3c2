"""An owner with every key of its own, against what peers, the coordinator and an auditor's cupboard hold."""

from __future__ import annotations

import json
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policies.canonical import digest
from policies.files import save_yaml
from policies.plans.price import reserved_events
from policies.silo_policy import SiloPolicy
from privacy.ledger.chain import ChainLog, Head, read_entries
from privacy.ledger.ledger import Ledger
from silo.audit.export import export_bundle
from silo.audit.receipts import load_receipts
from tests.contracts.audited_silo import JOB, ME, NOW, AuditedSilo, make_audited_silo
from tests.contracts.ledger_tools import reseal, tampering

OTHER_JOB = "f" * 32


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    copy = original.copy(tmp_path)
    assert copy.codes() == set()
    return copy


def places(silo: AuditedSilo, code: str) -> list[str]:
    return [finding.where for finding in silo.verify().findings if finding.code == code]


class TestOwnerSignsEverythingAnew:
    """The owner rewrites what was spent and signs it all again, tables and own receipts included."""

    def rewrite(self, silo: AuditedSilo) -> None:
        """As if the charge had never been: a shorter history that is whole in itself."""
        shutil.rmtree(silo.directory / "jobs")
        for suffix in ("", "-wal", "-shm"):
            silo.ledger_path.with_name(silo.ledger_path.name + suffix).unlink(missing_ok=True)
        policy = silo.policy()
        with silo.ledger() as ledger:
            ledger.open_account("customers", policy.budgets["customers"].to_budget(), digest(policy), 1)
            silo.run_job(ledger, OTHER_JOB, witnesses=())
            ledger.release_rest(OTHER_JOB)

    @pytest.fixture
    def of_peer(self, silo: AuditedSilo) -> Path:
        """What shop-b holds: its own directory with the receipts of the job, exported."""
        kept = silo.root / "shop-b" / "jobs" / JOB
        kept.mkdir(parents=True)
        shutil.copy(silo.directory / "jobs" / JOB / "receipts.json", kept)
        key = silo.key("shop-b")
        Ledger.open(silo.root / "shop-b" / "ledger.db", sign=key.sign_raw, key_id=key.key_id).close()
        return export_bundle(silo.root / "shop-b", silo.root / "shop-b.zip", now=NOW).path

    def test_alone_it_looks_like_a_ledger_nobody_has_witnessed(self, silo: AuditedSilo) -> None:
        self.rewrite(silo)
        assert silo.codes() == {"unwitnessed"}

    def test_a_peers_receipts_contradict_it(self, silo: AuditedSilo, of_peer: Path) -> None:
        self.rewrite(silo)
        assert silo.codes(receipts=[of_peer]) == {"receipt_contradicted", "unwitnessed"}

    def test_a_peers_directory_does_as_well(self, silo: AuditedSilo, of_peer: Path) -> None:
        self.rewrite(silo)
        assert "receipt_contradicted" in silo.codes(receipts=[silo.root / "shop-b"])

    def test_a_peers_ledger_alone_does_as_well(self, silo: AuditedSilo, of_peer: Path) -> None:
        """Receipts are entries of every member's ledger, not only files beside it."""
        receipts = load_receipts(silo.directory / "jobs" / JOB / "receipts.json")
        key = silo.key("shop-b")
        path = silo.root / "shop-b" / "ledger.db"
        with Ledger.open(path, sign=key.sign_raw, key_id=key.key_id) as ledger:
            ledger.witness(JOB, receipts)
        shutil.rmtree(silo.root / "shop-b" / "jobs")
        self.rewrite(silo)
        assert "receipt_contradicted" in silo.codes(receipts=[silo.root / "shop-b"])

    def test_an_auditors_earlier_bundle_contradicts_it_without_any_peer(self, silo: AuditedSilo) -> None:
        earlier = export_bundle(silo.directory, silo.root / "earlier.zip", now=NOW).path
        self.rewrite(silo)
        assert silo.codes(earlier=earlier) == {"history_changed", "unwitnessed"}

    def test_an_earlier_bundle_that_goes_further_shows_the_missing_end(self, silo: AuditedSilo) -> None:
        earlier = export_bundle(silo.directory, silo.root / "earlier.zip", now=NOW).path
        silo.ledger_path.unlink()
        shutil.rmtree(silo.directory / "jobs")
        silo.ledger().close()
        assert silo.codes(earlier=earlier) == {"ledger_truncated"}

    def test_two_histories_for_two_peers(self, silo: AuditedSilo) -> None:
        """shop-b countersigned one entry 4, shop-c another; each alone would fit its own copy."""
        handed_out = silo.root / "shop-c.json"
        other = silo.receipt(Head(4, "9" * 64), by="shop-c")
        handed_out.write_text(json.dumps([other.model_dump(mode="json")]))
        assert silo.codes(receipts=[handed_out]) == {"ledger_forked", "receipt_contradicted"}


class TestPolicyInForce:
    """What the signed versions in ``policies/`` say of each entry."""

    def renew(self, silo: AuditedSilo, version: int = 2, **changes: Any) -> SiloPolicy:
        newer = silo.policy(version=version, epsilon=9.0).model_copy(update=changes)
        silo.sign_policy(newer)
        with silo.ledger() as ledger:
            ledger.open_account("customers", newer.budgets["customers"].to_budget(), digest(newer), version)
        return newer

    def test_every_version_is_followed(self, silo: AuditedSilo) -> None:
        self.renew(silo, 2)
        self.renew(silo, 3)
        assert silo.codes() == set()

    @pytest.mark.parametrize("name", ["1.yaml", "1.sig.json"])
    def test_a_superseded_version_that_was_not_kept(self, silo: AuditedSilo, name: str) -> None:
        self.renew(silo)
        (silo.directory / "policies" / name).unlink()
        assert "policy_unproven" in silo.codes()

    def test_a_superseded_version_altered_to_justify_a_budget(self, silo: AuditedSilo) -> None:
        self.renew(silo)
        path = silo.directory / "policies" / "1.yaml"
        path.write_text(path.read_text().replace("epsilon: 8.0", "epsilon: 80.0"))
        assert {"policy_untrusted", "policy_unproven"} <= silo.codes()

    def test_a_superseded_version_under_another_number(self, silo: AuditedSilo) -> None:
        self.renew(silo)
        for suffix in (".yaml", ".sig.json"):
            (silo.directory / "policies" / f"1{suffix}").rename(silo.directory / "policies" / f"7{suffix}")
        assert silo.codes() == {"policy_untrusted"}

    def test_a_budget_that_the_superseded_version_did_not_give(self, silo: AuditedSilo) -> None:
        newer = silo.policy(version=2)
        silo.sign_policy(newer)
        terms = {
            "account": "customers",
            "budget": silo.policy(epsilon=50.0).budgets["customers"].to_budget().model_dump(mode="json"),
            "policy_sha256": digest(newer),
            "policy_version": 2,
        }
        with silo.log() as log:
            log.append("budget_changed", terms)
        silo.sign_policy(silo.policy(version=3))
        assert "budget_differs" in silo.codes()

    def test_terms_and_a_job_after_the_last_day(self, silo: AuditedSilo) -> None:
        newer = self.renew(silo, expires=date(2026, 5, 30))
        with silo.ledger() as ledger:
            ledger.reserve(
                account="customers",
                job=OTHER_JOB,
                dataset="purchases",
                plan_sha256="e" * 64,
                policy_sha256=digest(newer),
                requested_by="shop-b",
                events=reserved_events(silo.plan),
            )
        assert places(silo, "policy_expired") == ["ledger.db entry 6", "ledger.db entry 7"]

    @pytest.mark.parametrize(
        ("accepts", "reason"),
        [
            ({"with_members": ("shop-b",)}, "member_not_accepted"),
            ({"max_epsilon_per_plan": 1.0}, "epsilon_too_high"),
            ({"min_colluding_silos": 2}, "collusion_not_covered"),
            ({"purposes": {}}, "dataset"),
        ],
    )
    def test_a_plan_that_the_policy_would_have_denied(
        self, silo: AuditedSilo, accepts: dict[str, Any], reason: str
    ) -> None:
        """The owner reserved all the same; plan, policy, digests and charges fit each other."""
        strict = silo.policy().model_copy(
            update={"accepts": silo.policy().accepts.model_copy(update=accepts), "version": 2}
        )
        silo.sign_policy(strict)
        kept = silo.directory / "jobs" / OTHER_JOB
        kept.mkdir()
        save_yaml(kept / "plan.yaml", silo.plan)
        with silo.ledger() as ledger:
            ledger.open_account("customers", strict.budgets["customers"].to_budget(), digest(strict), 2)
            ledger.reserve(
                account="customers",
                job=OTHER_JOB,
                dataset="purchases",
                plan_sha256=digest(silo.plan),
                policy_sha256=digest(strict),
                requested_by="shop-b",
                events=reserved_events(silo.plan),
            )
        found = [item for item in silo.verify().findings if item.code == "policy_denies"]
        assert len(found) == 1
        assert reason in found[0].text


class TestClockOfEntries:
    def at(self, silo: AuditedSilo, *moments: datetime) -> set[str]:
        """Entries at these moments, written around the ledger."""
        terms = json.loads(json.dumps(next(iter(read_entries(silo.ledger_path))).payload))
        key = silo.key()
        for number, moment in enumerate(moments):
            log = ChainLog.open(
                silo.ledger_path, sign=key.sign_raw, key_id=key.key_id, clock=lambda at=moment: at
            )
            with log:
                log.append("account_opened", terms | {"account": f"readers-{number}"})
        found = silo.codes()
        assert found <= {"clock_back", "clock_ahead", "accounts_differ", "budget_differs", "entry_unknown"}
        return found - {"accounts_differ", "budget_differs"}

    def test_a_few_minutes_back_are_no_matter(self, silo: AuditedSilo) -> None:
        assert self.at(silo, NOW - timedelta(minutes=9)) == set()

    def test_set_back(self, silo: AuditedSilo) -> None:
        assert self.at(silo, NOW - timedelta(minutes=11)) == {"clock_back"}
        assert places(silo, "clock_back") == ["ledger.db entry 6"]

    def test_still_to_come(self, silo: AuditedSilo) -> None:
        later = NOW + timedelta(hours=1)
        assert self.at(silo, later, later + timedelta(hours=1)) == {"clock_ahead"}
        assert places(silo, "clock_ahead") == ["ledger.db entry 6"]

    @pytest.mark.parametrize("text", ["yesterday", "2026-06-01T00:00:00"])
    def test_no_time_at_all(self, silo: AuditedSilo, text: str) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("UPDATE entries SET at = ? WHERE seq = 5", (text,))
            reseal(connection, silo.key().sign_raw, silo.key().key_id)
        assert places(silo, "entry_unknown") == ["ledger.db entry 5"]


class TestCoordinatorsTrail:
    """A contribution that arrived and was never charged."""

    @pytest.fixture
    def trail(self, silo: AuditedSilo) -> Path:
        return self.written(silo, JOB, attempts=(0,))

    def written(self, silo: AuditedSilo, job: str, *, attempts: tuple[int, ...], signer: str = "hub") -> Path:
        path = silo.root / "trail.db"
        key = silo.key(signer)
        with ChainLog.open(path, sign=key.sign_raw, key_id=key.key_id, clock=lambda: NOW) as log:
            for number, attempt in enumerate(attempts):
                for sender in (ME, "shop-b"):
                    place = {"job": job, "round": 1, "attempt": attempt, "sender": sender}
                    log.append("accepted", place | {"post": number, "kind": "stream", "sha256": "0" * 64})
            log.append("refused", {"party": ME, "code": "stale_post", "what": "x"})
        return path

    def test_every_contribution_was_charged(self, silo: AuditedSilo, trail: Path) -> None:
        assert silo.codes(trail=trail) == set()

    def test_a_contribution_without_a_charge(self, silo: AuditedSilo) -> None:
        trail = self.written(silo, JOB, attempts=(0, 1))
        (found,) = silo.verify(trail=trail).findings
        assert (found.code, found.where) == ("contribution_uncharged", "trail.db entry 3")
        assert "attempt 1" in found.text

    def test_a_contribution_of_a_job_the_ledger_never_heard_of(self, silo: AuditedSilo) -> None:
        trail = self.written(silo, OTHER_JOB, attempts=(0,))
        assert silo.codes(trail=trail) == {"contribution_uncharged", "trail_incomplete"}

    def test_a_trail_without_a_job_that_peers_saw_the_end_of(self, silo: AuditedSilo) -> None:
        trail = self.written(silo, JOB, attempts=())
        assert silo.codes(trail=trail) == {"trail_incomplete"}

    def test_a_trail_that_somebody_else_signed(self, silo: AuditedSilo) -> None:
        trail = self.written(silo, JOB, attempts=(0,), signer=ME)
        assert silo.codes(trail=trail) == {"trail_broken"}

    def test_a_trail_with_an_entry_taken_out(self, silo: AuditedSilo, trail: Path) -> None:
        with tampering(trail) as connection:
            connection.execute("DELETE FROM entries WHERE seq = 1")
        assert "trail_broken" in silo.codes(trail=trail)

    def test_a_file_that_is_no_trail(self, silo: AuditedSilo) -> None:
        path = silo.root / "trail.db"
        path.write_bytes(b"no database at all" * 400)
        assert {"trail_broken"} <= silo.codes(trail=path)
