"""What two silos keep of a job to draw the same masks: their pair key of purpose ``MERGE``.

All other keys of a job are erased when it ends. These stay with its model and its basis: with one of them
and with what was sealed to a person's device, that person's part of the model is no longer masked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from policies.files import read_limited, write_atomically
from privacy.agreement import KEY_BYTES
from privacy.errors import DataError

KEYS_FILE = "merge-keys.json"
_KIND = "archipel-merge-keys/v1"
_OWNER_ONLY = 0o600


class MergeKeyError(DataError):
    """A job that left no keys to merge with, or a damaged file of them."""

    code = "merge_keys"


def save_merge_keys(directory: Path, keys: Mapping[str, bytes]) -> None:
    """Write them durably.

    Args:
        directory: ``jobs/<job>``.
        keys: other silo -> 32 bytes.
    """
    content = {"kind": _KIND, "keys": {silo: key.hex() for silo, key in sorted(keys.items())}}
    write_atomically(directory / KEYS_FILE, json.dumps(content).encode(), mode=_OWNER_ONLY)


def load_merge_keys(directory: Path) -> dict[str, bytes]:
    """Read them.

    Raises:
        MergeKeyError: there are none, or they are damaged.
    """
    path = directory / KEYS_FILE
    if not path.exists():
        raise MergeKeyError(
            "this job left no keys to merge with",
            where=str(path),
            remedy="run the job anew; one with a private encoder leaves none, nor did older versions",
        )
    try:
        content = json.loads(read_limited(path))
        keys = {str(silo): bytes.fromhex(key) for silo, key in content["keys"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path) from error
    if content.get("kind") != _KIND or any(len(key) != KEY_BYTES for key in keys.values()):
        raise _damaged(path)
    return keys


def _damaged(path: Path) -> MergeKeyError:
    return MergeKeyError("these are no keys to merge with", where=str(path), remedy="restore the file")
