"""Every version of the policy that this silo ever trusted, with its administrators' signatures.

``policy.yaml`` is replaced when a newer version is signed. What was in force at an entry of the ledger can be
shown to an auditor only while the signed file of that version is kept: ``policies/<version>.yaml`` and
``policies/<version>.sig.json``.
"""

from __future__ import annotations

from pathlib import Path

from policies.files import SignedFile, signature_path, write_atomically

POLICIES = "policies"


def keep_policy(directory: Path, version: int, signed: SignedFile) -> None:
    """Keep a version that was found trustworthy, before anything rests on it; nothing where it is kept.

    One version has one content from the moment the ledger names it. Before that it may be signed anew, and
    after it more administrators may sign, so what is kept follows what is trusted.

    Args:
        directory: the silo's.
        version: the policy's.
        signed: the bytes that were trusted, and their signatures.

    Raises:
        OSError: the disk is full or not writable.
    """
    path = directory / POLICIES / f"{version}.yaml"
    for target, content in ((signature_path(path), signed.signatures), (path, signed.content)):
        if not target.is_file() or target.read_bytes() != content:
            write_atomically(target, content)
