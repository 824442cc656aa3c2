"""A private SQLite file of a silo: durable, readable by its owner alone, overwritten where it deletes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeAlias

from privacy.ledger.storage import BUSY_SECONDS, storage_errors

Database: TypeAlias = sqlite3.Connection
RESTORE = "restore it from a backup; docs/reference-files.md says what losing it means"


class PrivateFile:
    """What one process writes in one transaction, whoever else has the file open.

    Args:
        path: the file; made where it is missing, readable by its owner alone.
        schema: statements that make the tables that are missing.

    Raises:
        LogStorageError: the file cannot be opened.
        LogCorruptError: it is damaged.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        with storage_errors(path, RESTORE):
            path.touch(mode=0o600)
            for found in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
                if (
                    found.exists()
                ):  # a restored copy may be wider; what SQLite makes anew takes the file's mode
                    found.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("PRAGMA secure_delete=ON")
                self._db.executescript(schema)
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[Database]:
        """The file, for one statement.

        Raises:
            LogStorageError: it cannot be read.
        """
        with storage_errors(self._path, RESTORE):
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        """One transaction, alone, durable where the block ends; nothing of it where it raises.

        Raises:
            LogStorageError: the file cannot be written.
        """
        with storage_errors(self._path, RESTORE):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled back already
                    self._db.execute("ROLLBACK")
                raise
