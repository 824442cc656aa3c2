"""What a worker keeps between rounds is never believed without the digests that everybody signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privacy.encryption.keyholder import KeyHolder
from silo.data.tables import UnreadableTableError
from silo.models.base import State
from silo.session import (
    STATE_FILE,
    NoNextStateError,
    Session,
    SumMissingError,
    end_session,
    session_of,
)
from tests.contracts.family_contract import random_histories
from tests.support.small_silo import SmallSilo, small_plan, small_silo

ROUNDS = 4


@pytest.fixture
def silo(tmp_path: Path) -> Iterator[SmallSilo]:
    made = small_silo(tmp_path)
    yield made
    end_session(made.job_directory)


def fresh(silo: SmallSilo) -> Session:
    """As after a restart of the worker."""
    return Session(silo.job_directory)


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_read_once_while_nothing_changes(silo: SmallSilo) -> None:
    session = fresh(silo)
    rows = session.rows(silo.directory, silo.plan, silo.dataset)
    assert session.rows(silo.directory, silo.plan, silo.dataset) is rows


def test_a_changed_table_counts_from_the_next_round(silo: SmallSilo) -> None:
    session = fresh(silo)
    before = session.rows(silo.directory, silo.plan, silo.dataset).train.num_users
    silo.write_rows(random_histories(1, num_users=12))
    assert (before, session.rows(silo.directory, silo.plan, silo.dataset).train.num_users) == (30, 12)


def test_who_opts_out_is_left_out_from_the_next_round(silo: SmallSilo) -> None:
    session = fresh(silo)
    assert "u3" in session.rows(silo.directory, silo.plan, silo.dataset).train.user_ids
    silo.write_exclusions("u3")
    assert "u3" not in session.rows(silo.directory, silo.plan, silo.dataset).train.user_ids


def test_a_second_file_of_the_source_is_noticed(silo: SmallSilo) -> None:
    session = fresh(silo)
    first = session.rows(silo.directory, silo.plan, silo.dataset)
    (silo.directory / "rows.parquet").rename(silo.directory / "old.parquet")
    silo.write_rows([[0], [1]])
    assert session.rows(silo.directory, silo.plan, silo.dataset) is not first


def test_rows_in_memory_do_not_outlive_their_source(silo: SmallSilo) -> None:
    session = fresh(silo)
    session.rows(silo.directory, silo.plan, silo.dataset)
    (silo.directory / "no.csv").unlink()
    with pytest.raises(UnreadableTableError):
        session.rows(silo.directory, silo.plan, silo.dataset)


# ── the trained state ───────────────────────────────────────────────────────────────────────────────────────


def test_a_state_carried_on_from_round_to_round_is_that_of_all_sums_at_once(silo: SmallSilo) -> None:
    silo.train(ROUNDS)
    step_by_step = fresh(silo)
    for rounds in range(1, ROUNDS + 1):
        _, carried = step_by_step.learned(silo.course_after(rounds))
    (silo.job_directory / STATE_FILE).unlink()
    _, replayed = fresh(silo).learned(silo.course)
    assert same(carried, replayed)
    assert step_by_step.repairs == []


def test_a_restarted_worker_goes_on_from_the_file_without_the_old_sums(silo: SmallSilo) -> None:
    silo.train(ROUNDS)
    _, kept = fresh(silo).learned(silo.course_after(ROUNDS - 1))
    for opened in silo.sums[:-1]:
        opened.path.unlink()
    _, state = fresh(silo).learned(silo.course)
    assert not same(kept, state)
    (silo.job_directory / STATE_FILE).unlink()
    with pytest.raises(SumMissingError) as caught:
        fresh(silo).learned(silo.course)
    assert (caught.value.round, caught.value.was_damaged) == (1, False)


def test_a_session_that_ran_alone_and_one_that_restarted_every_round_agree(silo: SmallSilo) -> None:
    silo.train(ROUNDS)
    _, uninterrupted = fresh(silo).learned(silo.course)
    (silo.job_directory / STATE_FILE).unlink()
    for rounds in range(1, ROUNDS + 1):
        _, resumed = fresh(silo).learned(silo.course_after(rounds))
    assert same(uninterrupted, resumed)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def say_more_rounds(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'rounds\\":3', b'rounds\\":2'))


@pytest.mark.parametrize(
    "damage",
    [
        flip_last_byte,
        cut_short,
        say_more_rounds,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no"),
    ],
    ids=["altered", "cut", "other-round", "empty", "garbage"],
)
def test_a_damaged_state_is_noticed_and_replayed(silo: SmallSilo, damage: Callable[[Path], object]) -> None:
    silo.train(ROUNDS)
    _, expected = fresh(silo).learned(silo.course)
    (silo.job_directory / STATE_FILE).unlink()
    fresh(silo).learned(silo.course_after(3))
    intact = (silo.job_directory / STATE_FILE).read_bytes()
    damage(silo.job_directory / STATE_FILE)
    assert (silo.job_directory / STATE_FILE).read_bytes() != intact
    session = fresh(silo)
    _, state = session.learned(silo.course)
    assert same(state, expected)
    assert len(session.repairs) == 1
    assert STATE_FILE in session.repairs[0]
    again = fresh(silo)
    again.learned(silo.course)
    assert again.repairs == []  # the file was replaced by a sound one


def test_a_state_of_other_sums_or_of_another_plan_is_foreign(silo: SmallSilo, tmp_path: Path) -> None:
    silo.train(ROUNDS)
    fresh(silo).learned(silo.course)
    foreign = (silo.job_directory / STATE_FILE).read_bytes()
    for other in (
        replace(silo, sums=[]),
        replace(silo, sums=[], plan=small_plan(rounds=7)),
    ):
        other.train(ROUNDS, seed=1)
        (silo.job_directory / STATE_FILE).unlink()
        _, expected = fresh(other).learned(other.course)
        (silo.job_directory / STATE_FILE).write_bytes(foreign)
        session = fresh(other)
        _, state = session.learned(other.course)
        assert same(state, expected)
        assert len(session.repairs) == 1


def test_a_state_in_memory_of_other_sums_is_not_used(silo: SmallSilo) -> None:
    silo.train(ROUNDS)
    session = fresh(silo)
    session.learned(silo.course)
    other = replace(silo, sums=[])
    other.train(ROUNDS, seed=1)
    _, expected = fresh(other).learned(other.course)
    _, state = session.learned(other.course)
    assert same(state, expected)
    assert session.repairs


# ── opened sums ─────────────────────────────────────────────────────────────────────────────────────────────


def other_integer(path: Path) -> None:
    integers = np.load(path)
    integers[0] += 1
    np.save(path, integers)


def other_type(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


@pytest.mark.parametrize(
    "damage", [other_integer, other_type, cut_short, lambda path: path.write_bytes(b"")],
    ids=["altered", "floats", "cut", "empty"],
)  # fmt: skip
def test_a_damaged_sum_is_never_absorbed(silo: SmallSilo, damage: Callable[[Path], object]) -> None:
    silo.train(ROUNDS)
    damage(silo.sums[1].path)
    session = fresh(silo)
    with pytest.raises(SumMissingError) as caught:
        session.learned(silo.course)
    assert (caught.value.round, caught.value.was_damaged) == (2, True)
    # What came before it is kept; the sum opened again, everything goes on.
    silo.sums[0].path.unlink()
    rest = replace(silo, sums=silo.sums[:1])
    rest.train(1, seed=0)
    _, state = session.learned(silo.course_after(1))
    assert state


def test_a_sum_counts_for_its_place_only(silo: SmallSilo) -> None:
    """The digests are a chain: a true sum of another round is not this round's."""
    silo.train(ROUNDS)
    silo.sums[2].path.write_bytes(silo.sums[1].path.read_bytes())
    with pytest.raises(SumMissingError) as caught:
        fresh(silo).learned(silo.course)
    assert caught.value.round == 3


