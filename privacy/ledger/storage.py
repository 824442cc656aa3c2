"""SQLite as a log needs it: durable writes, read-only snapshots, and its errors in our words."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from privacy.errors import DataError, HostError, TrustError

SCHEMA_VERSION = 1
"""``PRAGMA user_version`` of a log; another one is refused."""

BUSY_SECONDS = 60.0
AS_EVIDENCE = "keep the file as evidence and ask your peers for their receipts; do not delete it"
_STORAGE_CODES = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file or its directory is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk reported an error",
    sqlite3.SQLITE_PERM: "the file may not be accessed",
    sqlite3.SQLITE_BUSY: f"another process held it for more than {BUSY_SECONDS:.0f} seconds",
    sqlite3.SQLITE_LOCKED: "another process holds it",
}


class LogStorageError(HostError):
    """The file of a log cannot be read or written now; its entries are as they were."""

    code = "log_storage"


class LogCorruptError(TrustError):
    """The file of a log is damaged, or says something else than its entries do."""

    code = "log_corrupt"


def open_durable(path: Path, schema: str) -> sqlite3.Connection:
    """Open a log for writing: write-ahead log, ``synchronous=FULL``, file mode 0600.

    Args:
        path: the SQLite file; its directory must exist.
        schema: statements that make a fresh file's tables.

    Raises:
        LogStorageError: the file cannot be opened or written.
        LogCorruptError: it is not a log of this version.
    """
    with storage_errors(path):
        if not path.exists():
            _create(path, schema)
        connection = _connect(path)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA trusted_schema=OFF")
            _refuse_other_versions(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def open_readonly(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, at one moment of a log that others may be writing.

    A log that nobody has open is read without a trace: no file appears beside it, so this works on a
    read-only medium and leaves nothing that its owner could not remove.

    Raises:
        DataError: there is no such file.
        LogStorageError: it cannot be read, or somebody began to write while it was.
        LogCorruptError: it is not a log of this version.
    """
    if not path.is_file():
        raise DataError("there is no log here", where=str(path), remedy="name the directory of a party")
    is_open = path.with_name(path.name + "-wal").exists()
    uri = f"file:{quote(str(path.absolute()))}?mode=ro" + ("" if is_open else "&immutable=1")
    before = _version(path)
    with storage_errors(path):
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("BEGIN")
            _refuse_other_versions(connection, path)
            yield connection
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                raise corrupt_error(path, "a table of the log is missing or altered") from error
            raise
        finally:
            connection.close()
    if not is_open and _version(path) != before:
        raise _storage_error(path, "somebody began to write while it was read; read it again")


def check_pages(path: Path) -> None:
    """Read every page of a log once, and hold its indexes against its tables.

    Raises:
        DataError, LogStorageError: it cannot be read.
        LogCorruptError: the disk gave back something else than was written.
    """
    with open_readonly(path) as connection:
        (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if said != "ok":
        reason = " ".join(str(said).removeprefix("*** in database main ***").split())
        raise corrupt_error(path, f"the file is damaged: {reason}")


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def storage_errors(path: Path, if_damaged: str = AS_EVIDENCE) -> Iterator[None]:
    """Turn what SQLite says about the disk into our errors; everything else passes.

    Args:
        path: the file.
        if_damaged: how to mend a file that cannot be believed; default: a log's.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_CANTOPEN and not os.access(path.parent, os.W_OK):
            code = sqlite3.SQLITE_READONLY
        if code in _STORAGE_CODES:
            raise _storage_error(path, _STORAGE_CODES[code]) from error
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise corrupt_error(path, "the file is damaged, or of another kind", if_damaged) from error
        raise


def corrupt_error(path: Path, reason: str, remedy: str = AS_EVIDENCE) -> LogCorruptError:
    """The error for a log, or another file, that cannot be believed."""
    return LogCorruptError(reason, where=str(path), remedy=remedy)


def statements(script: str) -> Iterator[str]:
    """Split a script so that it runs inside a transaction (``executescript`` would commit first)."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _storage_error(path: Path, reason: str) -> LogStorageError:
    remedy = "free space on the disk or restore access to the file, then start again"
    return LogStorageError(f"the log cannot be used: {reason}", where=str(path), remedy=remedy)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _create(path: Path, schema: str) -> None:
    """Make the file aside and link it into place, so that it is whole from its first moment.

    (Two processes that switch one fresh file to the write-ahead log get "locked" at once, and an empty file
    in the place of a ledger must never count as a fresh one.)
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _storage_error(path, error.strerror or str(error)) from error
    os.close(descriptor)
    fresh = Path(name)
    try:
        with closing(_connect(fresh)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements(schema):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        with suppress(FileExistsError):
            os.link(fresh, path)
    except OSError as error:
        raise _storage_error(path, error.strerror or str(error)) from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(name + suffix).unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_other_versions(connection: sqlite3.Connection, path: Path) -> None:
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema, which is then no text
        raise corrupt_error(path, "the file is damaged or no log") from error
    if version != SCHEMA_VERSION:
        raise corrupt_error(path, f"log schema version {version} is unknown (this is {SCHEMA_VERSION})")
