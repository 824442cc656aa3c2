"""A private file keeps its promises where the disk and its past are against it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from privacy.ledger.storage import LogCorruptError, LogStorageError
from silo.private_file import RESTORE, PrivateFile

SCHEMA = "CREATE TABLE IF NOT EXISTS held (value BLOB)"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_wider_copy_that_was_restored_is_narrowed_with_all_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "consent.db"
    for name in ("consent.db", "consent.db-wal", "consent.db-shm"):
        (tmp_path / name).touch(mode=0o644)
    with PrivateFile(path, SCHEMA) as file, file._writing() as database:
        database.execute("INSERT INTO held VALUES (1)")
        assert {mode(found) for found in tmp_path.iterdir()} == {0o600}


def test_a_damaged_file_is_restored_and_no_peer_is_asked_for_it(tmp_path: Path) -> None:
    path = tmp_path / "merges.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(LogCorruptError, match="damaged") as caught:
        PrivateFile(path, SCHEMA)
    assert caught.value.remedy == RESTORE


def test_a_full_disk_is_named_and_does_not_stick(tmp_path: Path) -> None:
    with PrivateFile(tmp_path / "merges.db", SCHEMA) as file:
        file._db.execute("PRAGMA max_page_count=4")
        with pytest.raises(LogStorageError, match="full"), file._writing() as database:
            database.execute("INSERT INTO held VALUES (zeroblob(100000))")
        with file._writing() as database:
            database.execute("INSERT INTO held VALUES (1)")
        with file._reading() as database:
            assert database.execute("SELECT count(*) FROM held").fetchone() == (1,)


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    schema = (
        "PRAGMA foreign_keys=ON; CREATE TABLE owner (id INTEGER PRIMARY KEY);"
        "CREATE TABLE held (id INTEGER REFERENCES owner DEFERRABLE INITIALLY DEFERRED)"
    )
    with PrivateFile(tmp_path / "consent.db", schema) as file:
        for _ in range(2):
            with pytest.raises(sqlite3.IntegrityError), file._writing() as database:
                database.execute("INSERT INTO held VALUES (1)")
