from __future__ import annotations

import copy
import dataclasses
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from privacy.accounting import UnsupportedEventError, epsilon_of
from privacy.budget import RenyiFilter, ZcdpFilter
from privacy.errors import BudgetExceededError, ExitCode, UsageError
from privacy.events import SAMPLER, Event, EventCount, PoissonSampledGaussianEvent, PureEvent
from privacy.ledger.chain import read_entries, verify_chain
from privacy.ledger.fold import Fold
from privacy.ledger.ledger import (
    AccountFrozenError,
    Charge,
    ChargeRefusedError,
    ClockSetBackError,
    DatasetMovedError,
    FilterChangedError,
    Ledger,
    Receipt,
    Reservation,
    ReservationConflictError,
    StalePolicyError,
    UnknownAccountError,
)
from privacy.ledger.storage import LogCorruptError
from tests.contracts.ledger_tools import (
    CHEAP,
    EVENT,
    NEWER_POLICY,
    OTHER_EVENT,
    PLAN,
    POLICY,
    Owner,
    budget,
    commit_many,
    commit_until_killed,
    in_processes,
    killed_process,
    open_customers,
    open_ledger,
    open_log,
    reserve,
    reserve_at_once,
    reserve_once,
    tampering,
)

RENYI = RenyiFilter(orders=(2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
SAMPLED = PoissonSampledGaussianEvent(
    noise_multiplier=1.0, sample_rate=0.01, max_silos_per_user=1, sampler=SAMPLER
)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def kinds(ledger: Ledger) -> list[str]:
    return [entry.kind for entry in ledger.entries()]


def assert_sound(path: Path) -> None:
    """The chain is whole, the entries mean what they may, and the accounts beside them are theirs."""
    assert list(verify_chain(path, Owner().verify)) == []
    fold, problems = Fold.of(read_entries(path))
    assert problems == ()
    with open_ledger(path) as ledger:
        assert ledger.state() == fold.state()


class TestReserveThenCommit:
    def test_a_job_from_reservation_to_release(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reservation = reserve(ledger, count=2)
            charge = ledger.commit(reservation, round=1, attempt=0, event=EVENT)
            ledger.release_rest("job-1")
            status = ledger.status("customers")
            assert kinds(ledger) == ["account_opened", "reserved", "committed", "released"]
        assert (charge.job, charge.round, charge.attempt, charge.event) == ("job-1", 1, 0, EVENT)
        assert (charge.account, charge.dataset, charge.plan_sha256, charge.policy_sha256) == (
            "customers",
            "purchases",
            PLAN,
            POLICY,
        )
        assert status.epsilon_spent == epsilon_of([EventCount(EVENT, 1)], 1e-5, ZcdpFilter())
        assert status.epsilon_reserved == 0
        assert status.epsilon_remaining == pytest.approx(4.0 - status.epsilon_spent)
        assert_sound(path)

    def test_an_entry_names_dataset_job_place_digests_event_and_who_asked(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.commit(reserve(ledger), round=3, attempt=2, event=EVENT)
            entry = list(ledger.entries())[-1]
        assert entry.payload == {
            "account": "customers",
            "dataset": "purchases",
            "job": "job-1",
            "round": 3,
            "attempt": 2,
            "plan_sha256": PLAN,
            "policy_sha256": POLICY,
            "requested_by": "shop-a",
            "event": {
                "kind": "gaussian",
                "noise_multiplier": 2,
                "sampler": "discrete-gaussian/v1",
                "clamp_probability": 0,
            },
        }

    def test_reserved_counts_as_spent_until_released(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, "job-1", count=2)
            with pytest.raises(BudgetExceededError):
                reserve(ledger, "job-2", count=1)
            ledger.release_rest("job-1")
            reserve(ledger, "job-2", count=2)
        assert_sound(path)

    def test_what_was_committed_stays_spent_after_the_release(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.commit(reserve(ledger, count=2), round=1, attempt=0, event=EVENT)
            ledger.release_rest("job-1")
            with pytest.raises(BudgetExceededError):
                reserve(ledger, "job-2", count=2)
            reserve(ledger, "job-3", count=1)

    def test_a_reservation_that_does_not_fit_is_refused_before_it_writes(self, path: Path) -> None:
        with open_customers(path) as ledger:
            before, head = ledger.state(), ledger.head()
            with pytest.raises(BudgetExceededError):
                reserve(ledger, count=3)
            assert (ledger.state(), ledger.head()) == (before, head)

    def test_an_event_the_filter_cannot_price_is_refused_before_it_writes(self, path: Path) -> None:
        with open_customers(path) as ledger:
            head = ledger.head()
            with pytest.raises(UnsupportedEventError):
                reserve(ledger, event=SAMPLED)
            assert ledger.head() == head

    def test_a_renyi_account_pays_for_sampled_events(self, path: Path) -> None:
        with open_ledger(path) as ledger:
            ledger.open_account("customers", budget(2.0, filter=RENYI), POLICY, 1)
            reservation = reserve(ledger, count=50, event=SAMPLED)
            ledger.commit(reservation, round=1, attempt=0, event=SAMPLED)
            with pytest.raises(BudgetExceededError):
                reserve(ledger, "job-2", count=100_000, event=SAMPLED)
        assert_sound(path)

    def test_events_of_several_kinds_compose_in_one_account(self, path: Path) -> None:
        pure = PureEvent(epsilon=0.1)
        events = [EventCount(EVENT, 1), EventCount(pure, 2), EventCount(EVENT, 0), EventCount(pure, 1)]
        with open_customers(path) as ledger:
            reservation = reserve(ledger, events=events)
            assert sorted(count for _, count in reservation.events) == [1, 3]
            for attempt in range(3):
                ledger.commit(reservation, round=9, attempt=attempt, event=pure)
            expected = epsilon_of([EventCount(pure, 3)], 1e-5, ZcdpFilter())
            assert ledger.status("customers").epsilon_spent == expected
        assert_sound(path)

    def test_accounts_do_not_pay_for_each_other(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.open_account("readers", budget(), POLICY, 1)
            reserve(ledger, "job-1", count=2)
            reserve(ledger, "job-2", count=2, account="readers", dataset="loans")
            assert ledger.status("readers").committed == ()
        assert_sound(path)


class TestExactlyOnce:
    def test_a_second_commit_of_the_same_place_returns_the_same_charge(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reservation = reserve(ledger)
            first = ledger.commit(reservation, round=1, attempt=0, event=EVENT)
            head = ledger.head()
            assert ledger.commit("job-1", round=1, attempt=0, event=EVENT) == first
            ledger.release_rest("job-1")
            assert ledger.commit("job-1", round=1, attempt=0, event=EVENT) == first
            assert first.seq == head.seq
        assert_sound(path)

    def test_after_a_crash_the_charge_is_still_there(self, path: Path) -> None:
        ledger = open_customers(path)
        first = ledger.commit(reserve(ledger), round=1, attempt=0, event=EVENT)
        ledger.close()
        with open_ledger(path) as again:
            assert again.commit("job-1", round=1, attempt=0, event=EVENT) == first
            assert again.status("customers").committed == ((EVENT, 1),)

    def test_one_place_is_never_charged_for_two_events(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, events=[EventCount(EVENT, 1), EventCount(OTHER_EVENT, 1)])
            ledger.commit("job-1", round=1, attempt=0, event=EVENT)
            with pytest.raises(ChargeRefusedError, match="another event"):
                ledger.commit("job-1", round=1, attempt=0, event=OTHER_EVENT)

    @pytest.mark.parametrize(
        "event", [OTHER_EVENT, PureEvent(epsilon=0.01), EVENT.model_copy(update={"clamp_probability": 1e-9})]
    )
    def test_an_event_that_was_not_reserved_is_refused(self, path: Path, event: Event) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, count=1)
            with pytest.raises(ChargeRefusedError, match="not among"):
                ledger.commit("job-1", round=1, attempt=0, event=event)
            assert ledger.status("customers").committed == ()

    def test_an_event_that_is_used_up_is_refused(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, count=2)
            for attempt in range(2):
                ledger.commit("job-1", round=1, attempt=attempt, event=EVENT)
            with pytest.raises(ChargeRefusedError, match="used up"):
                ledger.commit("job-1", round=1, attempt=2, event=EVENT)

    def test_a_job_that_reserved_nothing_is_not_charged(self, path: Path) -> None:
        with open_customers(path) as ledger, pytest.raises(ChargeRefusedError, match="reserved nothing"):
            ledger.commit("job-1", round=1, attempt=0, event=EVENT)

    def test_a_job_that_is_over_is_not_charged(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reservation = reserve(ledger, count=2)
            ledger.release_rest("job-1")
            with pytest.raises(ChargeRefusedError, match="over"):
                ledger.commit(reservation, round=1, attempt=0, event=EVENT)

    def test_a_job_reserves_once(self, path: Path) -> None:
        with open_customers(path) as ledger:
            first = reserve(ledger, count=2)
            head = ledger.head()
            assert reserve(ledger, count=2) == first
            assert reserve(ledger, events=[EventCount(EVENT, 1), EventCount(EVENT, 1)]) == first
            assert ledger.head() == head

    @pytest.mark.parametrize(
        "change",
        [
            {"count": 1},
            {"plan_sha256": "d" * 64},
            {"dataset": "views"},
            {"requested_by": "shop-b"},
            {"policy_sha256": NEWER_POLICY},
        ],
    )
    def test_a_job_never_reserves_something_else(self, path: Path, change: dict[str, Any]) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, count=2)
            with pytest.raises(ReservationConflictError, match="something else"):
                reserve(ledger, **({"count": 2} | change))

    def test_a_job_that_is_over_does_not_begin_again(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reserve(ledger)
            first = ledger.release_rest("job-1")
            assert ledger.release_rest("job-1") == first
            with pytest.raises(ReservationConflictError, match="over"):
                reserve(ledger)

    def test_releasing_without_a_reservation_is_refused(self, path: Path) -> None:
        with open_customers(path) as ledger, pytest.raises(ReservationConflictError):
            ledger.release_rest("job-1")

    def test_the_release_says_what_was_not_used(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.commit(reserve(ledger, count=2), round=1, attempt=0, event=EVENT)
            (item,) = ledger.release_rest("job-1").payload["events"]
            assert item["count"] == 1


class TestProofs:
    def test_only_a_ledger_makes_a_charge_or_a_reservation(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reservation = reserve(ledger)
            charge = ledger.commit(reservation, round=1, attempt=0, event=EVENT)
        for proof in (reservation, charge):
            fields = {item.name: getattr(proof, item.name) for item in dataclasses.fields(proof)}
            with pytest.raises(TypeError, match="by the ledger only"):
                type(proof)(**fields, token=object())
            with pytest.raises((TypeError, ValueError)):
                dataclasses.replace(proof, seq=1)
            with pytest.raises(dataclasses.FrozenInstanceError):
                proof.job = "job-2"  # type: ignore[misc]
        assert copy.copy(charge) == charge

    def test_nothing_but_the_ledger_calls_the_makers(self) -> None:
        root = Path(__file__).resolve().parents[2]
        packages = ("privacy", "policies", "federation", "silo")
        sources = [path for name in packages for path in (root / name).rglob("*.py")]
        users = {str(path.relative_to(root)) for path in sources if "ledger.proofs" in path.read_text()}
        assert users == {"privacy/ledger/ledger.py"}

    def test_types_are_exported_where_others_look_for_them(self) -> None:
        assert Charge.__module__ == Reservation.__module__ == "privacy.ledger.proofs"


class TestBudgetsComeFromThePolicy:
    def test_the_same_terms_again_write_nothing(self, path: Path) -> None:
        with open_customers(path) as ledger:
            head = ledger.head()
            ledger.open_account("customers", budget(), POLICY, 1)
            assert ledger.head() == head

    def test_a_newer_policy_is_an_entry_also_with_the_same_budget(self, path: Path) -> None:
        with open_customers(path) as ledger:
            status = ledger.open_account("customers", budget(), NEWER_POLICY, 2)
            assert (status.policy_version, status.policy_sha256) == (2, NEWER_POLICY)
            assert kinds(ledger) == ["account_opened", "policy_renewed"]
        assert_sound(path)

    def test_raising_needs_a_newer_policy_and_is_an_entry(self, path: Path) -> None:
        with open_customers(path) as ledger:
            with pytest.raises(StalePolicyError):
                ledger.open_account("customers", budget(8.0), POLICY, 1)
            with pytest.raises(StalePolicyError):
                ledger.open_account("customers", budget(), NEWER_POLICY, 1)
            ledger.open_account("customers", budget(8.0), NEWER_POLICY, 2)
            assert kinds(ledger) == ["account_opened", "budget_changed"]
            reserve(ledger, count=5, policy_sha256=NEWER_POLICY)
        assert_sound(path)

    def test_an_older_policy_is_refused(self, path: Path) -> None:
        with open_ledger(path) as ledger:
            ledger.open_account("customers", budget(4.0), NEWER_POLICY, 2)
            with pytest.raises(StalePolicyError):
                ledger.open_account("customers", budget(8.0), POLICY, 1)

    @pytest.mark.parametrize(
        ("before", "after"), [(ZcdpFilter(), RENYI), (RENYI, RenyiFilter(orders=(2.0, 4.0)))]
    )
    def test_the_filter_is_fixed_for_an_accounts_life(self, path: Path, before: Any, after: Any) -> None:
        with open_ledger(path) as ledger:
            ledger.open_account("customers", budget(filter=before), POLICY, 1)
            with pytest.raises(FilterChangedError):
                ledger.open_account("customers", budget(filter=after), NEWER_POLICY, 2)

    def test_a_job_is_reserved_under_the_policy_the_budget_comes_from(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.open_account("customers", budget(), NEWER_POLICY, 2)
            with pytest.raises(StalePolicyError):
                reserve(ledger, policy_sha256=POLICY)

    def test_a_dataset_never_moves_to_a_fresh_account(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.commit(reserve(ledger, count=2), round=1, attempt=0, event=EVENT)
            ledger.release_rest("job-1")
            ledger.open_account("customers-2", budget(), POLICY, 1)
            head = ledger.head()
            with pytest.raises(DatasetMovedError, match="another account"):
                reserve(ledger, "job-2", account="customers-2")
            assert ledger.head() == head
            assert ledger.state().home_of("purchases") == "customers"
            assert ledger.state().home_of("visits") is None
            reserve(ledger, "job-3", account="customers-2", dataset="visits")
            reserve(ledger, "job-4", dataset="returns")
        assert_sound(path)

    def test_no_remedy_points_to_a_fresh_account(self, path: Path) -> None:
        with open_customers(path) as ledger:
            with pytest.raises(FilterChangedError) as caught:
                ledger.open_account("customers", budget(filter=RENYI), NEWER_POLICY, 2)
            assert caught.value.remedy is not None
            assert "new population" not in caught.value.remedy

    def test_a_population_without_a_budget_pays_nothing(self, path: Path) -> None:
        with open_customers(path) as ledger:
            with pytest.raises(UnknownAccountError):
                reserve(ledger, account="strangers")
            with pytest.raises(UnknownAccountError):
                ledger.status("strangers")

    def test_lowering_below_what_is_spent_freezes_the_account(self, path: Path) -> None:
        with open_customers(path) as ledger:
            ledger.commit(reserve(ledger), round=1, attempt=0, event=EVENT)
            ledger.release_rest("job-1")
            assert not ledger.status("customers").frozen
            lowered = ledger.open_account("customers", budget(1.0), NEWER_POLICY, 2)
            assert lowered.frozen
            assert lowered.epsilon_remaining == 0
            with pytest.raises(AccountFrozenError):
                reserve(ledger, "job-2", event=PureEvent(epsilon=0.001), policy_sha256=NEWER_POLICY)
            raised = ledger.open_account("customers", budget(4.0), "e" * 64, 3)
            assert not raised.frozen
            reserve(ledger, "job-2", policy_sha256="e" * 64)
        assert_sound(path)

    def test_a_running_job_stops_where_the_lowered_budget_ends(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, count=2)
            ledger.open_account("customers", budget(2.5), NEWER_POLICY, 2)
            assert ledger.status("customers").frozen
            ledger.commit("job-1", round=1, attempt=0, event=EVENT)
            head = ledger.head()
            with pytest.raises(BudgetExceededError):
                ledger.commit("job-1", round=2, attempt=0, event=EVENT)
            assert ledger.head() == head
            ledger.release_rest("job-1")
            assert not ledger.status("customers").frozen
        assert_sound(path)


class TestWitness:
    def receipt(self, **changes: Any) -> dict[str, Any]:
        content = {"silo": "shop-a", "by": "shop-b", "head_seq": 3, "head_hash": "d" * 64, "job": "job-1"}
        return content | {"signature": "c2lnbmVk"} | changes

    def test_receipts_are_kept_once(self, path: Path) -> None:
        with open_customers(path) as ledger:
            entry = ledger.witness("job-1", [self.receipt(), self.receipt(by="shop-c")])
            again = ledger.witness("job-1", [self.receipt(by="shop-c"), Receipt(**self.receipt())])
            assert again == entry
            assert [item["by"] for item in entry.payload["receipts"]] == ["shop-b", "shop-c"]
        assert_sound(path)

    def test_a_late_receipt_is_a_further_entry(self, path: Path) -> None:
        with open_customers(path) as ledger:
            first = ledger.witness("job-1", [self.receipt()])
            assert ledger.witness("job-1", [self.receipt(by="shop-c")]).seq == first.seq + 1

    @pytest.mark.parametrize("receipts", [[], [{"job": "job-2"}]])
    def test_receipts_of_another_job_or_none_are_refused(
        self, path: Path, receipts: list[dict[str, Any]]
    ) -> None:
        with open_customers(path) as ledger, pytest.raises(UsageError):
            ledger.witness("job-1", [self.receipt(**changes) for changes in receipts])


class TestState:
    def test_the_state_without_a_job_is_what_its_authorisation_is_judged_by(self, path: Path) -> None:
        with open_customers(path) as ledger:
            before = ledger.state()
            reserve(ledger, count=2)
            with pytest.raises(BudgetExceededError):
                ledger.state().accounts["customers"].admit([EventCount(EVENT, 2)])
            assert ledger.state().without("job-1") == before
            ledger.commit("job-1", round=1, attempt=0, event=EVENT)
            rest = ledger.state().without("job-1").accounts["customers"]
            assert (rest.committed, rest.outstanding) == (((EVENT, 1),), ())
            assert ledger.state().without("unknown") == ledger.state()

    def test_a_snapshot_does_not_change_afterwards(self, path: Path) -> None:
        with open_customers(path) as ledger:
            before = ledger.state()
            reserve(ledger)
            assert before.jobs == {}
            assert before.accounts["customers"].outstanding == ()

    def test_accounts_that_are_not_those_of_the_last_entry_are_refused(self, path: Path) -> None:
        open_customers(path).close()
        with open_log(path) as log:
            log.append("note", {})
        with open_ledger(path) as ledger, pytest.raises(LogCorruptError):
            reserve(ledger)


class TestCrash:
    @pytest.mark.parametrize("number", [1, 4])
    def test_killed_inside_a_charge_leaves_the_charges_before_it_and_no_half(
        self, path: Path, number: int
    ) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, count=10, event=CHEAP)
        assert killed_process(commit_until_killed, path, number) == -signal.SIGKILL
        assert_sound(path)
        with open_ledger(path) as ledger:
            assert sum(count for _, count in ledger.status("customers").committed) == number - 1
            charge = ledger.commit("job-1", round=1, attempt=number - 1, event=CHEAP)
            assert charge.seq == 2 + number
        assert_sound(path)


class TestConcurrentProcesses:
    def test_processes_never_overdraw(self, path: Path) -> None:
        open_customers(path).close()
        answers = in_processes(reserve_once, [(path, f"job-{n}") for n in range(4)])
        assert sorted(answers) == ["budget_exceeded", "budget_exceeded", "reserved", "reserved"]
        assert_sound(path)

    def test_fifty_reservations_at_once_never_overdraw_and_never_wait_for_each_other_in_a_ring(
        self, path: Path
    ) -> None:
        """The budget pays for twelve of fifty; ten threads in each of five processes."""
        fits = 12
        epsilon = epsilon_of([EventCount(EVENT, fits)], 1e-5, ZcdpFilter())
        open_customers(path, epsilon).close()
        names = [[f"job-{process}-{thread}" for thread in range(10)] for process in range(5)]
        answers = in_processes(reserve_at_once, [(path, group) for group in names])
        flat = [answer for group in answers for answer in group]
        assert flat.count("reserved") == fits
        assert flat.count("budget_exceeded") == 50 - fits
        assert_sound(path)

    def test_processes_that_reserve_the_same_job_reserve_once(self, path: Path) -> None:
        assert in_processes(reserve_once, [(path, "job-1")] * 3) == ["reserved"] * 3
        with open_ledger(path) as ledger:
            assert ledger.status("customers").outstanding == ((EVENT, 1),)

    def test_processes_that_commit_the_same_places_charge_once(self, path: Path) -> None:
        with open_customers(path) as ledger:
            reserve(ledger, count=2)
        first, second, third = in_processes(commit_many, [(path, 2)] * 3)
        assert first == second == third
        with open_ledger(path) as ledger:
            assert ledger.status("customers").committed == ((EVENT, 2),)
        assert_sound(path)


class TestClock:
    """A clock that goes back could revive an expired policy."""

    def ledger(self, path: Path, now: datetime) -> Ledger:
        owner = Owner()
        return Ledger.open(path, sign=owner.sign, key_id=owner.key_id, clock=lambda: now)

    @pytest.fixture
    def started(self, path: Path) -> Path:
        with self.ledger(path, NOON) as ledger:
            ledger.open_account("customers", budget(), POLICY, 1)
            reserve(ledger, "job-1", count=2, event=CHEAP)
        return path

    def test_no_new_job_is_reserved_for_and_nothing_is_written(self, started: Path) -> None:
        with self.ledger(started, NOON - timedelta(hours=1)) as ledger:
            head = ledger.head()
            with pytest.raises(ClockSetBackError, match="11:00") as caught:
                reserve(ledger, "job-2", event=CHEAP)
            assert caught.value.exit_code == ExitCode.HOST
            assert ledger.head() == head

    def test_a_running_job_charges_all_the_same_and_that_is_no_way_around(self, started: Path) -> None:
        with self.ledger(started, NOON - timedelta(hours=1)) as ledger:
            ledger.commit("job-1", round=1, attempt=0, event=CHEAP)
            ledger.release_rest("job-1")
            with pytest.raises(ClockSetBackError):
                reserve(ledger, "job-2", event=CHEAP)

    def test_a_few_minutes_are_no_matter(self, started: Path) -> None:
        with self.ledger(started, NOON - timedelta(minutes=9)) as ledger:
            reserve(ledger, "job-2", event=CHEAP)

    def test_with_a_newer_policy_time_begins_anew(self, started: Path) -> None:
        """The way out for a clock that was ahead once, and is right now."""
        with self.ledger(started, NOON - timedelta(days=30)) as ledger:
            ledger.open_account("customers", budget(), NEWER_POLICY, 2)
            reserve(ledger, "job-2", event=CHEAP, policy_sha256=NEWER_POLICY)
        assert_sound(started)


class TestSumsBesideTheAccounts:
    """What keeps an append cheap is never more than a shortcut."""

    @pytest.fixture
    def used(self, path: Path) -> Path:
        with open_customers(path) as ledger:
            reserve(ledger, count=2, event=CHEAP)
            ledger.commit("job-1", round=1, attempt=0, event=CHEAP)
        return path

    def test_a_ledger_of_an_earlier_version_gets_them_when_it_is_opened(self, used: Path) -> None:
        with tampering(used) as connection:
            for statement in (
                "DROP TABLE balances",
                "DROP TABLE clock",
                "DROP INDEX jobs_of_dataset",
                "DROP INDEX jobs_open",
            ):
                connection.execute(statement)
        with open_ledger(used) as ledger:
            assert ledger.commit("job-1", round=1, attempt=1, event=CHEAP).seq == 4
            reserve(ledger, "job-2", event=CHEAP)
        assert_sound(used)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE balances SET spent = replace(spent, '0.', '0.0')",
            "UPDATE balances SET sha256 = 'x'",
            "DELETE FROM balances",
        ],
    )
    def test_a_sum_with_a_wrong_bit_pays_for_nothing(self, used: Path, statement: str) -> None:
        with tampering(used) as connection:
            connection.execute(statement)
        with open_ledger(used) as ledger:
            head = ledger.head()
            with pytest.raises(LogCorruptError, match="what the account has spent"):
                reserve(ledger, "job-2", event=CHEAP)
            with pytest.raises(LogCorruptError):
                ledger.commit("job-1", round=1, attempt=1, event=CHEAP)
            assert ledger.head() == head
