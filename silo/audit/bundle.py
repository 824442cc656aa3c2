"""A bundle: everything an outsider needs to verify a silo's record with nothing but the charter.

::

    manifest.json       kind, schema_version, silo, when it was made, and of every other file size and SHA-256
    entries.jsonl       the ledger's entries, one JSON object a line, each with its hash and signature
    card.json           the silo's public card
    charter.yaml  charter.sig.json  charters/<version>.yaml  charters/<version>.sig.json
    policy.yaml  policy.sig.json  policies/<version>.yaml  policies/<version>.sig.json
    freeze.yaml  freeze.sig.json  policies/freeze.yaml  policies/freeze.sig.json
    jobs/<job>/plan.yaml  policy.json  receipts.json  model-card.json

It is a zip file. The manifest shows damage on the way and nothing more: what is believed is signed inside.

Guarantees for whoever opens one from somebody else: nothing is unpacked to the disk; names are from a closed
list, so none points elsewhere; every size is declared, limited and held while reading, so that a small file
cannot grow without end; what is not in the manifest, or there twice, refuses the whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.documents import MAX_FILE_BYTES
from privacy.errors import DataError
from privacy.ledger.chain import COLUMNS, Entry, Row, entry_of
from silo.audit.evidence import Evidence, is_evidence

SCHEMA_VERSION: Final = 2
"""Version 1 had neither charters nor freezes; it is still read."""

MANIFEST = "manifest.json"
ENTRIES = "entries.jsonl"

MAX_BUNDLE_BYTES = 1 << 30
MAX_ENTRIES_BYTES = 1 << 31
MAX_MANIFEST_BYTES = 16 << 20
MAX_LINE_BYTES = 4 << 20
MAX_FILES = 65_000
_END_BYTES = 22
_LOCATOR_BYTES = 20
_CHUNK_BYTES = 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    struct.error,
    UnicodeDecodeError,
)


class BundleError(DataError):
    """A file that is no bundle, is damaged, or holds what a bundle never does."""

    code = "bundle"


class BundleVersionError(DataError):
    """A newer version made this bundle."""

    code = "bundle_version"


class FileRecord(BaseModel):
    """One file of a bundle: its size and digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    num_bytes: Annotated[int, Field(ge=0, le=MAX_ENTRIES_BYTES)]


class Manifest(BaseModel):
    """What a bundle says of itself.

    Attributes:
        silo: whose record it is.
        made: when it was exported, UTC.
        made_by: version of the program.
        head_seq: number of the ledger's last entry.
        head_hash: its hash.
        files: every other file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["AuditBundle"]
    schema_version: Literal[1, 2]
    silo: Annotated[str, Field(max_length=128)]
    made: Annotated[str, Field(max_length=40)]
    made_by: Annotated[str, Field(max_length=80)]
    head_seq: Annotated[int, Field(ge=0)]
    head_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    files: Annotated[dict[str, FileRecord], Field(max_length=MAX_FILES)]


class BundleLedger:
    """The entries of a bundle."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._path = path

    def rows(self) -> Iterator[Row]:
        """Every entry as it was exported."""
        with _damage(self._path), self._archive.open(ENTRIES) as lines:
            while line := lines.readline(MAX_LINE_BYTES + 1):
                yield self._row(line)

    def entries(self) -> Iterator[Entry]:
        """Every entry; ``LogCorruptError`` where one is nothing a log ever wrote."""
        for row in self.rows():
            yield entry_of(row, self._path)

    def _row(self, line: bytes) -> Row:
        try:
            values = json.loads(line) if len(line) <= MAX_LINE_BYTES else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or tuple(values) != COLUMNS or not isinstance(values["seq"], int):
            raise _damaged(self._path, f"a line of {ENTRIES} is no entry")
        return tuple(values.values())


