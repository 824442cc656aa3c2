from __future__ import annotations

import sqlite3
import stat
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from privacy.errors import DataError, ExitCode
from privacy.ledger.chain import (
    GENESIS,
    ChainLog,
    Head,
    LogCorruptError,
    LogReader,
    LogStorageError,
    entry_hash,
    read_entries,
    signed_message,
    verify_chain,
)
from tests.contracts.ledger_tools import (
    Clock,
    Owner,
    append_many,
    append_until_full,
    in_processes,
    open_fresh_logs,
    open_log,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def test_what_was_appended_is_read_back_after_reopening(path: Path) -> None:
    with open_log(path) as log:
        written = [
            log.append("note", {"n": n, "share": 0.5, "none": None, "deep": [{"a": "ö"}]}) for n in (1, 2)
        ]
    with open_log(path) as log:
        assert list(log.entries()) == written
        assert list(log.entries(after=1)) == written[1:]
        assert log.head() == (2, written[1].hash)
    assert list(read_entries(path)) == written
    assert [entry.previous for entry in written] == [GENESIS, written[0].hash]
    assert list(verify_chain(path, Owner().verify)) == []


def test_an_empty_log_has_a_head(path: Path) -> None:
    with open_log(path) as log:
        assert log.head() == Head(0, GENESIS)
    assert list(verify_chain(path, Owner().verify)) == []


def test_golden_the_hashed_bytes_of_an_entry_never_change() -> None:
    # SHA-256 of the prefix and {"at":…,"key_id":…,"kind":…,"payload":…,"previous":…,"seq":1}.
    digest = entry_hash(
        seq=1,
        at="2026-01-01T00:00:00.000000Z",
        kind="note",
        payload='{"n":1}',
        previous=GENESIS,
        key_id="0" * 16,
    )
    assert digest == "9f3d883ec8afbe3d70ceff4f8b1ca18b52bef1ea8e591f0c63ce413a70342e4b"
    assert signed_message(digest) == b"archipel/log-entry-signature/v1\0" + bytes.fromhex(digest)


def test_times_are_utc_with_z(path: Path) -> None:
    zone = timezone(timedelta(hours=2))
    owner = Owner()
    moment = datetime(2026, 5, 4, 12, 0, tzinfo=zone)
    with ChainLog.open(path, sign=owner.sign, key_id=owner.key_id, clock=lambda: moment) as log:
        assert log.append("note", {}).at == "2026-05-04T10:00:00.000000Z"
    assert Clock()().tzinfo is UTC


def test_the_file_belongs_to_its_owner_alone(path: Path) -> None:
    with open_log(path) as log:
        log.append("note", {})
        assert {stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()} == {0o600}
    assert [item.name for item in path.parent.iterdir()] == ["log.db"]


@pytest.mark.parametrize("statement", ["UPDATE entries SET kind = 'x'", "DELETE FROM entries"])
def test_the_file_itself_refuses_to_alter_or_delete(path: Path, statement: str) -> None:
    with open_log(path) as log:
        log.append("note", {})
        with pytest.raises(sqlite3.IntegrityError, match="never"), log.transaction() as connection:
            connection.execute(statement)
        assert log.head().seq == 1


def _append_two_and_fail(log: ChainLog) -> None:
    with log.transaction():
        log.append("note", {"n": 1})
        with log.transaction():
            log.append("note", {"n": 2})
        raise RuntimeError("halfway")


def test_a_transaction_is_written_together_or_not_at_all(path: Path) -> None:
    with open_log(path) as log:
        with pytest.raises(RuntimeError, match="halfway"):
            _append_two_and_fail(log)
        assert log.head() == Head(0, GENESIS)
        with log.transaction():
            log.append("note", {"n": 3})
            log.append("note", {"n": 4})
    assert [entry.payload["n"] for entry in read_entries(path)] == [3, 4]
    assert list(verify_chain(path, Owner().verify)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_what_json_cannot_say_is_refused_before_anything_is_written(path: Path, value: float) -> None:
    with open_log(path) as log:
        with pytest.raises(ValueError, match=r"\d|nan|inf"):
            log.append("note", {"value": value})
        assert log.head().seq == 0


def test_a_signer_that_fails_writes_nothing(path: Path) -> None:
    def broken(_message: bytes) -> bytes:
        raise OSError("the key is gone")

    with ChainLog.open(path, sign=broken, key_id="0" * 16) as log:
        with pytest.raises(OSError, match="the key is gone"):
            log.append("note", {})
        assert log.head().seq == 0


def test_reading_works_while_another_writes_and_stays_at_one_moment(path: Path) -> None:
    with open_log(path) as log:
        log.append("note", {"n": 1})
        with LogReader.open(path) as reader:
            assert len(list(reader.entries())) == 1
            log.append("note", {"n": 2})
            assert len(list(reader.entries())) == 1
            assert list(reader.problems(Owner().verify)) == []
        assert len(list(read_entries(path))) == 2


def test_a_writer_that_begins_while_a_closed_log_is_read_is_noticed(path: Path) -> None:
    open_log(path).close()
    with pytest.raises(LogStorageError, match="began to write"):
        _read_while_somebody_writes(path)
    assert len(list(read_entries(path))) == 1


def _read_while_somebody_writes(path: Path) -> None:
    with LogReader.open(path) as reader:
        assert list(reader.entries()) == []
        with open_log(path) as log:
            log.append("note", {})


def test_a_reader_cannot_write(path: Path) -> None:
    with open_log(path) as log:
        log.append("note", {})
    with pytest.raises(LogStorageError), LogReader.open(path) as reader:
        reader.connection.execute("CREATE TABLE more (a)")


def test_processes_that_open_a_fresh_log_at_once_share_it(tmp_path: Path) -> None:
    in_processes(open_fresh_logs, [(tmp_path, 25)] * 4)
    for number in range(25):
        assert len(list(read_entries(tmp_path / f"{number}.db"))) == 4


def test_processes_append_to_one_chain(path: Path) -> None:
    answers = in_processes(append_many, [(path, 8)] * 4)
    assert sorted(seq for seqs in answers for seq in seqs) == list(range(1, 33))
    assert list(verify_chain(path, Owner().verify)) == []


def test_threads_share_an_open_log(path: Path) -> None:
    with open_log(path) as log:
        threads = [
            threading.Thread(target=lambda: [log.append("note", {}) for _ in range(20)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.head().seq == 80
    assert list(verify_chain(path, Owner().verify)) == []


def test_a_full_disk_is_an_error_of_the_host_and_nothing_is_lost(path: Path) -> None:
    ((code, durable, head, after),) = in_processes(append_until_full, [(path, 60_000)])
    assert code == ("log_storage", ExitCode.HOST)
    assert durable == head
    assert after == head + 1
    assert list(verify_chain(path, Owner().verify)) == []


def test_a_directory_that_is_not_there_is_an_error_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(LogStorageError, match="No such file"):
        open_log(tmp_path / "gone" / "log.db")


@pytest.mark.parametrize("content", [b"", b"this is no database, however long it may be " * 100])
def test_a_file_that_is_no_log_never_counts_as_a_fresh_one(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LogCorruptError):
        open_log(path)
    with pytest.raises(LogCorruptError):
        list(read_entries(path))
    assert path.read_bytes() == content


def test_a_log_of_another_version_is_refused(path: Path) -> None:
    with open_log(path) as log, log.transaction() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LogCorruptError, match="version 99"):
        open_log(path)


def test_reading_where_there_is_no_log_says_so_and_makes_none(path: Path) -> None:
    with pytest.raises(DataError, match="no log"):
        list(read_entries(path))
    assert not path.exists()
