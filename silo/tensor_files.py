"""Tables of numbers as safetensors files: what a silo keeps of a training, and what a later one starts from.

Names, types and sizes are read from the file's header and checked before a table is allocated; a file speaks
of itself in one canonical line, so the same tables give the same bytes everywhere. No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from policies.files import write_atomically
from privacy.errors import DataError

Tables = dict[str, NDArray[Any]]

METADATA_KEY = "archipel"
MAX_TABLES = 256
"""More than the deepest network that a plan may name has, with its optimiser."""
MAX_FILE_BYTES = 1 << 33
_DTYPES: Final = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8"}
"""What numpy calls a type, and what a file does."""


class TensorFileError(DataError):
    """A file of tables that is cut short, altered, or of another kind than it should be."""

    code = "tensor_file"


def save_tables(
    path: Path, kind: str, tables: Mapping[str, NDArray[Any]], about: Mapping[str, str | int],
    *, mode: int | None = None,
) -> str:  # fmt: skip
    """Write tables durably, whole or not at all; returns the SHA-256 of the file, hex.

    Args:
        path: replaced when it exists.
        kind: what sort of file this is, with its version.
        tables: by name.
        about: what the file says of itself besides; public, or meant for this silo alone.
        mode: who may read it; left out: as the process makes files.

    Raises:
        TensorFileError: :func:`load_tables` would refuse the file; nothing was written.
    """
    others = {table.dtype.name for table in tables.values()} - _DTYPES.keys()
    if len(tables) > MAX_TABLES or others:
        raise _unwritable(path, f"{len(tables)} tables{''.join(f', {name}' for name in sorted(others))}")
    ordered = {name: np.asarray(table, order="C") for name, table in sorted(tables.items())}
    text = json.dumps({**about, "kind": kind}, sort_keys=True, separators=(",", ":"))
    content = safetensors_bytes(ordered, {METADATA_KEY: text})
    if len(content) > MAX_FILE_BYTES:
        raise _unwritable(path, f"{len(content):,} bytes")
    write_atomically(path, content, mode=mode)
    return hashlib.sha256(content).hexdigest()


def load_tables(path: Path, kind: str) -> tuple[Tables, dict[str, Any]]:
    """Read a file of :func:`save_tables`; returns its tables and what it says of itself besides its kind.

    Raises:
        TensorFileError: no such file, damaged, too large, of another kind, or with tables of another type.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _refused(path, "larger than such a file can be")
        with safe_open(path, framework="numpy") as file:
            about = _about(file.metadata() or {}, kind, path)
            names = sorted(file.keys())
            types = {file.get_slice(name).get_dtype() for name in names}
            if len(names) > MAX_TABLES or types - set(_DTYPES.values()):
                raise _refused(path, "tables of a type or number that no such file has")
            return {name: file.get_tensor(name) for name in names}, about
    except SafetensorError as error:
        raise _refused(path, f"not a readable file of tables ({error})") from error
    except OSError as error:
        raise _refused(path, error.strerror or "it cannot be read") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _about(raw: Mapping[str, str], kind: str, path: Path) -> dict[str, Any]:
    try:
        about = json.loads(raw.get(METADATA_KEY, ""))
    except (ValueError, RecursionError) as error:
        raise _refused(path, "the file does not say what it is") from error
    if not isinstance(about, dict) or about.pop("kind", None) != kind:
        raise _refused(path, f"the file is not of the kind {kind}")
    return about


def _unwritable(path: Path, what: str) -> TensorFileError:
    return TensorFileError(
        f"{what}: nobody could read such a file",
        where=str(path),
        remedy=f"at most {MAX_TABLES} tables of {', '.join(sorted(_DTYPES))} in {MAX_FILE_BYTES:,} bytes",
    )


def _refused(path: Path, reason: str) -> TensorFileError:
    return TensorFileError(reason, where=str(path), remedy="take the file as the job wrote it")
