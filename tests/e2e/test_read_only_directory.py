"""A silo's directory on a medium that cannot be written: what reads works, what writes says so with 7."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from privacy.errors import ExitCode
from tests.contracts.audited_silo import AuditedSilo, make_audited_silo
from tests.contracts.small_federation import ROOT, command

pytestmark = pytest.mark.e2e

UNSHARE = shutil.which("unshare")
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
CAN_MOUNT = (
    UNSHARE is not None
    and subprocess.run([UNSHARE, "-m", "true"], check=False, capture_output=True).returncode == 0
)


@pytest.fixture
def silo(tmp_path: Path) -> AuditedSilo:
    return make_audited_silo(tmp_path)


def on_read_only(silo: AuditedSilo, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, in a mount namespace of its own where the silo's directory cannot be written."""
    assert UNSHARE is not None
    return subprocess.run(
        [UNSHARE, "-m", "sh", "-c", MOUNT, silo.directory, *command(*words, "--dir", silo.directory)],
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip


def contents(silo: AuditedSilo) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in silo.directory.rglob("*") if path.is_file()}


@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount in a namespace of its own")
def test_auditors_read_and_administrators_are_told_what_cannot_be_written(
    silo: AuditedSilo, tmp_path: Path
) -> None:
    before = contents(silo)
    verified = on_read_only(silo, "audit", "verify", "--charter", silo.charter_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert on_read_only(silo, "audit", "export", "--out", tmp_path / "bundle.zip").returncode == 0

    writing: dict[str, tuple[str | Path, ...]] = {
        "freeze.yaml": ("policy", "freeze"),
        "b.zip": ("audit", "export", "--out", silo.directory / "b.zip"),
        "paused": ("silo", "pause"),
    }
    for name, words in writing.items():
        told = on_read_only(silo, *words)
        assert told.returncode == ExitCode.HOST, told.stderr
        assert f"{silo.directory / name}: the file system is read-only" in told.stderr
        assert "how to mend: " in told.stderr
    assert contents(silo) == before


@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount in a namespace of its own")
def test_an_agent_that_could_not_charge_does_not_start(silo: AuditedSilo) -> None:
    silo.federation.install_charter()
    before = contents(silo)
    for words in (("silo", "run"), ("silo", "status")):
        told = on_read_only(silo, *words)
        assert told.returncode == ExitCode.HOST, told.stderr
        assert "error[log_storage]" in told.stderr
        assert "the file or its directory is read-only" in told.stderr
    assert contents(silo) == before
