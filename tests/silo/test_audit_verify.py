from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from policies.trust import ThresholdError
from privacy.errors import DataError, ExitCode, FindingError
from privacy.events import PureEvent
from privacy.ledger.chain import read_entries
from silo.audit.commands import audit_app
from silo.audit.findings import MEANINGS
from silo.audit.verify import NotAMemberError
from tests.contracts.audited_silo import JOB, ME, NOW, AuditedSilo, make_audited_silo
from tests.contracts.ledger_tools import budget

OTHER_JOB = "f" * 32
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    return original.copy(tmp_path)


def test_an_honest_silo_has_no_findings(silo: AuditedSilo) -> None:
    report = silo.verify()
    assert report.findings == ()
    assert (report.silo, report.entries, report.charges, report.receipts) == (ME, 5, 1, 2)
    assert report.witnessed_seq == 4
    assert report.accepted() is report


def test_verifying_writes_nothing_and_works_while_the_agent_writes(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        head = ledger.head()
        assert silo.codes() == set()
        assert ledger.head() == head
        ledger.open_account("readers", budget(), silo.policy().version * "a" * 64, 1)
        assert silo.codes() == {"policy_digest"}


def test_a_ledger_that_nobody_has_open_is_verified_without_a_trace(silo: AuditedSilo) -> None:
    before = silo.ledger_path.stat()
    os.chmod(silo.directory, 0o500)
    try:
        assert silo.codes() == set()
    finally:
        os.chmod(silo.directory, 0o700)
    assert [item.name for item in silo.directory.glob("ledger.db*")] == ["ledger.db"]
    assert silo.ledger_path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_job_no_peer_has_seen_is_unwitnessed(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        silo.run_job(ledger, OTHER_JOB, witnesses=())
    (found,) = silo.verify().findings
    assert (found.code, found.severity) == ("unwitnessed", "warning")
    assert OTHER_JOB in found.text
    assert "still open" not in found.text


def test_a_running_job_is_unwitnessed_and_says_why(silo: AuditedSilo) -> None:
    event = PureEvent(epsilon=0.01)
    with silo.ledger() as ledger:
        ledger.reserve(
            account="customers",
            job=OTHER_JOB,
            dataset="purchases",
            plan_sha256="e" * 64,
            policy_sha256=ledger.status("customers").policy_sha256,
            requested_by="shop-c",
            events=[(event, 1)],  # type: ignore[list-item]
        )
        assert silo.codes() == set()
        ledger.commit(OTHER_JOB, round=1, attempt=0, event=event)
        (found,) = silo.verify().findings
    assert found.code == "unwitnessed"
    assert "still open" in found.text


def test_one_peer_is_enough_to_witness(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        silo.run_job(ledger, OTHER_JOB, witnesses=("shop-c",))
    assert silo.codes() == set()


def test_a_receipt_in_the_jobs_directory_or_from_a_peer_witnesses_too(
    silo: AuditedSilo, tmp_path: Path
) -> None:
    with silo.ledger() as ledger:
        silo.run_job(ledger, OTHER_JOB, witnesses=())
        receipt = silo.receipt(ledger.head(), job=OTHER_JOB)
    handed_out = tmp_path / "from-shop-b.json"
    handed_out.write_text(json.dumps([receipt.model_dump(mode="json")]))
    assert silo.codes() == {"unwitnessed"}
    assert silo.codes(receipts=[handed_out]) == set()
    shutil.copy(handed_out, silo.directory / "jobs" / OTHER_JOB / "receipts.json")
    assert silo.codes() == set()


def test_a_silo_without_charges_needs_no_witness(silo: AuditedSilo) -> None:
    silo.ledger_path.unlink()
    shutil.rmtree(silo.directory / "jobs")
    silo.ledger().close()
    assert silo.codes() == set()


def test_charter_and_policy_that_expired_since_are_still_who_they_were(silo: AuditedSilo) -> None:
    assert silo.codes(now=datetime(2200, 1, 1, tzinfo=UTC)) == set()


def test_a_renewed_policy_is_followed(silo: AuditedSilo) -> None:
    newer = silo.policy(version=2, epsilon=9.0)
    silo.sign_policy(newer)
    assert silo.codes() == set()
    from policies.canonical import digest

    with silo.ledger() as ledger:
        ledger.open_account("customers", newer.budgets["customers"].to_budget(), digest(newer), 2)
    assert silo.codes() == set()


def test_the_charter_comes_from_the_auditor_and_must_be_signed_by_all(silo: AuditedSilo) -> None:
    signatures = silo.charter_path.with_name("charter.sig.json")
    content = json.loads(signatures.read_text())
    content["signatures"].pop()
    signatures.write_text(json.dumps(content))
    with pytest.raises(ThresholdError):
        silo.verify()


def test_a_silo_the_charter_does_not_know_is_not_verified(silo: AuditedSilo) -> None:
    with pytest.raises(NotAMemberError):
        silo.verify(silo="shop-z")


def test_a_directory_without_a_ledger_is_an_error_not_a_finding(silo: AuditedSilo) -> None:
    silo.ledger_path.unlink()
    with pytest.raises(DataError, match="no log"):
        silo.verify()
    assert not silo.ledger_path.exists()


def test_findings_end_in_a_finding_error(silo: AuditedSilo) -> None:
    (silo.directory / "policy.sig.json").unlink()
    report = silo.verify()
    with pytest.raises(FindingError, match="policy_untrusted"):
        report.accepted()


def test_each_problem_of_a_malformed_policy_is_one_finding_of_one_line(silo: AuditedSilo) -> None:
    path = silo.directory / "policy.yaml"
    text = path.read_text().replace("epsilon: 8.0", "epsilon: -1").replace("min_silos: 3", "min_silos: none")
    path.write_text(text)
    found = [item for item in silo.verify().findings if item.code == "policy_untrusted"]
    assert len(found) == 2
    for item, field in zip(found, ("budgets.customers.epsilon", "accepts.min_silos"), strict=True):
        assert item.where == "policy.yaml"
        assert re.fullmatch(rf"line [0-9]+, {field}: .+", item.text)


def test_every_code_in_the_sources_is_documented_and_the_other_way_round() -> None:
    sources = "".join(
        path.read_text()
        for folder in ("silo/audit", "privacy/ledger")
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    makers = "finding|untrusted|FoldProblem|ChainProblem"
    used = set(re.findall(rf'(?:(?:{makers})\(\s*|code=|CODE: Final = )"(\w+)"', sources))
    assert used == set(MEANINGS)
    page = (ROOT / "docs" / "reference-audit-findings.md").read_text()
    assert set(re.findall(r"^### `(\w+)`", page, re.MULTILINE)) == set(MEANINGS)


class TestCommands:
    def run(self, *arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(audit_app, [str(item) for item in arguments])
        return result.exit_code, result.stdout, result.stderr

    def test_verify_ends_with_0_and_speaks_to_people(self, silo: AuditedSilo) -> None:
        code, out, _ = self.run("verify", "--dir", silo.directory, "--charter", silo.charter_path)
        assert code == ExitCode.OK
        assert "nothing was found" in out

    def test_verify_ends_with_4_and_names_the_finding(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB, witnesses=())
        arguments = ("verify", "--dir", silo.directory, "--charter", silo.charter_path, "--json", "-")
        code, out, err = self.run(*arguments)
        assert code == ExitCode.FINDING
        assert [item["code"] for item in json.loads(out)["findings"]] == ["unwitnessed"]
        assert "warning[unwitnessed] ledger.db entry" in err
        assert "error[finding] shop-a" in err

    def test_verify_without_a_charter_is_a_usage_error(self, silo: AuditedSilo) -> None:
        assert self.run("verify", "--dir", silo.directory)[0] == ExitCode.USAGE

    def test_verify_without_a_ledger_is_a_data_error(self, silo: AuditedSilo) -> None:
        silo.ledger_path.unlink()
        code, _, err = self.run("verify", "--dir", silo.directory, "--charter", silo.charter_path)
        assert code == ExitCode.DATA
        assert "Traceback" not in err

    def test_budget_prints_unit_and_relation_beside_every_epsilon(
        self, silo: AuditedSilo, tmp_path: Path
    ) -> None:
        target = tmp_path / "budget.json"
        code, out, _ = self.run("budget", "--dir", silo.directory, "--json", target)
        content = json.loads(target.read_text())
        (row,) = content["accounts"]
        assert code == ExitCode.OK
        assert (content["unit"], content["neighboring_relation"]) == ("user", "add_or_remove_one")
        assert "user" in out
        assert "add_or_remove_one" in out
        with silo.ledger() as ledger:
            status = ledger.status("customers")
        assert row["spent"] == status.epsilon_spent > 0
        assert row["reserved"] == 0
        assert row["remaining"] == status.epsilon_remaining
        assert (row["epsilon"], row["delta"], row["filter"], row["frozen"]) == (8.0, 1e-5, "zcdp", False)

    def test_ledger_lists_every_entry(self, silo: AuditedSilo) -> None:
        code, out, err = self.run("ledger", "--dir", silo.directory, "--json", "-")
        assert code == ExitCode.OK
        listed = json.loads(out)
        assert [item["hash"] for item in listed] == [entry.hash for entry in read_entries(silo.ledger_path)]
        assert "receipts by shop-b, shop-c" in " ".join(err.split())
        assert JOB[:12] in err
        assert NOW.date().isoformat() in listed[0]["at"]
