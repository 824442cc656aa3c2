"""What the coordinator keeps: posts in ``coordinator.db``, bulk bytes in ``spool/``.

A post is durable before anybody is told of it. Bulk bytes grow in a ``.part`` file that takes its final name
only when size and SHA-256 fit the signed manifest, so a file without ``.part`` is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from federation.messages import BlobRef, Envelope, parse_envelope
from privacy.errors import EquivocationError, ProtocolError
from privacy.ledger.storage import storage_errors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS posts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    job TEXT NOT NULL, kind TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    sender TEXT NOT NULL, envelope BLOB NOT NULL,
    UNIQUE (job, kind, round, attempt, sender)
)
"""


class StoredPost(NamedTuple):
    """A post on the board: its number, when it came, its job."""

    seq: int
    at: datetime
    job: str
    envelope: Envelope


class Store:
    """Posts and bulk bytes of one coordinator directory."""

    def __init__(self, directory: Path) -> None:
        self._spool = directory / "spool"
        self._spool.mkdir(parents=True, exist_ok=True)
        self._path = directory / "coordinator.db"
        with storage_errors(self._path):
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def append(self, job: str, envelope: Envelope, at: datetime) -> StoredPost:
        """Store a post under its job; the same post again returns what is stored.

        Raises:
            EquivocationError: other bytes are stored at its place.
            HostError: the disk is full, or cannot be written.
        """
        place = (job, envelope.kind.value, envelope.round, envelope.attempt, envelope.sender)
        raw = envelope.to_bytes()
        with storage_errors(self._path):
            self._db.execute(
                "INSERT OR IGNORE INTO posts (at, job, kind, round, attempt, sender, envelope) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (at.isoformat(), *place, raw),
            )
            seq, stored_at, stored = self._db.execute(
                "SELECT seq, at, envelope FROM posts "
                "WHERE job = ? AND kind = ? AND round = ? AND attempt = ? AND sender = ?",
                place,
            ).fetchone()
        if stored != raw:
            raise EquivocationError(f"{envelope.sender} has already said another {envelope.kind} here")
        return StoredPost(seq, datetime.fromisoformat(stored_at), job, envelope)

    def posts(self, after: int = 0) -> list[StoredPost]:
        """Every post with a larger number, in order."""
        with storage_errors(self._path):
            rows = self._db.execute(
                "SELECT seq, at, job, envelope FROM posts WHERE seq > ? ORDER BY seq", (after,)
            ).fetchall()
        return [
            StoredPost(seq, datetime.fromisoformat(at), job, parse_envelope(raw))
            for seq, at, job, raw in rows
        ]

    def blob_path(self, ref: BlobRef) -> Path:
        """Where complete bulk bytes lie."""
        return self._spool / ref.job / f"{ref.kind}-{ref.round}-{ref.attempt}-{ref.sender}"

    def blob_offset(self, ref: BlobRef) -> int:
        """How many bytes are here already."""
        path = self.blob_path(ref)
        for candidate in (path, _part(path), path):  # a thread may give it its final name meanwhile
            with suppress(FileNotFoundError):
                return candidate.stat().st_size
        return 0

    def is_complete(self, ref: BlobRef) -> bool:
        """Whether all bytes are here and fit their manifest."""
        return self.blob_path(ref).exists()

    def append_blob(self, ref: BlobRef, offset: int, chunk: bytes, *, num_bytes: int) -> int:
        """Write a chunk at ``offset`` and return the new size.

        Raises:
            ProtocolError: the chunk does not continue what is here, or exceeds the declared size.
        """
        have = self.blob_offset(ref)
        if self.is_complete(ref):
            return have
        if offset != have:
            raise ProtocolError(
                f"a chunk at byte {offset}; {have} bytes are here", remedy="ask for the offset, go on there"
            )
        if offset + len(chunk) > num_bytes:
            raise ProtocolError(f"bytes beyond the {num_bytes} that the signed manifest declares")
        part = _part(self.blob_path(ref))
        if not part.parent.exists():
            part.parent.mkdir(parents=True)
            sync_directory(self._spool)
        with part.open("ab") as file:
            file.write(chunk)
        return offset + len(chunk)

    def complete_blob(self, ref: BlobRef, sha256: str) -> None:
        """Give finished bytes their final name; reads them all, so large ones take a thread's time.

        Raises:
            ProtocolError: they do not hash to ``sha256``; they are dropped.
        """
        path = self.blob_path(ref)
        part = _part(path)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        if found != sha256:
            part.unlink()
            raise ProtocolError(
                "the uploaded bytes differ from their signed manifest", remedy="upload them again"
            )
        part.replace(path)
        sync_directory(path.parent)

    def read_blob(self, ref: BlobRef, offset: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``offset`` of complete bulk bytes.

        Raises:
            ProtocolError: they are not complete here.
        """
        path = self.blob_path(ref)
        if not path.exists():
            raise ProtocolError(
                f"the {ref.kind} is not here", remedy="it may still be on its way: ask again later"
            )
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def drop_blob(self, ref: BlobRef) -> None:
        """Delete bulk bytes that nobody needs any more, complete or not."""
        path = self.blob_path(ref)
        for candidate in (path, _part(path)):
            candidate.unlink(missing_ok=True)

    def erase_spool(self, job: str) -> None:
        """Delete all bulk bytes of a job."""
        shutil.rmtree(self._spool / job, ignore_errors=True)

    def has_spool(self, job: str) -> bool:
        """Whether any bulk bytes of a job are left."""
        return (self._spool / job).exists()


def sync_directory(path: Path) -> None:
    """Make a rename in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
