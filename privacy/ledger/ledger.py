"""The ledger: every silo owns one, and nothing derived from a row leaves the silo without its entry here.

Guarantees:
    * *Reserve, then commit.* A job's whole cost is reserved durably before rows are touched, and refused
      before anything is written if the account's privacy filter cannot take it on top of everything committed
      and reserved.
    * *Exactly once.* One (job, round, attempt) is charged once, however often and from however many processes
      it is committed; a crash leaves it spent, never unspent.
    * *No overdraft.* Check and write are one transaction that excludes every other process.
    * *Only a ledger makes a* :class:`Charge` *or a* :class:`Reservation`, so a function that takes one cannot
      be called without having paid.

==============================================  =====================================================
called with                                     does
==============================================  =====================================================
a job reserved already, same arguments          returns the same reservation, writes nothing
a job reserved already, other arguments         ``ReservationConflictError``
a (job, round, attempt) committed already       returns the same charge, writes nothing
the same with another event                     ``ChargeRefusedError``
an event not reserved, or used up               ``ChargeRefusedError``
a job whose rest was released                   ``ReservationConflictError`` / ``ChargeRefusedError``
a budget lowered below what is counted          account frozen; commits only while they fit the new budget
a changed budget without a newer policy         ``StalePolicyError``
another filter                                  ``FilterChangedError``
a dataset reserved before on another account    ``DatasetMovedError``
a clock behind the entries since the policy     ``ClockSetBackError`` for a new job; running jobs commit
a policy that an administrator froze            ``PolicyFrozenError`` for a new job; running jobs commit
a charter older than the ledger's               ``StaleCharterError``
==============================================  =====================================================
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from privacy.accounting import admit
from privacy.budget import Budget
from privacy.errors import UsageError
from privacy.events import Event, EventCount, Record
from privacy.ledger import tables
from privacy.ledger.chain import Entry
from privacy.ledger.checks import (
    ChargeRefusedError,
    ClockSetBackError,
    DatasetMovedError,
    FilterChangedError,
    PolicyFrozenError,
    ReservationConflictError,
    StaleCharterError,
    StalePolicyError,
    UnknownAccountError,
    refuse_clock_set_back,
    refuse_frozen,
    refuse_moved_dataset,
    refuse_other_event,
    refuse_other_reservation,
    refuse_stale_terms,
    refuse_unreserved,
)
from privacy.ledger.proofs import Charge, Reservation, charge_of, reservation_of
from privacy.ledger.records import (
    ACCOUNT_OPENED,
    BUDGET_CHANGED,
    COMMITTED,
    POLICY_RENEWED,
    RELEASED,
    RESERVED,
    WITNESSED,
    AccountTerms,
    Committed,
    Receipt,
    Released,
    Reserved,
    Witnessed,
    count_events,
    counted,
    event_key,
)
from privacy.ledger.state import AccountFrozenError, AccountStatus, LedgerState
from privacy.ledger.storage import corrupt_error
from privacy.ledger.writing import LedgerFile

__all__ = [
    "AccountFrozenError",
    "AccountStatus",
    "Charge",
    "ChargeRefusedError",
    "ClockSetBackError",
    "DatasetMovedError",
    "FilterChangedError",
    "Ledger",
    "LedgerState",
    "PolicyFrozenError",
    "Receipt",
    "Reservation",
    "ReservationConflictError",
    "StaleCharterError",
    "StalePolicyError",
    "UnknownAccountError",
]


class Ledger(LedgerFile):
    """An open ledger. Threads may share it; other processes open their own on the same file."""

    def open_account(
        self, account: str, budget: Budget, policy_sha256: str, policy_version: int
    ) -> AccountStatus:
        """Open a population's account, or give it the terms of a newer signed policy.

        Args:
            account: the population.
            budget: what the policy gives it.
            policy_sha256: digest of that policy.
            policy_version: its version.

        Returns:
            The account under these terms; frozen if the budget is below what is committed and reserved.

        Raises:
            FilterChangedError: the account has another filter.
            StalePolicyError: the policy is older than the account's, or has its version and other content.
        """
        terms = AccountTerms(
            account=account, budget=budget, policy_sha256=policy_sha256, policy_version=policy_version
        )
        with self._write() as db:
            found = tables.standing(db, account)
            if found is None:
                self._append(db, ACCOUNT_OPENED, terms)
                tables.set_terms(db, terms)
            elif found[0] != terms:
                known = found[0]
                refuse_stale_terms(known, terms)
                kind = POLICY_RENEWED if known.budget == budget else BUDGET_CHANGED
                self._append(db, kind, terms)
                tables.set_terms(db, terms)
                self._judge_frozen(db, account)
            return tables.known_status(db, account)

    def reserve(
        self,
        *,
        account: str,
        job: str,
        dataset: str,
        plan_sha256: str,
        policy_sha256: str,
        requested_by: str,
        events: Sequence[EventCount],
    ) -> Reservation:
        """Set a job's whole cost aside, durably, before a row is touched.

        Args:
            account: the population that pays.
            job: which job; one reservation each.
            dataset: the policy's name of the rows.
            plan_sha256: digest of the plan.
            policy_sha256: digest of the policy in force, the one the account's terms come from.
            requested_by: the party that proposed the job.
            events: everything the job may release, ``max_burned_rounds`` included.

        Raises:
            UnknownAccountError: the population has no budget.
            AccountFrozenError: its budget was lowered below what is counted.
            BudgetExceededError: the events do not fit; nothing was written.
            UnsupportedEventError: the account's filter cannot price an event.
            StalePolicyError: the account's terms come from another policy.
            PolicyFrozenError: an administrator froze that policy.
            DatasetMovedError: the dataset was reserved before on another account.
            ClockSetBackError: this machine's clock is behind the entries.
            ReservationConflictError: the job reserved something else before, or is over.
        """
        record = Reserved(
            account=account,
            job=job,
            dataset=dataset,
            plan_sha256=plan_sha256,
            policy_sha256=policy_sha256,
            requested_by=requested_by,
            events=counted(count_events(events)),
        )
        with self._write() as db:
            known = tables.job_status(db, job)
            if known is not None:
                refuse_other_reservation(known, record)
                return reservation_of(record, known.seq)
            terms, standing = tables.known_standing(db, account)
            if terms.policy_sha256 != policy_sha256:
                raise StalePolicyError(
                    "the job was allowed by another policy than the one the account's budget comes from",
                    where=account,
                    remedy="authorise the job again under the policy in force",
                )
            refuse_frozen(tables.freeze_of(db), terms.policy_version)
            refuse_clock_set_back(self._log.now(), tables.latest(db))
            refuse_moved_dataset(record, tables.home_of(db, dataset))
            standing.admit(EventCount(item.event, item.count) for item in record.events)
            entry = self._append(db, RESERVED, record)
            tables.add_job(db, record, entry.seq)
        return reservation_of(record, entry.seq)

    def commit(
        self,
        reservation: Reservation | str,
        *,
        round: int,
        attempt: int,
        event: Event,
    ) -> Charge:
        """Charge one contribution, when it enters the outbox. Spent from here on, whatever happens.

        Args:
            reservation: the job's reservation, or the job's name.
            round: round of the job.
            attempt: attempt of that round.
            event: what the object that drew the noise reported.

        Returns:
            The charge, durable; the same one whenever this (job, round, attempt) is committed again.

        Raises:
            ChargeRefusedError: nothing was reserved, the event is not among the reserved or used up, or this
                (job, round, attempt) was charged for another event.
            BudgetExceededError: the account is frozen and this does not fit the lowered budget.
        """
        job = reservation if isinstance(reservation, str) else reservation.job
        if not isinstance(event, Record):
            raise ChargeRefusedError(
                "there is no event to charge, so there was no noise", where=job, remedy="nothing may leave"
            )
        with self._write() as db:
            status = tables.job_status(db, job)
            if status is None:
                raise ChargeRefusedError(
                    "this job reserved nothing", where=job, remedy="reserve before touching rows"
                )
            record = Committed(
                account=status.account,
                job=job,
                dataset=status.dataset,
                round=round,
                attempt=attempt,
                event=event,
                plan_sha256=status.plan_sha256,
                policy_sha256=status.policy_sha256,
                requested_by=status.requested_by,
            )
            before = tables.charge_at(db, job, round, attempt)
            if before is not None:
                refuse_other_event(record, before.event)
                return charge_of(record, before.seq)
            refuse_unreserved(record, status)
            if tables.is_frozen(db, status.account):
                _, standing = tables.known_standing(db, status.account)
                admit(standing.spent.plus(event), standing.budget)
            entry = self._append(db, COMMITTED, record)
            tables.add_charge(db, record, entry.seq)
        return charge_of(record, entry.seq)

    def release_rest(self, job: str) -> Entry:
        """Give back what a finished job reserved and never committed; it can charge no more.

        Returns:
            The entry; the same one when the job released before.

        Raises:
            ReservationConflictError: the job reserved nothing.
        """
        with self._write() as db:
            status = tables.job_status(db, job)
            if status is None:
                raise ReservationConflictError("this job reserved nothing", where=job)
            if not status.open:
                return self._find(status.seq, RELEASED, job)
            rest = {event_key(item.event): item.reserved - item.committed for item in status.allowances}
            released = counted({key: count for key, count in rest.items() if count})
            entry = self._append(db, RELEASED, Released(account=status.account, job=job, events=released))
            tables.close_job(db, job)
            if tables.is_frozen(db, status.account):
                self._judge_frozen(db, status.account)
        return entry

    def witness(self, job: str, receipts: Iterable[Receipt | Mapping[str, Any]]) -> Entry:
        """Keep the members' countersignatures of each other's ledger heads at the end of a job.

        Args:
            job: the job that ended.
            receipts: verified by the caller (the ledger knows no keys).

        Returns:
            The entry; the same one when the same receipts were kept before.

        Raises:
            UsageError: a receipt of another job, or no receipt.
        """
        kept = tuple(Receipt.model_validate(item) for item in receipts)
        if not kept or any(item.job != job for item in kept):
            raise UsageError("receipts of this job and no other are needed", where=job)
        record = Witnessed(job=job, receipts=tuple(sorted(kept, key=lambda item: (item.silo, item.by))))
        payload = record.model_dump(mode="json")
        with self._write() as db:
            status = tables.job_status(db, job)
            for entry in self._log.entries(status.seq if status else 0):
                if entry.kind == WITNESSED and entry.payload == payload:
                    return entry
            return self._append(db, WITNESSED, record)

    def status(self, account: str) -> AccountStatus:
        """One account at this moment.

        Raises:
            UnknownAccountError: there is none of this name.
        """
        with self._log.snapshot() as db:
            return tables.known_status(db, account)

    def state(self) -> LedgerState:
        """Every account and job at one moment, as a pure value."""
        with self._log.snapshot() as db:
            return tables.ledger_state(db)

    def _judge_frozen(self, db: sqlite3.Connection, account: str) -> None:
        tables.set_frozen(db, account, tables.known_standing(db, account)[1].frozen)

    def _find(self, after: int, kind: str, job: str) -> Entry:
        for entry in self._log.entries(after):
            if entry.kind == kind and entry.payload["job"] == job:
                return entry
        raise corrupt_error(self._log.path, f"the entry {kind} of job {job} is missing")