def test_a_sum_that_leads_nowhere_is_said_to_and_the_state_before_it_stands(silo: SmallSilo) -> None:
    silo.train(2)
    silo.opened(np.arange(3))
    session = fresh(silo)
    with pytest.raises(NoNextStateError) as caught:
        session.learned(silo.course)
    assert caught.value.round == 3
    _, state = session.learned(silo.course_after(2))
    (silo.job_directory / STATE_FILE).unlink()
    assert same(state, fresh(silo).learned(silo.course_after(2))[1])


# ── one session a silo ──────────────────────────────────────────────────────────────────────────────────────


def test_another_jobs_task_ends_the_session_and_so_does_the_jobs_end(silo: SmallSilo) -> None:
    first = session_of(silo.job_directory)
    assert session_of(silo.job_directory) is first
    other = silo.job_directory.with_name("ef" * 16)
    assert session_of(other) is not first
    assert session_of(silo.job_directory) is not first
    kept = session_of(silo.job_directory)
    end_session(other)  # not the one that is kept
    assert session_of(silo.job_directory) is kept
    end_session(silo.job_directory)
    assert session_of(silo.job_directory) is not kept


def test_a_key_holder_serves_its_own_secret_only(silo: SmallSilo) -> None:
    session = fresh(silo)
    one, other = (KeyHolder.generate().secret_bytes() for _ in range(2))
    holder = session.holder(one)
    assert session.holder(one) is holder
    assert session.holder(other).secret_bytes() == other


def test_the_few_users_looked_at_are_the_same_while_the_rows_are(
    silo: SmallSilo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("silo.session.MAX_USERS_LOOKED_AT", 7)
    session = fresh(silo)
    rows = session.rows(silo.directory, silo.plan, silo.dataset)
    some = session.some_users(rows)
    assert (some.num_users, some.user_ids) == (7, rows.train.user_ids[:7])
    assert session.some_users(rows) is some
    silo.write_rows([[0], [1]])
    changed = session.rows(silo.directory, silo.plan, silo.dataset)
    assert session.some_users(changed).num_users == 2
