"""Weights that a later job can start from: where they lie and which file a plan's digest means.

A training leaves ``jobs/<job>/checkpoint.safetensors``, the same bytes at every silo. A plan names it by its
SHA-256 (``model.start_from``), and each silo looks among its own jobs and in ``checkpoints/``, where
``archipel silo checkpoint add`` puts a file that came another way. Nothing is fetched from anybody.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np

from policies.files import write_atomically
from privacy.errors import DataError
from silo.tensor_files import Tables, TensorFileError, load_tables, save_tables, sha256_of

FORMAT: Final = "archipel-checkpoint/v1"
FILE_NAME: Final = "checkpoint.safetensors"


class CheckpointMissingError(DataError):
    """No file of this silo has the digest that a plan starts from."""

    code = "checkpoint_missing"


def save_checkpoint(path: Path, weights: Tables, *, family: str) -> str:
    """Write a training's weights; returns the file's SHA-256, which a plan's ``model.start_from`` names."""
    return save_tables(path, FORMAT, weights, {"family": family})


def load_checkpoint(path: Path) -> Tables:
    """Read weights; whether they fit a plan is for its model family to say.

    Raises:
        TensorFileError: damaged, not a checkpoint, or a value that is not finite.
    """
    weights, _ = load_tables(path, FORMAT)
    broken = [name for name, table in weights.items() if not np.isfinite(table).all()]
    if broken:
        raise TensorFileError(f"{broken[0]} holds a value that is not finite", where=str(path))
    return weights


def find_checkpoint(directory: Path, sha256: str) -> Path:
    """The file of this digest in a silo's directory.

    Raises:
        CheckpointMissingError: there is none.
    """
    added = directory / "checkpoints" / f"{sha256}.safetensors"
    for path in (added, *sorted((directory / "jobs").glob(f"*/{FILE_NAME}"))):
        if path.exists() and sha256_of(path) == sha256:
            return path
    raise CheckpointMissingError(
        f"no checkpoint {sha256[:16]}… here",
        where=str(directory),
        remedy="archipel silo checkpoint add FILE",
    )


def add_checkpoint(directory: Path, source: Path) -> tuple[str, Path]:
    """Check a checkpoint file and keep it in ``checkpoints/``; returns its SHA-256 and where it lies.

    Raises:
        TensorFileError: it is not a sound checkpoint; nothing was kept.
    """
    load_checkpoint(source)
    content = source.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    target = directory / "checkpoints" / f"{sha256}.safetensors"
    write_atomically(target, content)
    return sha256, target
