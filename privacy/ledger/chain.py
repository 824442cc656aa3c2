"""An append-only log in one SQLite file: hash-chained, signed, safe to share between processes.

The silo's ledger and the coordinator's trail are both such a log. It knows no keys: ``sign`` and ``verify``
are callables of the caller.

Guarantees:
    * An entry that :meth:`ChainLog.append` returned is on the disk (write-ahead log, ``synchronous=FULL``).
    * Every entry's hash covers its number, time, kind, payload, signer and the previous hash, so an altered,
      deleted, inserted or reordered entry breaks the chain at a place :func:`verify_chain` names. Removing
      entries *from the end* breaks nothing here: that is what peers' receipts are for.
    * A write that fails (full disk, read-only medium) leaves the log as it was.

Compatibility law: the hashed bytes of an entry never change. A field added later goes into ``payload``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import rfc8785

from privacy.errors import TrustError
from privacy.ledger.storage import (
    LogCorruptError,
    LogStorageError,
    corrupt_error,
    open_durable,
    open_readonly,
    storage_errors,
)

__all__ = [
    "CLOCK_TOLERANCE",
    "COLUMNS",
    "GENESIS",
    "ChainLog",
    "ChainProblem",
    "Entry",
    "Head",
    "LogCorruptError",
    "LogReader",
    "LogStorageError",
    "Row",
    "chain_problems",
    "entry_hash",
    "entry_of",
    "read_entries",
    "signed_message",
    "utc_now",
    "verify_chain",
]

GENESIS = "0" * 64
"""``previous`` of the first entry."""

CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far a machine's clock may be set back, or two machines' clocks differ, before anybody speaks of it."""

_HASH_DOMAIN = b"archipel/log-entry/v1\0"
_SIGNATURE_DOMAIN = b"archipel/log-entry-signature/v1\0"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL,
    previous TEXT NOT NULL UNIQUE, hash TEXT NOT NULL UNIQUE, key_id TEXT NOT NULL, signature TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS entries_are_never_altered BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are never altered'); END;
CREATE TRIGGER IF NOT EXISTS entries_are_never_deleted BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
"""
COLUMNS = ("seq", "at", "kind", "payload", "previous", "hash", "key_id", "signature")
_COLUMNS = ", ".join(COLUMNS)

Row = tuple[Any, ...]
"""The values of an entry's ``COLUMNS`` as they stand in a file, whatever they are (``payload``: its text)."""


def utc_now() -> datetime:
    """The clock of a log that is given none."""
    return datetime.now(UTC)


class Head(NamedTuple):
    """The last entry's number and hash; ``(0, GENESIS)`` for an empty log. What peers countersign."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``at`` is UTC ISO 8601 with ``Z``; ``signature`` is base64; hashes are lower-case hex."""

    seq: int
    at: str
    kind: str
    payload: Mapping[str, Any]
    previous: str
    hash: str
    key_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class ChainProblem:
    """What :func:`verify_chain` found, and at which entry. ``code`` is stable."""

    code: str
    seq: int
    text: str


class ChainLog:
    """An open log. Threads of one process may share it; processes open one each.

    Use :meth:`open`; close it, or use it as a context manager.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        sign: Callable[[bytes], bytes],
        key_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.path = path
        self._connection = connection
        self._sign = sign
        self._key_id = key_id
        self._clock = clock
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        sign: Callable[[bytes], bytes],
        key_id: str,
        clock: Callable[[], datetime] = utc_now,
        tables: str = "",
    ) -> Self:
        """Open the log, creating the file (mode 0600) if there is none.

        Args:
            path: the SQLite file; its directory must exist.
            sign: returns the raw signature of a message under the owner's identity.
            key_id: names the signing key in each entry.
            clock: the time written into entries.
            tables: SQL that makes a fresh file's tables beside the entries.

        Raises:
            LogStorageError: the file cannot be opened or written.
            LogCorruptError: it is not a log of this version.
        """
        connection = open_durable(path, _SCHEMA + tables)
        return cls(connection, path, sign, key_id, clock)

    def close(self) -> None:
        """Close the file; every entry is already on the disk."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is written together or not at all; no other process writes meanwhile.

        Yields the connection, for tables that are kept beside the entries. Transactions nest.
        """
        with self._lock, storage_errors(self.path):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Everything read inside belongs to one moment, whatever other processes write."""
        with self._lock, storage_errors(self.path):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("COMMIT")

    def append(self, kind: str, payload: Mapping[str, Any]) -> Entry:
        """Write and sign one entry; it is durable when this returns (at the end of an outer transaction).

        Args:
            kind: what the entry says, e.g. ``reserved``.
            payload: JSON values only; integers below 2^53, no NaN (RFC 8785).

        Raises:
            LogStorageError: nothing was written.
        """
        text = rfc8785.dumps(dict(payload)).decode()
        with self.transaction() as connection:
            seq, previous = self.head()
            at = self.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
            digest = entry_hash(
                seq=seq + 1, at=at, kind=kind, payload=text, previous=previous, key_id=self._key_id
            )
            signature = base64.b64encode(self._sign(signed_message(digest))).decode()
            row = (seq + 1, at, kind, text, previous, digest, self._key_id, signature)
            connection.execute(f"INSERT INTO entries ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)", row)  # noqa: S608
        return _entry(row)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Entries numbered above ``after``, oldest first."""
        with storage_errors(self.path):
            yield from _entries(self._connection, self.path, after)

    def now(self) -> datetime:
        """The time that an entry would be given."""
        return self._clock().astimezone(UTC)

    def head(self) -> Head:
        """The last entry's number and hash."""
        with storage_errors(self.path):
            row = self._connection.execute(
                "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1"
            ).fetchone()
        return Head(*row) if row else Head(0, GENESIS)


