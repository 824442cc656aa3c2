"""Weights are named by their digest; a file that is anything else is refused before a table is made of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as raw_safetensors

from silo import tensor_files
from silo.checkpoints import (
    FILE_NAME,
    CheckpointMissingError,
    add_checkpoint,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from silo.tensor_files import MAX_TABLES, TensorFileError, load_tables, save_tables

WEIGHTS = {
    "a.weight": np.arange(6.0).reshape(2, 3),
    "step": np.array(3.0),
    "catalogue": np.arange(4, dtype=np.uint8),
}


def test_the_same_weights_are_the_same_bytes_whatever_their_order(tmp_path: Path) -> None:
    one = save_checkpoint(tmp_path / "one", WEIGHTS, family="autoencoder")
    other = save_checkpoint(tmp_path / "two", dict(reversed(WEIGHTS.items())), family="autoencoder")
    assert one == other == hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest()
    assert one != save_checkpoint(tmp_path / "three", WEIGHTS | {"step": np.array(4.0)}, family="autoencoder")
    loaded = load_checkpoint(tmp_path / "one")
    assert {name: (table.shape, table.dtype) for name, table in loaded.items()} == {
        name: (table.shape, table.dtype) for name, table in WEIGHTS.items()
    }
    assert all(np.array_equal(loaded[name], WEIGHTS[name]) for name in WEIGHTS)


def test_a_checkpoint_is_found_among_jobs_and_among_what_was_added(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "j" / FILE_NAME
    job.parent.mkdir(parents=True)
    sha256 = save_checkpoint(job, WEIGHTS, family="autoencoder")
    assert find_checkpoint(tmp_path, sha256) == job
    with pytest.raises(CheckpointMissingError, match="no checkpoint"):
        find_checkpoint(tmp_path, "0" * 64)
    added, path = add_checkpoint(tmp_path, job)
    job.unlink()
    assert (added, find_checkpoint(tmp_path, sha256)) == (sha256, path)
    path.write_bytes(path.read_bytes()[:-1] + b"!")  # another file under the old name is not the checkpoint
    with pytest.raises(CheckpointMissingError):
        find_checkpoint(tmp_path, sha256)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no tensors",
        raw_safetensors({"a": np.zeros(2)}),
        raw_safetensors({"a": np.zeros(2)}, {"archipel": "{"}),
        raw_safetensors({"a": np.zeros(2)}, {"archipel": '["archipel-checkpoint/v1"]'}),
        raw_safetensors({"a": np.zeros(2)}, {"archipel": '{"kind": "archipel-training-state/v1"}'}),
        raw_safetensors({"a": np.zeros(2)}, {"archipel": "[" * 200_000}),
        raw_safetensors({"a": np.zeros(2, np.float16)}, {"archipel": '{"kind": "archipel-checkpoint/v1"}'}),
        raw_safetensors({"a": np.array([np.nan])}, {"archipel": '{"kind": "archipel-checkpoint/v1"}'}),
        raw_safetensors({"a": np.array([np.inf])}, {"archipel": '{"kind": "archipel-checkpoint/v1"}'}),
        raw_safetensors(
            {f"t{number}": np.zeros(1) for number in range(MAX_TABLES + 1)},
            {"archipel": '{"kind": "archipel-checkpoint/v1"}'},
        ),
    ],
    ids=["empty", "text", "mute", "cut", "list", "state", "nested", "half", "nan", "infinite", "many"],
)
def test_what_is_no_checkpoint_is_not_kept(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "file"
    source.write_bytes(content)
    with pytest.raises(TensorFileError) as caught:
        add_checkpoint(tmp_path, source)
    assert str(source) in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(TensorFileError, match="No such file"):
        load_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_as_many_tables_as_a_file_may_have_are_written_and_read(tmp_path: Path, dtype: str) -> None:
    tables = {f"t{number}": np.ones(1, dtype) for number in range(MAX_TABLES)}
    save_tables(tmp_path / "t", "kind/v1", tables, {})
    assert load_tables(tmp_path / "t", "kind/v1")[0].keys() == tables.keys()


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        pytest.param(
            {f"t{number}": np.zeros(1) for number in range(MAX_TABLES + 1)}, "257 tables", id="many"
        ),
        pytest.param({"t": np.zeros(1, np.float16)}, "1 tables, float16", id="half"),
        pytest.param({"t": np.zeros(1, np.int32)}, "1 tables, int32", id="short"),
        pytest.param({"t": np.zeros(1, np.bool_)}, "1 tables, bool", id="boolean"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, tables: dict[str, np.ndarray], words: str
) -> None:
    """A job that leaves what nobody can read has spent for nothing, and would say so too late."""
    with pytest.raises(TensorFileError, match=words) as refusal:
        save_tables(tmp_path / "t", "kind/v1", tables, {})
    assert (refusal.value.where, bool(refusal.value.remedy)) == (str(tmp_path / "t"), True)
    assert not (tmp_path / "t").exists()


def test_writing_and_reading_have_one_limit_of_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tables(tmp_path / "t", "kind/v1", WEIGHTS, {})
    size = (tmp_path / "t").stat().st_size
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", size)
    save_tables(tmp_path / "t", "kind/v1", WEIGHTS, {})
    assert load_tables(tmp_path / "t", "kind/v1")[0].keys() == WEIGHTS.keys()
    monkeypatch.setattr(tensor_files, "MAX_FILE_BYTES", size - 1)
    with pytest.raises(TensorFileError, match="nobody could read"):
        save_tables(tmp_path / "u", "kind/v1", WEIGHTS, {})
    with pytest.raises(TensorFileError, match="larger than"):
        load_tables(tmp_path / "t", "kind/v1")


def test_what_a_file_says_of_itself_comes_back_without_its_kind(tmp_path: Path) -> None:
    save_tables(tmp_path / "t", "kind/v1", {"x": np.arange(3)}, {"rounds": 3, "digest": "ab"})
    tables, about = load_tables(tmp_path / "t", "kind/v1")
    assert about == {"rounds": 3, "digest": "ab"}
    assert tables["x"].dtype == np.int64