class BundleEvidence(Evidence):
    """A bundle, opened and held against its manifest."""

    ledger = ENTRIES

    def __init__(self, path: Path, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        super().__init__(path)
        self.manifest = manifest
        self._archive = archive
        self._names = tuple(sorted(name for name in manifest.files if name != ENTRIES))

    @contextmanager
    def open_ledger(self) -> Iterator[BundleLedger]:
        """The exported entries."""
        yield BundleLedger(self._archive, self.path)

    def names(self) -> tuple[str, ...]:
        """Every file of the manifest but the entries."""
        return self._names

    def has(self, name: str) -> bool:
        """Whether the manifest names it."""
        return name != ENTRIES and name in self.manifest.files

    def read(self, name: str) -> bytes:
        """Read a file into memory."""
        if not self.has(name):
            raise DataError("there is no such file in the bundle", where=self.place(name))
        with _damage(self.path), self._archive.open(name) as file:
            return file.read(self.manifest.files[name].num_bytes)


@contextmanager
def open_bundle(path: Path) -> Iterator[BundleEvidence]:
    """Open a bundle and hold every file against the manifest.

    Raises:
        BundleError: it is no bundle, is damaged, or holds what a bundle never does.
        BundleVersionError: a newer version made it.
    """
    _refuse_outside(path)
    with _damage(path), zipfile.ZipFile(path) as archive:
        infos = _members(archive, path)
        manifest = _read_manifest(archive, infos, path)
        if set(manifest.files) | {MANIFEST} != set(infos) or ENTRIES not in manifest.files:
            raise _damaged(path, "its files are not those of its manifest")
        for name, record in manifest.files.items():
            _check_file(archive, name, record, path)
        yield BundleEvidence(path, archive, manifest)


def _refuse_outside(path: Path) -> None:
    """Look at the end record before anything is built from it: how many files, and how large a list.

    Python's reader makes an object of every listed file first; a bundle as we write it has no comment and no
    64-bit record, so both numbers stand in the last 22 bytes.
    """
    size = path.stat().st_size
    if size > MAX_BUNDLE_BYTES:
        raise _damaged(path, f"it is larger than {MAX_BUNDLE_BYTES >> 20} MiB")
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES))
        tail = file.read()
    end = tail[-_END_BYTES:]
    if len(end) < _END_BYTES or not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise _damaged(path, "it is not a bundle that `archipel audit export` wrote, or its end is missing")
    if tail[:-_END_BYTES].startswith(b"PK\x06\x07"):
        raise _damaged(path, "it has a 64-bit list of files, as no bundle has")
    num_files, list_bytes = struct.unpack("<HI", end[10:16])
    if num_files > MAX_FILES or list_bytes > num_files * 512:
        raise _damaged(path, f"it lists more than {MAX_FILES} files, or longer names than a bundle has")


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if name not in (MANIFEST, ENTRIES) and not is_evidence(name):
            raise _damaged(path, f"it holds {name[:80]!r}, which no bundle does")
        if name in found:
            raise _damaged(path, f"it holds {name} twice")
        if info.flag_bits & 0x1 or info.compress_type not in _COMPRESSIONS:
            raise _damaged(path, f"{name} is encrypted, or packed in a way that no bundle is")
        if info.file_size > _limit(name):
            raise _damaged(path, f"{name} is too large")
        found[name] = info
    return found


def _limit(name: str) -> int:
    return {ENTRIES: MAX_ENTRIES_BYTES, MANIFEST: MAX_MANIFEST_BYTES}.get(name, MAX_FILE_BYTES)


def _read_manifest(archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], path: Path) -> Manifest:
    if MANIFEST not in infos:
        raise _damaged(path, f"it has no {MANIFEST}")
    with archive.open(MANIFEST) as file:
        content = file.read(MAX_MANIFEST_BYTES)
    try:
        values = json.loads(content)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleVersionError(
                f"a newer version made this bundle (format {version}; this program reads {SCHEMA_VERSION})",
                where=str(path),
                remedy="audit it with a newer version of archipel; nothing of it is read half",
            )
        return Manifest.model_validate(values)
    except (ValueError, ValidationError, RecursionError) as error:
        raise _damaged(path, f"its {MANIFEST} is not one") from error


def _check_file(archive: zipfile.ZipFile, name: str, record: FileRecord, path: Path) -> None:
    hashed, size = hashlib.sha256(), 0
    with archive.open(name) as file:
        for chunk in _chunks(file):
            size += len(chunk)
            if size > record.num_bytes:
                break
            hashed.update(chunk)
    if size != record.num_bytes or hashed.hexdigest() != record.sha256:
        raise _damaged(path, f"{name} is not what the manifest says")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What the zip library says of a damaged file, in our words."""
    try:
        yield
    except _UNREADABLE as error:
        raise _damaged(path, "it is damaged") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(path, "its list of files leads outside of it") from error


def _damaged(path: Path, reason: str) -> BundleError:
    remedy = "ask for the bundle again, and compare the SHA-256 that `archipel audit export` printed"
    return BundleError(f"this bundle cannot be used: {reason}", where=str(path), remedy=remedy)