def entry_hash(*, seq: int, at: str, kind: str, payload: str, previous: str, key_id: str) -> str:
    """SHA-256 over the domain prefix and the RFC 8785 form of the entry without hash and signature.

    Args:
        seq: number of the entry, from 1.
        at: its time.
        kind: its kind.
        payload: canonical JSON text.
        previous: hash of the entry before it.
        key_id: names the signer.
    """
    body = rfc8785.dumps(
        {"at": at, "key_id": key_id, "kind": kind, "payload": payload, "previous": previous, "seq": seq}
    )
    return hashlib.sha256(_HASH_DOMAIN + body).hexdigest()


def signed_message(digest: str) -> bytes:
    """The bytes an owner signs for an entry with this hash."""
    return _SIGNATURE_DOMAIN + bytes.fromhex(digest)


class LogReader:
    """A log at one moment, only read: what an auditor opens, also while its owner writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[LogReader]:
        """Open for reading; all that is read inside belongs to one moment.

        Raises:
            DataError: there is no such file.
            LogStorageError: it cannot be read.
            LogCorruptError: it is damaged, or no log of this version.
        """
        with open_readonly(path) as connection:
            yield cls(connection, path)

    def rows(self) -> Iterator[Row]:
        """Every entry as it stands in the file, in the order of the numbers."""
        yield from self.connection.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY seq")  # noqa: S608

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Entries numbered above ``after``, oldest first. Nothing is verified."""
        yield from _entries(self.connection, self.path, after)

    def problems(self, verify: Callable[[bytes, bytes], None]) -> Iterator[ChainProblem]:
        """:func:`chain_problems` of this log."""
        yield from chain_problems(self.rows(), verify)


def chain_problems(rows: Iterable[Row], verify: Callable[[bytes, bytes], None]) -> Iterator[ChainProblem]:
    """Recompute every hash and check every signature.

    Args:
        rows: the entries as they stand in a file or a copy of it, in order.
        verify: takes message and raw signature, raises ``TrustError`` if the owner did not sign it.

    Yields:
        ChainProblem: ``entry_altered``, ``entry_missing``, ``chain_broken`` or ``entry_signature``, in
        the order of the entries.
    """
    seq, previous = 0, GENESIS
    for row in rows:
        number, _, _, _, before, digest, key_id, signature = row
        if number != seq + 1:
            yield ChainProblem("entry_missing", number, f"entries {seq + 1} to {number - 1} are missing")
        if before != previous:
            text = "it does not continue the entry before it: an entry was deleted, inserted or moved"
            yield ChainProblem("chain_broken", number, text)
        if not _is_hashed(row):
            yield ChainProblem("entry_altered", number, "its content is not what was hashed and signed")
        elif not _is_signed(digest, signature, verify):
            text = f"the owner's identity did not sign it (it names key {key_id})"
            yield ChainProblem("entry_signature", number, text)
        seq, previous = number, digest


def read_entries(path: Path, after: int = 0) -> Iterator[Entry]:
    """:meth:`LogReader.entries` of a file."""
    with LogReader.open(path) as reader:
        yield from reader.entries(after)


def verify_chain(path: Path, verify: Callable[[bytes, bytes], None]) -> Iterator[ChainProblem]:
    """:meth:`LogReader.problems` of a file."""
    with LogReader.open(path) as reader:
        yield from reader.problems(verify)


def entry_of(row: Row, source: Path) -> Entry:
    """The entry of a row.

    Args:
        row: from a log, or from a copy of one.
        source: the file, for the message.

    Raises:
        LogCorruptError: values that no log ever wrote.
    """
    try:
        return _entry(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise corrupt_error(source, f"entry {row[0]} cannot be read") from error


def _entries(connection: sqlite3.Connection, path: Path, after: int) -> Iterator[Entry]:
    query = f"SELECT {_COLUMNS} FROM entries WHERE seq > ? ORDER BY seq"  # noqa: S608
    for row in connection.execute(query, (after,)):
        yield entry_of(row, path)


def _entry(row: Row) -> Entry:
    seq, at, kind, payload, previous, digest, key_id, signature = row
    body = json.loads(payload)
    if not isinstance(body, dict) or not all(isinstance(text, str) for text in row[1:]):
        raise ValueError("values that no log ever wrote")
    return Entry(seq, at, kind, body, previous, digest, key_id, signature)


def _is_hashed(row: Row) -> bool:
    seq, at, kind, payload, previous, digest, key_id, _ = row
    try:
        if rfc8785.dumps(json.loads(payload)) != payload.encode():
            return False
        expected = entry_hash(seq=seq, at=at, kind=kind, payload=payload, previous=previous, key_id=key_id)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False  # values no log ever wrote, such as a number in place of a text
    return bool(digest == expected)


def _is_signed(digest: str, signature: str, verify: Callable[[bytes, bytes], None]) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
        verify(signed_message(digest), raw)
    except (TrustError, ValueError):
        return False
    return base64.b64encode(raw).decode() == signature  # one spelling, so that no bit is free
