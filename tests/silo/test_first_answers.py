"""What a person's lists of one job are made of is fixed once, whoever asks and however often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from privacy.ledger.storage import LogCorruptError, LogStorageError
from silo.vertical.merging.first import FIRST_FILE, FirstAnswers


def test_the_first_answer_stays_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / FIRST_FILE
    with FirstAnswers(path) as answers:
        assert [answers.first("7", value) for value in (b"", b"one", b"two")] == [b"", b"one", b"one"]
    with FirstAnswers(path) as answers:
        assert [answers.first(name, b"three") for name in ("7.0", " 7", "8")] == [b"one", b"one", b"three"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_nobody_stays_nobody_and_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / FIRST_FILE
    with FirstAnswers(path) as answers:
        answers.first("7", b"what was known")
        assert [answers.first("7", value) for value in (b"", b"back again")] == [b"", b""]
    assert b"what was known" not in b"".join(found.read_bytes() for found in tmp_path.iterdir())


def test_many_at_once_have_one_answer(tmp_path: Path) -> None:
    def ask(number: int) -> bytes:
        with FirstAnswers(tmp_path / FIRST_FILE) as answers:
            return answers.first("7", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1


def test_a_disk_that_fails_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / FIRST_FILE).mkdir()
    with pytest.raises(LogStorageError):
        FirstAnswers(tmp_path / FIRST_FILE)
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(LogCorruptError):
        FirstAnswers(tmp_path / "damaged.db")
