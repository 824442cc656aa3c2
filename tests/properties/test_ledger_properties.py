from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from privacy.accounting import Spending, admit, epsilon_of
from privacy.budget import Budget, RenyiFilter, ZcdpFilter
from privacy.errors import BudgetExceededError, DeniedError
from privacy.events import SAMPLER, Event, EventCount, GaussianEvent, PureEvent
from privacy.ledger.chain import verify_chain
from privacy.ledger.fold import Fold
from privacy.ledger.ledger import Ledger
from tests.contracts.ledger_tools import Owner, budget, open_ledger, open_log, reserve, tampering

EVENTS: tuple[Event, ...] = (
    GaussianEvent(noise_multiplier=2.0, sampler=SAMPLER),
    GaussianEvent(noise_multiplier=5.5, sampler=SAMPLER, clamp_probability=1e-13),
    PureEvent(epsilon=0.25),
)
FILTERS = (ZcdpFilter(), RenyiFilter(orders=(2.0, 8.0, 32.0)))
COLUMNS = ("at", "kind", "payload", "previous", "hash", "key_id", "signature")
JOBS = [f"job-{number}" for number in range(5)]

events = st.sampled_from(EVENTS)
counts = st.lists(st.tuples(events, st.integers(1, 4)), min_size=1, max_size=3)


class LedgerMachine(RuleBasedStateMachine):
    """Whatever is asked of a ledger, in whatever order, and however often it is reopened."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "ledger.db"
        self.version = 1
        self.filter = FILTERS[0]
        self.charged: dict[tuple[str, int, int], Event] = {}
        self.limit = 0.0
        self.ledger = open_ledger(self.path)
        self.set_budget(4.0)

    def teardown(self) -> None:
        self.ledger.close()
        assert list(verify_chain(self.path, Owner().verify)) == []
        self.directory.cleanup()

    def policy(self, version: int | None = None) -> str:
        return f"{version or self.version:064x}"

    def set_budget(self, epsilon: float) -> None:
        wanted = Budget(epsilon=epsilon, delta=1e-5, filter=self.filter)
        self.ledger.open_account("customers", wanted, self.policy(), self.version)
        self.limit = max(self.limit, epsilon)

    @precondition(lambda self: not self.ledger.state().jobs)
    @rule()
    def start_over_with_the_other_filter(self) -> None:
        self.ledger.close()
        self.path = self.path.with_name(f"ledger-{self.version}-renyi.db")
        self.filter = FILTERS[1]
        self.ledger = open_ledger(self.path)
        self.limit = 0.0
        self.set_budget(4.0)

    @rule(epsilon=st.sampled_from([0.5, 2.0, 4.0, 6.0]))
    def sign_a_newer_policy(self, epsilon: float) -> None:
        self.version += 1
        self.set_budget(epsilon)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = open_ledger(self.path)

    @rule(job=st.sampled_from(JOBS), wanted=counts)
    def reserve(self, job: str, wanted: list[tuple[Event, int]]) -> None:
        asked = [EventCount(event, count) for event, count in wanted]
        before = self.ledger.state()
        try:
            reserve(self.ledger, job, events=asked, policy_sha256=self.policy())
        except DeniedError:
            assert self.ledger.state() == before

    @rule(job=st.sampled_from(JOBS), round_=st.integers(0, 2), attempt=st.integers(0, 1), event=events)
    def commit(self, job: str, round_: int, attempt: int, event: Event) -> None:
        before, head = self.ledger.state(), self.ledger.head()
        place = (job, round_, attempt)
        try:
            charge = self.ledger.commit(job, round=round_, attempt=attempt, event=event)
        except DeniedError:
            assert (self.ledger.state(), self.ledger.head()) == (before, head)
            return
        if place in self.charged:
            assert self.charged[place] == event
            assert self.ledger.head() == head
        self.charged[place] = charge.event

    @rule(job=st.sampled_from(JOBS))
    def release(self, job: str) -> None:
        try:
            self.ledger.release_rest(job)
        except DeniedError:
            assert job not in self.ledger.state().jobs

    @invariant()
    def what_was_charged_is_what_was_committed(self) -> None:
        status = self.ledger.status("customers")
        assert sum(count for _, count in status.committed) == len(self.charged)
        total = epsilon_of([EventCount(event, 1) for event in self.charged.values()], 1e-5, self.filter)
        assert status.epsilon_spent == total

    @invariant()
    def the_account_stays_within_its_budget_unless_frozen(self) -> None:
        status = self.ledger.status("customers")
        assert status.epsilon_spent <= self.limit
        if not status.frozen:
            admit(status.counted, status.budget)

    @invariant()
    def the_entries_alone_make_the_same_state(self) -> None:
        fold, problems = Fold.of(self.ledger.entries())
        assert problems == ()
        assert fold.state() == self.ledger.state()


LedgerMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLedgerMachine = LedgerMachine.TestCase


@settings(max_examples=40, deadline=None)
@given(wanted=counts, epsilon=st.floats(0.2, 6.0), filter_=st.sampled_from(FILTERS))
def test_a_reservation_is_accepted_exactly_when_the_filter_admits_it(
    wanted: list[tuple[Event, int]], epsilon: float, filter_: ZcdpFilter | RenyiFilter
) -> None:
    asked = [EventCount(event, count) for event, count in wanted]
    given_budget = budget(epsilon, filter=filter_)
    with tempfile.TemporaryDirectory() as directory, open_ledger(Path(directory) / "ledger.db") as ledger:
        ledger.open_account("customers", given_budget, "a" * 64, 1)
        try:
            admit(Spending.of(asked, filter_), given_budget)
        except BudgetExceededError:
            with pytest.raises(BudgetExceededError):
                reserve(ledger, events=asked)
        else:
            assert _spend_all(ledger, asked) <= epsilon


def _spend_all(ledger: Ledger, asked: list[EventCount]) -> float:
    """Everything reserved can be committed, and then it is spent."""
    reservation = reserve(ledger, events=asked)
    each = [event for event, count in reservation.events for _ in range(count)]
    for attempt, event in enumerate(each):
        ledger.commit(reservation, round=1, attempt=attempt, event=event)
    assert ledger.status("customers").outstanding == ()
    return ledger.status("customers").epsilon_spent


@pytest.fixture(scope="module")
def four_entries(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("log") / "log.db"
    with open_log(path) as log:
        for number in range(4):
            log.append("note", {"n": number, "text": "a text"})
    return path.read_bytes()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_altered_letter_of_any_entry_is_found_at_that_entry(
    four_entries: bytes, data: st.DataObject
) -> None:
    seq, column = data.draw(st.integers(1, 4)), data.draw(st.sampled_from(COLUMNS))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.db"
        path.write_bytes(four_entries)
        with tampering(path) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            (text,) = connection.execute(f"SELECT {column} FROM entries WHERE seq = ?", (seq,)).fetchone()
            position = data.draw(st.integers(0, len(text) - 1))
            letter = data.draw(st.characters(codec="utf-8").filter(lambda c: c != text[position]))
            altered = text[:position] + letter + text[position + 1 :]
            connection.execute(f"UPDATE entries SET {column} = ? WHERE seq = ?", (altered, seq))
        assert seq in {problem.seq for problem in verify_chain(path, Owner().verify)}
