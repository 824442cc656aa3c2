"""What a ledger knows at one moment, as frozen values without a file behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from privacy.accounting import Spending, admit
from privacy.budget import Budget
from privacy.errors import BudgetExceededError, DeniedError
from privacy.events import Event, EventCount
from privacy.ledger.records import CharterAdopted, PolicyFrozen, count_events, event_counts


class AccountFrozenError(BudgetExceededError):
    """The budget was lowered below what the account already counts as spent."""

    code = "account_frozen"


@dataclass(frozen=True)
class Standing:
    """What the filter judges of an account, already composed: deciding takes no look at its history.

    Attributes:
        account: the population.
        budget: what it may spend.
        spent: everything committed.
        outstanding: what open jobs reserved and have not committed.
    """

    account: str
    budget: Budget
    spent: Spending
    outstanding: tuple[EventCount, ...]

    @cached_property
    def counted(self) -> Spending:
        """Committed and reserved together: what the filter judges."""
        spending = self.spent
        for event, count in self.outstanding:
            spending = spending.plus(event, count)
        return spending

    @cached_property
    def frozen(self) -> bool:
        """Whether a lowered budget no longer covers what is committed and reserved."""
        try:
            admit(self.counted, self.budget)
        except DeniedError:
            return True
        return False

    def admit(self, events: Iterable[EventCount]) -> Spending:
        """Accept ``events`` on top of everything committed and reserved.

        Returns:
            The spending with them, accepted by the filter; this value stays as it is.

        Raises:
            AccountFrozenError: the account pays for nothing at present.
            BudgetExceededError: the events do not fit.
            UnsupportedEventError: the account's filter cannot price an event.
        """
        if self.frozen:
            raise AccountFrozenError(
                "the account is frozen: its budget was lowered below what is spent and reserved",
                where=self.account,
                remedy="wait for open jobs to end, or sign a newer policy with a larger budget",
            )
        spending = self.counted
        for event, count in events:
            spending = spending.plus(event, count)
        return admit(spending, self.budget)


@dataclass(frozen=True)
class AccountStatus:
    """One population's account.

    Reserved events count as spent until they are released: the filter judges both together, so whatever the
    open jobs do, the account stays within its budget.

    Attributes:
        account: the population.
        budget: what it may spend; the filter is fixed for the account's life.
        policy_sha256: digest of the policy the budget comes from.
        policy_version: that policy's version.
        committed: what was released, equal events counted together, for ever.
        outstanding: what open jobs reserved and have not committed.
    """

    account: str
    budget: Budget
    policy_sha256: str
    policy_version: int
    committed: tuple[EventCount, ...] = ()
    outstanding: tuple[EventCount, ...] = ()

    @cached_property
    def spent(self) -> Spending:
        """What was committed, composed under the account's filter."""
        return Spending.of(self.committed, self.budget.filter)

    @cached_property
    def reserved(self) -> Spending:
        """What open jobs may still commit, composed alone."""
        return Spending.of(self.outstanding, self.budget.filter)

    @property
    def counted(self) -> Spending:
        """Committed and reserved together: what the filter judges."""
        return self.standing.counted

    @cached_property
    def standing(self) -> Standing:
        """The account as the filter sees it."""
        return Standing(self.account, self.budget, self.spent, self.outstanding)

    @cached_property
    def epsilon_spent(self) -> float:
        """Epsilon of what was committed, at the budget's delta."""
        return self.spent.epsilon(self.budget.delta)

    @cached_property
    def epsilon_reserved(self) -> float:
        """What the open reservations add to it (composition is not additive: this is a difference)."""
        return self.counted.epsilon(self.budget.delta) - self.epsilon_spent

    @cached_property
    def epsilon_remaining(self) -> float:
        """Budget minus committed and reserved, at least 0."""
        return max(0.0, self.budget.epsilon - self.counted.epsilon(self.budget.delta))

    @property
    def frozen(self) -> bool:
        """Whether a lowered budget no longer covers what is committed and reserved."""
        return self.standing.frozen

    def admit(self, events: Iterable[EventCount]) -> Spending:
        """Accept ``events`` on top of everything committed and reserved; see :meth:`Standing.admit`."""
        return self.standing.admit(events)


@dataclass(frozen=True)
class Allowance:
    """How often a job may commit one event, and how often it did."""

    event: Event
    reserved: int
    committed: int


@dataclass(frozen=True)
class JobStatus:
    """One job's reservation.

    Attributes:
        job: which job.
        account: who pays.
        dataset: the rows it may touch.
        plan_sha256: digest of its plan.
        policy_sha256: digest of the policy that allowed it.
        requested_by: who proposed it.
        seq: number of the entry that reserved.
        allowances: what it may commit and did.
        open: whether it may still commit (nothing was released yet).
    """

    job: str
    account: str
    dataset: str
    plan_sha256: str
    policy_sha256: str
    requested_by: str
    seq: int
    allowances: tuple[Allowance, ...]
    open: bool

    @property
    def outstanding(self) -> tuple[EventCount, ...]:
        """What it may still commit."""
        if not self.open:
            return ()
        rest = (EventCount(item.event, item.reserved - item.committed) for item in self.allowances)
        return tuple(item for item in rest if item.count)


@dataclass(frozen=True)
class LedgerState:
    """Every account and job of a ledger at one moment; a pure value.

    Attributes:
        accounts: by population.
        jobs: by job.
        charter: the charter it is kept under; None where no entry says so yet.
        freeze: the freeze that stops the newest policy versions; None where there never was one.
    """

    accounts: Mapping[str, AccountStatus]
    jobs: Mapping[str, JobStatus]
    charter: CharterAdopted | None = None
    freeze: PolicyFrozen | None = None

    def home_of(self, dataset: str) -> str | None:
        """The account that a dataset was first reserved on, None if it never was."""
        first = min(
            (job for job in self.jobs.values() if job.dataset == dataset),
            key=lambda job: job.seq,
            default=None,
        )
        return None if first is None else first.account

    def without(self, job: str) -> LedgerState:
        """The state as if ``job`` had not reserved: what its authorisation was, or would be, judged by.

        What the job committed stays spent.
        """
        found = self.jobs.get(job)
        if found is None:
            return self
        account = self.accounts[found.account]
        kept = count_events(account.outstanding)
        for key, count in count_events(found.outstanding).items():
            kept[key] -= count
        accounts = {**self.accounts, found.account: replace(account, outstanding=event_counts(kept))}
        jobs = {name: status for name, status in self.jobs.items() if name != job}
        return replace(self, accounts=accounts, jobs=jobs)
