"""The meaning of a ledger's entries, recomputed from the entries alone.

The ledger keeps its accounts in tables beside the entries so that an append need not read them all. This is
the other way to the same state, written apart, so that an auditor need not believe the tables. It takes an
entry in constant time: what was committed is composed as it comes, never again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from privacy.accounting import Spending, admit
from privacy.budget import Budget
from privacy.errors import DeniedError, TrustError
from privacy.events import Event, EventCount, Record
from privacy.ledger.chain import Entry
from privacy.ledger.checks import refuse_frozen, refuse_stale_charter
from privacy.ledger.records import (
    ACCOUNT_OPENED,
    AccountTerms,
    CharterAdopted,
    Committed,
    CountedEvent,
    PolicyFrozen,
    Receipt,
    Released,
    Reserved,
    Witnessed,
    count_events,
    event_counts,
    event_key,
    event_of,
    read_record,
)
from privacy.ledger.state import AccountStatus, Allowance, JobStatus, LedgerState


@dataclass(frozen=True, slots=True)
class FoldProblem:
    """An entry that a ledger would not have written. ``code`` is stable."""

    code: str
    seq: int
    text: str


class TermsAt(NamedTuple):
    """Terms of an account, and the entry that set them."""

    seq: int
    at: str
    terms: AccountTerms


class ReservedAt(NamedTuple):
    """A reservation, and the entry that made it."""

    seq: int
    at: str
    record: Reserved


class CharterAt(NamedTuple):
    """A charter, and the entry from which on it counts."""

    seq: int
    at: str
    record: CharterAdopted


class FrozenAt(NamedTuple):
    """A freeze, and the entry that noted it."""

    seq: int
    at: str
    record: PolicyFrozen


@dataclass
class _Job:
    reserved: Reserved
    seq: int
    allowed: dict[str, int]
    committed: dict[str, int] = field(default_factory=dict)
    open: bool = True

    def outstanding(self) -> dict[str, int]:
        if not self.open:
            return {}
        rest = {key: count - self.committed.get(key, 0) for key, count in self.allowed.items()}
        return {key: count for key, count in rest.items() if count > 0}


@dataclass
class _Account:
    terms: AccountTerms
    spent: Spending
    committed: dict[str, int] = field(default_factory=dict)
    outstanding: dict[str, int] = field(default_factory=dict)
    unpriceable: DeniedError | None = None
    changed: bool = False


class Fold:
    """Reads entries in order; after any of them :meth:`state` is the ledger's state at that entry.

    Attributes:
        charges: event key by (job, round, attempt).
        receipts: every receipt of every ``witnessed`` entry.
        last_charge_seq: number of the last ``committed`` entry, 0 if none.
        last_charge_job: its job.
        terms: every set of terms, in order.
        reservations: every job's first reservation, in order.
        charters: every charter that was adopted, in order.
        freezes: every freeze that was noted, in order.
    """

    def __init__(self) -> None:
        self.charges: dict[tuple[str, int, int], str] = {}
        self.receipts: list[Receipt] = []
        self.terms: list[TermsAt] = []
        self.reservations: list[ReservedAt] = []
        self.charters: list[CharterAt] = []
        self.freezes: list[FrozenAt] = []
        self.last_charge_seq = 0
        self.last_charge_job = ""
        self._freeze: PolicyFrozen | None = None
        self._accounts: dict[str, _Account] = {}
        self._jobs: dict[str, _Job] = {}
        self._homes: dict[str, str] = {}
        self._events: dict[str, Event] = {}

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> tuple[Fold, tuple[FoldProblem, ...]]:
        """Fold all ``entries`` and collect what is wrong with them."""
        fold = cls()
        return fold, tuple(problem for entry in entries for problem in fold.apply(entry))

    def apply(self, entry: Entry) -> Iterator[FoldProblem]:
        """Take one more entry; yields what is wrong with it.

        A wrong entry still counts as spent where it says that something was released.
        """
        try:
            record = read_record(entry)
        except TrustError as error:
            yield FoldProblem("entry_unknown", entry.seq, error.message)
            return
        handlers: dict[type[Record], Callable[..., Iterator[FoldProblem]]] = {
            AccountTerms: self._terms,
            Reserved: self._reserved,
            Committed: self._committed,
            Released: self._released,
            Witnessed: self._witnessed,
            CharterAdopted: self._charter,
            PolicyFrozen: self._frozen,
        }
        yield from handlers[type(record)](entry, record)

    def state(self) -> LedgerState:
        """Accounts and jobs after the entries so far."""
        jobs = {
            name: JobStatus(
                job=name,
                account=job.reserved.account,
                dataset=job.reserved.dataset,
                plan_sha256=job.reserved.plan_sha256,
                policy_sha256=job.reserved.policy_sha256,
                requested_by=job.reserved.requested_by,
                seq=job.seq,
                allowances=tuple(
                    Allowance(event_of(key), job.allowed[key], job.committed.get(key, 0))
                    for key in sorted(job.allowed)
                ),
                open=job.open,
            )
            for name, job in self._jobs.items()
        }
        return LedgerState(
            {name: self._status(name) for name in self._accounts},
            jobs,
            charter=self.charters[-1].record if self.charters else None,
            freeze=self._freeze,
        )

    def budget_of(self, account: str) -> Budget | None:
        """What an account may spend after the entries so far, None where there is none of this name."""
        found = self._accounts.get(account)
        return None if found is None else found.terms.budget

    def spent(self, account: str) -> Spending:
        """What an account's jobs committed so far.

        Raises:
            DeniedError: its filter cannot price something that was committed.
        """
        found = self._accounts[account]
        if found.unpriceable is not None:
            raise found.unpriceable
        return found.spent

    def counted(self, account: str) -> Spending:
        """Committed and reserved together: what the filter judges.

        Raises:
            DeniedError: its filter cannot price something of it.
        """
        spending = self.spent(account)
        for key, count in self._accounts[account].outstanding.items():
            spending = spending.plus(self._event(key), count)
        return spending

    def _status(self, name: str) -> AccountStatus:
        account = self._accounts[name]
        return AccountStatus(
            account=name,
            budget=account.terms.budget,
            policy_sha256=account.terms.policy_sha256,
            policy_version=account.terms.policy_version,
            committed=event_counts(account.committed),
            outstanding=event_counts(account.outstanding),
        )

    def _terms(self, entry: Entry, record: AccountTerms) -> Iterator[FoldProblem]:
        known = self._accounts.get(record.account)
        if (known is None) != (entry.kind == ACCOUNT_OPENED):
            text = f"account {record.account} was opened twice or changed before it was opened"
            yield FoldProblem("account_order", entry.seq, text)
        if known is not None and record.policy_version <= known.terms.policy_version:
            text = f"the terms of account {record.account} changed without a newer policy version"
            yield FoldProblem("policy_version", entry.seq, text)
        self.terms.append(TermsAt(entry.seq, entry.at, record))
        if known is None:
            spent = Spending.none(record.budget.filter)
            self._accounts[record.account] = _Account(record, spent)
            return
        if record.budget.filter != known.terms.budget.filter:
            text = f"the filter of account {record.account} changed; it is fixed for the account's life"
            yield FoldProblem("filter_changed", entry.seq, text)
            known.spent, known.unpriceable = Spending.none(record.budget.filter), None
            for key, count in known.committed.items():
                self._compose(known, key, count)
        known.terms, known.changed = record, True

    def _reserved(self, entry: Entry, record: Reserved) -> Iterator[FoldProblem]:
        account = self._accounts.get(record.account)
        if account is None:
            text = f"account {record.account} does not exist"
            yield FoldProblem("account_unknown", entry.seq, text)
            return
        if record.job in self._jobs:
            text = f"job {record.job} reserved twice"
            yield FoldProblem("reserved_twice", entry.seq, text)
            return
        try:
            refuse_frozen(self._freeze, account.terms.policy_version)
        except DeniedError as error:
            yield FoldProblem("reserved_while_frozen", entry.seq, f"job {record.job}: {error.message}")
        if record.policy_sha256 != account.terms.policy_sha256:
            text = f"job {record.job} was reserved under another policy than the account's"
            yield FoldProblem("policy_mismatch", entry.seq, text)
        home = self._homes.setdefault(record.dataset, record.account)
        if home != record.account:
            text = f"dataset {record.dataset} was reserved on account {record.account}, before on {home}"
            yield FoldProblem("dataset_moved", entry.seq, text)
        job = self._jobs[record.job] = _Job(record, entry.seq, _counts(record.events))
        self.reservations.append(ReservedAt(entry.seq, entry.at, record))
        _add(account.outstanding, job.allowed)
        yield from self._overdraft(entry, record.account)

    def _committed(self, entry: Entry, record: Committed) -> Iterator[FoldProblem]:
        job = self._jobs.get(record.job)
        if job is None:
            text = f"job {record.job} was charged and had reserved nothing"
            yield FoldProblem("charge_unreserved", entry.seq, text)
            return
        place = (record.job, record.round, record.attempt)
        label = f"job {record.job}, round {record.round}, attempt {record.attempt}"
        if place in self.charges:
            yield FoldProblem("double_spend", entry.seq, f"{label} was charged twice")
        if not _same_job(record, job.reserved):
            text = f"{label} names another account, dataset, plan, policy or proposer than its reservation"
            yield FoldProblem("charge_mismatch", entry.seq, text)
        key = event_key(record.event)
        account = self._accounts[job.reserved.account]
        if job.outstanding().get(key):
            _take(account.outstanding, {key: 1})
        else:
            text = f"{label} was charged for an event that was not, or no longer, reserved"
            yield FoldProblem("charge_unreserved", entry.seq, text)
        job.committed[key] = job.committed.get(key, 0) + 1
        _add(account.committed, {key: 1})
        self._compose(account, key, 1)
        self.charges[place] = key
        self.last_charge_seq, self.last_charge_job = entry.seq, record.job
        changed = self._accounts.get(record.account)
        if changed is not None and changed.changed:
            yield from self._overdraft(entry, record.account, only_committed=True)

    def _released(self, entry: Entry, record: Released) -> Iterator[FoldProblem]:
        job = self._jobs.get(record.job)
        if job is None or not job.open or job.reserved.account != record.account:
            text = f"job {record.job} released what it had not reserved"
            yield FoldProblem("release_exceeds", entry.seq, text)
            return
        outstanding = job.outstanding()
        released = _counts(record.events)
        if any(count > outstanding.get(key, 0) for key, count in released.items()):
            text = f"job {record.job} released more than it had reserved and not used"
            yield FoldProblem("release_exceeds", entry.seq, text)
        elif released != outstanding:
            text = f"job {record.job} released less than it had reserved and not used"
            yield FoldProblem("release_incomplete", entry.seq, text)
        _take(self._accounts[job.reserved.account].outstanding, outstanding)
        job.open = False

    def _witnessed(self, _entry: Entry, record: Witnessed) -> Iterator[FoldProblem]:
        self.receipts.extend(record.receipts)
        return iter(())

    def _charter(self, entry: Entry, record: CharterAdopted) -> Iterator[FoldProblem]:
        known = self.charters[-1].record if self.charters else None
        if known is not None:
            try:
                refuse_stale_charter(known, record)
            except TrustError as error:
                yield FoldProblem("charter_rolled_back", entry.seq, error.message)
        self.charters.append(CharterAt(entry.seq, entry.at, record))

    def _frozen(self, entry: Entry, record: PolicyFrozen) -> Iterator[FoldProblem]:
        self.freezes.append(FrozenAt(entry.seq, entry.at, record))
        if self._freeze is None or self._freeze.policy_version < record.policy_version:
            self._freeze = record
        return iter(())

    def _overdraft(self, entry: Entry, name: str, *, only_committed: bool = False) -> Iterator[FoldProblem]:
        account = self._accounts[name]
        try:
            admit(self.spent(name) if only_committed else self.counted(name), account.terms.budget)
        except DeniedError as error:
            yield FoldProblem("overdraft", entry.seq, f"account {name}: {error.message}")

    def _compose(self, account: _Account, key: str, count: int) -> None:
        try:
            account.spent = account.spent.plus(self._event(key), count)
        except DeniedError as error:
            account.unpriceable = error

    def _event(self, key: str) -> Event:
        if key not in self._events:
            self._events[key] = event_of(key)
        return self._events[key]


def _add(total: dict[str, int], counts: dict[str, int]) -> None:
    for key, count in counts.items():
        total[key] = total.get(key, 0) + count


def _take(total: dict[str, int], counts: dict[str, int]) -> None:
    """Take away what is there; what comes to nothing goes, so that closed jobs leave no trace."""
    for key, count in counts.items():
        total[key] -= count
        if not total[key]:
            del total[key]


def _counts(events: Iterable[CountedEvent]) -> dict[str, int]:
    return count_events(EventCount(item.event, item.count) for item in events)


def _same_job(record: Committed, reserved: Reserved) -> bool:
    fields = ("account", "dataset", "plan_sha256", "policy_sha256", "requested_by")
    return all(getattr(record, name) == getattr(reserved, name) for name in fields)
