from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from federation.messages import Cancel, PostKind, seal
from policies.signing import PrivateKey
from privacy.errors import HostError
from silo.outbox import Outbox

JOB, OTHER = "ab" * 16, "cd" * 16
KEY = PrivateKey.generate()
LEVELS = np.array([0, 3, 2**32 + 5, 2**46], dtype=np.int64)  # one value a slot: up to 46 bits
SILOS = ("shop-a", "shop-b", "shop-c")
SECRET = b"a secret of this very job, 32 by"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


def test_a_post_is_fixed_before_it_is_sent(outbox: Outbox, tmp_path: Path) -> None:
    post = seal(Cancel(), job=JOB, sender="a", identity=KEY)
    assert outbox.post(JOB, PostKind.CANCEL) is None
    outbox.store_post(post)
    assert Outbox(tmp_path).post(JOB, PostKind.CANCEL) == post
    assert outbox.post(JOB, PostKind.CANCEL, 1, 1) is None


def test_the_first_secret_stays(outbox: Outbox) -> None:
    outbox.store_secret(JOB, "key", b"first")
    outbox.store_secret(JOB, "key", b"second")
    assert outbox.secret(JOB, "key") == b"first"
    assert outbox.secret(OTHER, "key") is None


def test_integers_are_durable_before_their_key_and_keep_the_first_one(outbox: Outbox) -> None:
    assert outbox.contribution(JOB, 1, 1) is None
    outbox.store_contribution(JOB, 1, 1, LEVELS, SILOS)
    found = outbox.contribution(JOB, 1, 1)
    assert found is not None
    assert found.private_key is None
    assert found.contributors == SILOS
    np.testing.assert_array_equal(found.levels, LEVELS)
    outbox.attach_key(JOB, 1, 1, b"first")
    outbox.attach_key(JOB, 1, 1, b"second")
    again = outbox.contribution(JOB, 1, 1)
    assert again is not None
    assert again.private_key == b"first"


def test_a_key_without_integers_is_not_kept(outbox: Outbox) -> None:
    outbox.attach_key(JOB, 1, 1, b"key")
    assert outbox.contribution(JOB, 1, 1) is None


def test_a_second_contribution_of_an_attempt_is_impossible(outbox: Outbox) -> None:
    outbox.store_contribution(JOB, 1, 1, LEVELS, SILOS)
    with pytest.raises(sqlite3.IntegrityError):
        outbox.store_contribution(JOB, 1, 1, LEVELS + 1, SILOS)


def test_a_contribution_of_an_older_version_is_lost(outbox: Outbox, tmp_path: Path) -> None:
    """It does not say for whom its noise was drawn; if its key is on the board, the attempt is burned."""
    outbox.close()
    with closing(sqlite3.connect(tmp_path / "outbox" / "outbox.db", isolation_level=None)) as older:
        older.execute("ALTER TABLE contributions DROP COLUMN contributors")
        older.execute(
            "INSERT INTO contributions VALUES (?, 1, 1, ?, NULL)", (JOB, LEVELS.astype("<u4").tobytes())
        )
    newer = Outbox(tmp_path)
    assert newer.contribution(JOB, 1, 1) is None
    newer.store_contribution(JOB, 1, 1, LEVELS, SILOS)
    assert newer.contribution(JOB, 1, 1) is not None


def test_erasing_leaves_no_byte_of_a_secret_and_nothing_of_other_jobs_lost(
    outbox: Outbox, tmp_path: Path
) -> None:
    for job in (JOB, OTHER):
        outbox.store_secret(job, "key", SECRET + job.encode())
        outbox.path(job, "stream", 1, 1).write_bytes(b"frames")
        outbox.store_contribution(job, 1, 1, LEVELS, SILOS)
        outbox.attach_key(job, 1, 1, SECRET + job.encode())
    assert b"".join(path.read_bytes() for path in tmp_path.rglob("outbox.db*")).count(SECRET) >= 4
    outbox.erase_secrets(JOB)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("outbox.db*"))
    assert SECRET + JOB.encode() not in left
    assert SECRET + OTHER.encode() in left
    assert outbox.contribution(JOB, 1, 1) is None
    assert not outbox.path(JOB, "stream", 1, 1).exists()
    assert outbox.path(OTHER, "stream", 1, 1).exists()
    assert outbox.jobs_with_secrets() == [OTHER]


def test_of_an_opened_round_only_what_was_said_is_kept(outbox: Outbox) -> None:
    for round_ in (1, 2, 11):
        for job in (JOB, OTHER):
            outbox.store_contribution(job, round_, 1, LEVELS, SILOS)
            outbox.attach_key(job, round_, 1, SECRET)
            for kind in ("stream", "sum", "stream-of-shop-2-1"):
                outbox.path(job, kind, round_, 1).write_bytes(b"frames")
    outbox.store_secret(JOB, "job-secrets", SECRET)
    outbox.store_post(seal(Cancel(), job=JOB, sender="a", identity=KEY))
    outbox.forget_rounds_before(JOB, 2)
    assert outbox.contribution(JOB, 1, 1) is None
    assert list(outbox.path(JOB, "x", 1, 1).parent.glob(f"{JOB}-*-1-1")) == []
    for round_ in (2, 11):
        assert outbox.contribution(JOB, round_, 1) is not None
        assert outbox.path(JOB, "stream-of-shop-2-1", round_, 1).exists()
    assert outbox.contribution(OTHER, 1, 1) is not None
    assert outbox.path(OTHER, "sum", 1, 1).exists()
    assert outbox.secret(JOB, "job-secrets") == SECRET
    assert outbox.post(JOB, PostKind.CANCEL) is not None


def test_another_attempt_has_a_contribution_of_its_own(outbox: Outbox) -> None:
    """The same integers under other contributors would show one silo: none is ever found twice."""
    outbox.store_contribution(JOB, 1, 1, LEVELS, SILOS)
    outbox.attach_key(JOB, 1, 1, b"first")
    assert outbox.contribution(JOB, 1, 2) is None
    outbox.store_contribution(JOB, 1, 2, LEVELS + 1, SILOS)
    found = outbox.contribution(JOB, 1, 2)
    assert found is not None
    assert found.private_key is None
    np.testing.assert_array_equal(found.levels, LEVELS + 1)


def test_a_reader_that_keeps_erased_secrets_on_the_disk_is_an_error(outbox: Outbox, tmp_path: Path) -> None:
    outbox.store_secret(JOB, "key", SECRET)
    with closing(sqlite3.connect(tmp_path / "outbox" / "outbox.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM secrets").fetchall()
        with pytest.raises(HostError, match="still on the disk"):
            outbox.erase_secrets(JOB)
    outbox.erase_secrets(JOB)
    assert SECRET not in b"".join(path.read_bytes() for path in tmp_path.rglob("outbox.db*"))


def test_only_the_owner_reads_an_outbox(outbox: Outbox, tmp_path: Path) -> None:
    assert (tmp_path / "outbox").stat().st_mode & 0o077 == 0
    assert (tmp_path / "outbox" / "outbox.db").stat().st_mode & 0o077 == 0
