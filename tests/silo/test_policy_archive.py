from __future__ import annotations

import os
from pathlib import Path

import pytest

from policies.files import SignedFile
from silo.policy_archive import keep_policy


def signed(content: bytes = b"policy", signatures: bytes = b"{}") -> SignedFile:
    return SignedFile(Path("policy.yaml"), content, signatures)


def test_every_version_is_kept_as_it_was_signed(tmp_path: Path) -> None:
    keep_policy(tmp_path, 1, signed(b"first", b"one"))
    keep_policy(tmp_path, 2, signed(b"second", b"two"))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "policies").iterdir()}
    assert kept == {"1.yaml": b"first", "1.sig.json": b"one", "2.yaml": b"second", "2.sig.json": b"two"}


def test_what_is_kept_is_not_written_again(tmp_path: Path) -> None:
    keep_policy(tmp_path, 1, signed())
    os.utime(tmp_path / "policies" / "1.yaml", (0, 0))
    keep_policy(tmp_path, 1, signed())
    assert (tmp_path / "policies" / "1.yaml").stat().st_mtime == 0


@pytest.mark.parametrize("later", [signed(b"mended"), signed(signatures=b"{more}")])
def test_a_version_that_nothing_rests_on_yet_follows_what_is_trusted(
    tmp_path: Path, later: SignedFile
) -> None:
    keep_policy(tmp_path, 1, signed())
    keep_policy(tmp_path, 1, later)
    assert (tmp_path / "policies" / "1.yaml").read_bytes() == later.content
    assert (tmp_path / "policies" / "1.sig.json").read_bytes() == later.signatures
