"""``archipel silo checkpoint add``, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from federation.identity import make_party
from privacy.errors import ExitCode
from silo.checkpoints import find_checkpoint, save_checkpoint
from silo.commands import silo_app


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    make_party(tmp_path / "shop", "shop-a", "silo")
    return tmp_path / "shop"


def test_a_checkpoint_is_checked_and_kept(shop: Path, tmp_path: Path) -> None:
    sha256 = save_checkpoint(tmp_path / "weights", {"w": np.ones(3)}, family="autoencoder")
    words = ["checkpoint", "add", str(tmp_path / "weights"), "--dir", str(shop), "--json", "-"]
    result = CliRunner().invoke(silo_app, words)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["sha256"] == sha256
    assert find_checkpoint(shop, sha256) == shop / "checkpoints" / f"{sha256}.safetensors"
    assert f"start_from: {sha256}" in result.stderr


def test_what_is_no_checkpoint_is_refused_with_its_code(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"print('hello')")
    result = CliRunner().invoke(
        silo_app, ["checkpoint", "add", str(tmp_path / "weights"), "--dir", str(shop)]
    )
    assert result.exit_code == ExitCode.DATA
    assert "tensor_file" in result.stderr
    assert not (shop / "checkpoints").exists()
