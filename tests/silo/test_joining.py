"""``archipel silo join``: what it says of the policy is what stands in the directory afterwards."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import app
from policies.freezing import write_freeze
from policies.passphrases import protect
from policies.verification import verify_policy
from tests.contracts.audited_silo import AuditedSilo, make_audited_silo

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    """Its policy is of a newer version that nobody signed yet; the kept ones are forgotten."""
    silo = original.copy(tmp_path / "copy")
    path = silo.directory / "policy.yaml"
    path.write_text(
        path.read_text().replace("2027-01-01", "2099-01-01").replace("\nversion: 1", "\nversion: 2")
    )
    return silo


def join(silo: AuditedSilo, *options: object, code: int = 0) -> Result:
    words = ["silo", "join", silo.charter_path, "--dir", silo.directory, *options]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def told(silo: AuditedSilo, *options: object) -> dict[str, Any]:
    return dict(json.loads(join(silo, *options, "--json", "-").stdout))


def num_signers(silo: AuditedSilo) -> int:
    return len(verify_policy(silo.directory, datetime.now(UTC)).signers)


def behind_a_passphrase(silo: AuditedSilo) -> Path:
    protect(silo.directory / "keys" / "administrator.pem", SECRET.encode())
    path = silo.root / "passphrase"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_joining_signs_with_the_key_at_hand(silo: AuditedSilo) -> None:
    result = join(silo)
    assert "policy.yaml version 2 is signed." in result.stdout
    assert "Next: archipel silo run" in result.stdout
    assert num_signers(silo) == 1


def test_a_key_behind_a_passphrase_that_nobody_gave_signs_nothing_and_that_is_said(silo: AuditedSilo) -> None:
    behind_a_passphrase(silo)
    result = join(silo)
    assert "policy.yaml version 2 is not signed: 0 of 1 signatures." in result.stdout
    assert "archipel policy sign" in result.stdout
    assert "silo run" not in result.stdout
    assert num_signers(silo) == 0
    assert told(silo)["signed"] is False


def test_with_its_passphrase_it_signs(silo: AuditedSilo) -> None:
    path = behind_a_passphrase(silo)
    assert told(silo, "--passphrase-file", path)["signed"] is True
    assert num_signers(silo) == 1


def test_a_wrong_passphrase_does_nothing(silo: AuditedSilo) -> None:
    path = behind_a_passphrase(silo)
    path.write_text("battery horse correct\n")
    before = sorted(silo.directory.iterdir())
    result = join(silo, "--passphrase-file", path, code=8)
    assert "error[passphrase]" in result.stderr
    assert sorted(silo.directory.iterdir()) == before


def test_a_key_that_is_kept_elsewhere_signs_nothing_and_that_is_said(silo: AuditedSilo) -> None:
    (silo.directory / "keys" / "administrator.pem").unlink()
    assert "is not signed: 0 of 1 signatures" in join(silo).stdout


def test_while_frozen_it_says_so(silo: AuditedSilo) -> None:
    join(silo)
    key = silo.federation.parties["shop-a"].administrator
    assert key is not None
    write_freeze(silo.directory, datetime.now(UTC), silo="shop-a", key=key)
    result = join(silo)
    assert "the agent takes no new job until a policy of version 3 or later is signed" in result.output
    assert told(silo)["frozen"] is True


def test_a_freeze_whose_file_was_removed_is_still_said(silo: AuditedSilo) -> None:
    key = silo.federation.parties["shop-a"].administrator
    assert key is not None
    join(silo)
    write_freeze(silo.directory, datetime.now(UTC), silo="shop-a", key=key)
    for name in ("freeze.yaml", "freeze.sig.json"):
        (silo.directory / name).rename(silo.directory / "policies" / name)
    assert told(silo)["frozen"] is True


def test_a_policy_that_the_agent_will_refuse_is_said(silo: AuditedSilo) -> None:
    kept = silo.directory / "policies"
    for suffix in (".yaml", ".sig.json"):
        (kept / f"1{suffix}").rename(kept / f"7{suffix}")
    assert "the agent will not take this policy: [rollback]" in join(silo).output
