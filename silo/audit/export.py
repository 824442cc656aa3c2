"""Export a silo's record as a bundle that outsiders verify with nothing but the charter."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from policies.files import replacing
from privacy.errors import DataError, UsageError
from privacy.ledger.chain import COLUMNS, GENESIS, Head, Row
from privacy.ledger.storage import corrupt_error
from silo.audit.bundle import ENTRIES, MANIFEST, MAX_FILES, SCHEMA_VERSION, FileRecord, Manifest
from silo.audit.evidence import Evidence, open_evidence

_THEN = (1980, 1, 1, 0, 0, 0)


class BundleExistsError(UsageError):
    """There is a file of that name already."""

    code = "bundle_exists"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the bundle.
        sha256: of its bytes; what two parties compare over another way.
        num_bytes: its size.
        manifest: what it says of itself.
    """

    path: Path
    sha256: str
    num_bytes: int
    manifest: Manifest


def export_bundle(source: Path, target: Path, *, now: datetime) -> Exported:
    """Write a bundle of a silo's directory; the directory is only read, also while the agent runs.

    Args:
        source: the silo's directory (or a bundle, which is written again).
        target: the file; it must not be there yet.
        now: noted in the manifest.

    Raises:
        BundleExistsError: the file is there.
        DataError: there is no ledger.
        LogCorruptError: an entry cannot be read, so that the directory itself is the evidence.
        OSError: the file cannot be written; nothing is left of it.
    """
    if target.exists():
        raise BundleExistsError("there is a file already", where=str(target), remedy="choose another --out")
    with open_evidence(source) as evidence, replacing(target) as file:
        os.fchmod(file.fileno(), 0o600)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            manifest = _write(archive, evidence, now)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return Exported(target, found, target.stat().st_size, manifest)


def _write(archive: zipfile.ZipFile, evidence: Evidence, now: datetime) -> Manifest:
    names = evidence.names()
    if len(names) + 2 > MAX_FILES:
        raise DataError(
            f"{len(names)} files are more than one bundle holds",
            where=str(evidence.path),
            remedy="move the directories of old jobs away; their entries stay in the ledger",
        )
    files: dict[str, FileRecord] = {}
    with evidence.open_ledger() as ledger:
        head = Head(0, GENESIS)

        def lines() -> Iterator[bytes]:
            nonlocal head
            for row in ledger.rows():
                head = Head(row[0], row[5])
                yield _line(row, evidence.path)

        files[ENTRIES] = _add(archive, ENTRIES, lines())
    for name in names:
        files[name] = _add(archive, name, (evidence.read(name),))
    manifest = Manifest(
        kind="AuditBundle",
        schema_version=SCHEMA_VERSION,
        silo=evidence.silo(),
        made=now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        made_by=f"archipel {version('archipel')}",
        head_seq=head.seq,
        head_hash=head.hash,
        files=files,
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True)
    _add(archive, MANIFEST, (text.encode(),))
    return manifest


def _line(row: Row, source: Path) -> bytes:
    if not isinstance(row[0], int) or not all(isinstance(value, str) for value in row[1:]):
        raise corrupt_error(source, f"entry {row[0]} cannot be exported as it stands")
    return json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=True).encode() + b"\n"


def _add(archive: zipfile.ZipFile, name: str, chunks: Iterable[bytes]) -> FileRecord:
    info = zipfile.ZipInfo(name, _THEN)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    hashed, size = hashlib.sha256(), 0
    with archive.open(info, "w") as member:
        for chunk in chunks:
            hashed.update(chunk)
            size += len(chunk)
            member.write(chunk)
    return FileRecord(sha256=hashed.hexdigest(), num_bytes=size)
