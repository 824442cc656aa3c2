"""Every version of the policy that this silo ever trusted, with its administrators' signatures.

``policy.yaml`` is replaced when a newer version is signed. What was in force at an entry of the ledger can be
shown to an auditor only while the signed file of that version is kept: ``policies/<version>.yaml`` and
``policies/<version>.sig.json``.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from policies.files import SignedFile, read_limited, signature_path, write_atomically
from policies.trust import parse_signatures
from privacy.errors import ArchipelError

POLICIES = "policies"


def keep_policy(directory: Path, version: int, signed: SignedFile) -> None:
    """Keep a version that was found trustworthy, before anything rests on it; nothing where it is kept.

    One version has one content from the moment the ledger names it. Before that it may be signed anew, and
    after it more administrators may sign, so what is kept follows what is trusted. Signatures of the same
    content are united: those of administrators who have been revoked since show whose law it was before.

    Args:
        directory: the silo's.
        version: the policy's.
        signed: the bytes that were trusted, and their signatures.

    Raises:
        OSError: the disk is full or not writable.
    """
    path = directory / POLICIES / f"{version}.yaml"
    signatures = _united(signature_path(path), signed.signatures)
    for target, content in ((signature_path(path), signatures), (path, signed.content)):
        if not target.is_file() or target.read_bytes() != content:
            write_atomically(target, content)


def _united(kept: Path, fresh: bytes) -> bytes:
    """The fresh signatures and those kept of the same content; the fresh ones alone where there are none."""
    if not kept.is_file() or kept.read_bytes() == fresh:
        return fresh
    with suppress(ArchipelError, ValueError):  # of other content, or more than one file holds
        signatures = parse_signatures(fresh, kept.name)
        united = parse_signatures(read_limited(kept), kept.name).united(signatures)
        return (json.dumps(united.model_dump(mode="json"), indent=2) + "\n").encode("ascii")
    return fresh
