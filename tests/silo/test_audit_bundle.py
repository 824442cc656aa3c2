from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privacy.errors import ExitCode
from privacy.ledger.chain import COLUMNS, LogReader
from silo.audit.bundle import ENTRIES, MANIFEST
from silo.audit.commands import audit_app
from silo.audit.evidence import open_evidence
from silo.audit.export import BundleExistsError, export_bundle
from silo.audit.replay import replay
from silo.audit.spending import overview
from silo.audit.verify import verify
from tests.contracts.audited_silo import JOB, ME, NOW, AuditedSilo, make_audited_silo

OTHER_JOB = "f" * 32


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    return original.copy(tmp_path)


def export(silo: AuditedSilo, name: str = "bundle.zip") -> Path:
    return export_bundle(silo.directory, silo.root / name, now=NOW).path


def put_secrets_everywhere(silo: AuditedSilo) -> bytes:
    """What a working agent's directory holds besides the record; every file of it says the same word."""
    secret = b"nobody-outside-may-read-this"
    job = silo.directory / "jobs" / JOB
    for path in (
        silo.directory / "rows.csv",
        silo.directory / "agent.toml",
        silo.directory / "opt-outs.csv",
        silo.directory / "policies" / "notes.txt",
        silo.directory / "policies" / "1.yaml.bak",
        silo.directory / "outbox" / "outbox.db",
        silo.directory / "logs" / "agent.log",
        silo.directory / "checkpoints" / f"{'a' * 64}.safetensors",
        silo.directory / "data" / "purchases.parquet",
        job / "model.safetensors",
        job / "checkpoint.safetensors",
        job / "state.safetensors",
        job / "state.json",
        job / "rows.json",
        job / "denial.json",
        job / "progress.jsonl",
        job / "more" / "plan.yaml",
        silo.directory / "jobs" / "not a job!" / "plan.yaml",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(secret)
    (job / "model-card.json").write_text('{"kind": "ModelCard"}')
    return secret


def test_a_bundle_holds_the_record_and_nothing_else(silo: AuditedSilo) -> None:
    secret = put_secrets_everywhere(silo)
    with zipfile.ZipFile(export(silo)) as archive:
        names = archive.namelist()
        content = b"".join(archive.read(name) for name in names)
    assert sorted(names) == sorted(
        [
            MANIFEST,
            ENTRIES,
            "card.json",
            "policy.yaml",
            "policy.sig.json",
            "policies/1.yaml",
            "policies/1.sig.json",
            f"jobs/{JOB}/plan.yaml",
            f"jobs/{JOB}/policy.json",
            f"jobs/{JOB}/receipts.json",
            f"jobs/{JOB}/model-card.json",
        ]
    )
    assert secret not in content
    assert b"PRIVATE KEY" not in content
    for key in (silo.directory / "keys").glob("*.pem"):
        assert key.read_bytes() not in content


def test_what_a_link_leads_to_is_not_exported(silo: AuditedSilo, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("of somebody else")
    (silo.directory / "jobs" / JOB / "model-card.json").symlink_to(outside)
    with zipfile.ZipFile(export(silo)) as archive:
        assert f"jobs/{JOB}/model-card.json" not in archive.namelist()


def test_the_entries_are_exported_to_the_letter(silo: AuditedSilo) -> None:
    with LogReader.open(silo.ledger_path) as reader:
        rows = list(reader.rows())
    with zipfile.ZipFile(export(silo)) as archive:
        lines = archive.read(ENTRIES).splitlines()
    assert [tuple(json.loads(line)[name] for name in COLUMNS) for line in lines] == rows


def test_an_outsider_verifies_it_with_nothing_but_the_charter(silo: AuditedSilo) -> None:
    bundle = export(silo)
    of_directory = silo.verify()
    for name in ("keys", "ledger.db", "policies", "jobs"):
        (silo.directory / name).rename(silo.root / f"gone-{name}")
    report = verify(bundle, silo.charter_path, now=NOW)
    assert report == of_directory
    assert report.findings == ()


def test_a_directory_and_its_bundle_say_the_same_of_everything(silo: AuditedSilo) -> None:
    with open_evidence(silo.directory) as directory, open_evidence(export(silo)) as bundle:
        assert overview(directory) == overview(bundle)
        assert [row.model_dump() for row in replay(directory).rows] == [
            row.model_dump() for row in replay(bundle).rows
        ]
        assert directory.names() == bundle.names()
        assert all(directory.read(name) == bundle.read(name) for name in directory.names())


def test_findings_are_the_same_in_the_bundle(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        silo.run_job(ledger, OTHER_JOB, witnesses=())
    found = verify(export(silo), silo.charter_path, now=NOW).findings
    assert [item.code for item in found] == ["unwitnessed"]
    assert found[0].where.startswith("entries.jsonl entry")
    assert found[0].page == "docs/reference-audit-findings.md#unwitnessed"


def test_exporting_works_while_the_agent_writes_and_never_overwrites(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        head = ledger.head()
        bundle = export(silo)
        assert ledger.head() == head
        with pytest.raises(BundleExistsError):
            export(silo)
        silo.run_job(ledger, OTHER_JOB)
    assert verify(bundle, silo.charter_path, now=NOW).entries == head.seq
    assert [path.name for path in silo.root.glob(".bundle*")] == []
    assert bundle.stat().st_mode & 0o077 == 0


def test_an_export_that_fails_leaves_nothing(silo: AuditedSilo) -> None:
    (silo.directory / "card.json").unlink()
    with pytest.raises(Exception, match=r"card\.json|no such file"):
        export(silo)
    assert list(silo.root.glob("*bundle*")) == []


class TestEarlierBundle:
    def test_a_ledger_that_only_grew_is_as_it_was(self, silo: AuditedSilo) -> None:
        earlier = export(silo)
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB)
        assert silo.codes(earlier=earlier) == set()

    def test_an_earlier_bundle_of_another_silo_is_refused(self, silo: AuditedSilo) -> None:
        earlier = export(silo)
        with pytest.raises(Exception, match="not of shop-b"):
            verify(silo.directory, silo.charter_path, now=NOW, silo="shop-b", earlier=earlier)


class TestCommands:
    def run(self, *arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(audit_app, [str(item) for item in arguments])
        return result.exit_code, result.stdout, result.stderr

    def test_every_command_takes_a_bundle(self, silo: AuditedSilo) -> None:
        target = silo.root / "out.zip"
        code, out, _ = self.run("export", "--dir", silo.directory, "--out", target)
        assert code == ExitCode.OK
        assert "SHA-256" in out
        for arguments in (
            ("verify", target, "--charter", silo.charter_path),
            ("budget", target),
            ("ledger", target),
            ("replay", target),
        ):
            assert self.run(*arguments)[0] == ExitCode.OK, arguments

    def test_the_hash_it_prints_is_that_of_the_file(self, silo: AuditedSilo) -> None:
        import hashlib

        target = silo.root / "out.zip"
        _, out, _ = self.run("export", "--dir", silo.directory, "--out", target, "--json", "-")
        assert json.loads(out)["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
        assert json.loads(out)["silo"] == ME

    def test_an_existing_file_is_a_usage_error(self, silo: AuditedSilo) -> None:
        target = silo.root / "out.zip"
        target.write_text("mine")
        code, _, err = self.run("export", "--dir", silo.directory, "--out", target)
        assert code == ExitCode.USAGE
        assert "bundle_exists" in err
        assert target.read_text() == "mine"

    def test_a_path_with_nothing_there_is_a_data_error(self, silo: AuditedSilo) -> None:
        assert self.run("budget", silo.root / "gone.zip")[0] == ExitCode.DATA
