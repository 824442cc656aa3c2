"""What a ledger refuses, and why: pure, before anything is written."""

from __future__ import annotations

from datetime import UTC, datetime

from privacy.errors import DeniedError, HostError, TrustError
from privacy.ledger.chain import CLOCK_TOLERANCE
from privacy.ledger.records import (
    AccountTerms,
    CharterAdopted,
    Committed,
    PolicyFrozen,
    Reserved,
    event_key,
)
from privacy.ledger.state import JobStatus


class UnknownAccountError(DeniedError):
    """No policy gave this population a budget."""

    code = "unknown_account"


def unknown_account(account: str) -> UnknownAccountError:
    """The error for a population without an account."""
    return UnknownAccountError(
        "this population has no account",
        where=account,
        remedy="give it a budget in policy.yaml and sign the policy",
    )


class FilterChangedError(DeniedError):
    """An account's filter and orders are fixed for its life."""

    code = "filter_changed"


class DatasetMovedError(DeniedError):
    """A dataset is charged to the account it was first reserved on: another one would be a fresh budget."""

    code = "dataset_moved"


class StalePolicyError(TrustError):
    """Terms or a reservation under a policy that is not the newest the account knows."""

    code = "stale_policy"


class StaleCharterError(TrustError):
    """A charter older than, or another of the same version as, the one the ledger is kept under."""

    code = "stale_charter"


class PolicyFrozenError(DeniedError):
    """An administrator froze the policy that a job is to be reserved under."""

    code = "policy_frozen"


class ReservationConflictError(DeniedError):
    """The job reserved something else, or is over."""

    code = "reservation_conflict"


class ChargeRefusedError(DeniedError):
    """The contribution may not be charged, and therefore not leave."""

    code = "charge_refused"


class ClockSetBackError(HostError):
    """This machine's clock is behind the ledger's own entries: a policy may have expired unseen."""

    code = "clock_set_back"


def refuse_clock_set_back(now: datetime, latest: str) -> None:
    """New work needs a clock that agrees with what was written since the newest policy.

    Args:
        now: this machine's time.
        latest: latest time of an entry, empty if there is none.

    Raises:
        ClockSetBackError: it is more than :data:`CLOCK_TOLERANCE` ahead of ``now``.
    """
    if latest and now < datetime.fromisoformat(latest) - CLOCK_TOLERANCE:
        raise ClockSetBackError(
            f"this machine's clock says {now.astimezone(UTC):%Y-%m-%d %H:%M}, an entry is of {latest[:16]}",
            remedy="set the clock; if it is right now and was ahead before, sign a newer policy version",
        )


def refuse_stale_charter(known: CharterAdopted, charter: CharterAdopted) -> None:
    """A ledger goes from one charter to its amendments, never back. Two first charters are two federations.

    Raises:
        StaleCharterError: it is older, or another of the same version.
    """
    are_first = known.charter_version == charter.charter_version == 1
    if charter.charter_version <= known.charter_version and not are_first:
        raise StaleCharterError(
            f"version {charter.charter_version} of the charter; this ledger is kept under version "
            f"{known.charter_version} ({known.charter_sha256[:12]}…)",
            remedy="install the newest amendment: archipel silo join, or charter install",
        )


def refuse_frozen(freeze: PolicyFrozen | None, policy_version: int) -> None:
    """No job is reserved for under a policy that an administrator froze.

    Raises:
        PolicyFrozenError: it is of the frozen version or an older one.
    """
    if freeze is not None and policy_version <= freeze.policy_version:
        raise PolicyFrozenError(
            f"policy version {policy_version} is frozen since {freeze.frozen_at}",
            remedy=f"sign a policy of version {freeze.policy_version + 1} or later",
        )


def refuse_stale_terms(known: AccountTerms, terms: AccountTerms) -> None:
    """New terms need a newer policy, and never another filter.

    Raises:
        FilterChangedError: another filter or other orders.
        StalePolicyError: the policy is not newer.
    """
    if known.budget.filter != terms.budget.filter:
        raise FilterChangedError(
            "the filter of an account is fixed for its life",
            where=known.account,
            remedy="write the old filter into the policy; what was promised stays on this account",
        )
    if terms.policy_version <= known.policy_version:
        raise StalePolicyError(
            f"policy version {terms.policy_version} cannot change what version {known.policy_version} set",
            where=known.account,
            remedy="raise `version` in policy.yaml and sign it",
        )


def refuse_other_reservation(known: JobStatus, record: Reserved) -> None:
    """A job reserves once: the same again, while it is open, and nothing else.

    Raises:
        ReservationConflictError: it reserved something else, or is over.
    """
    wanted = {event_key(item.event): item.count for item in record.events}
    found = {event_key(item.event): item.reserved for item in known.allowances}
    fields = ("account", "dataset", "plan_sha256", "policy_sha256", "requested_by")
    if wanted != found or any(getattr(known, name) != getattr(record, name) for name in fields):
        raise ReservationConflictError(
            "this job reserved something else before", where=known.job, remedy="propose a new job"
        )
    if not known.open:
        raise ReservationConflictError(
            "this job is over and released what it did not use", where=known.job, remedy="propose a new job"
        )


def refuse_moved_dataset(record: Reserved, home: str | None) -> None:
    """A dataset's people stay on one account, whatever a later policy calls their population.

    Args:
        record: what is to be reserved.
        home: the account that the dataset was first reserved on, None if it never was.

    Raises:
        DatasetMovedError: it is another one than the record's.
    """
    if home is not None and home != record.account:
        raise DatasetMovedError(
            "this dataset was charged to another account before; a new one would forget what was spent",
            where=record.dataset,
            remedy="give the dataset its former population in policy.yaml and sign the policy",
        )


def refuse_other_event(record: Committed, charged: str) -> None:
    """One (job, round, attempt) is charged for one event.

    Raises:
        ChargeRefusedError: ``charged``, the key of the earlier event, is another one's.
    """
    if event_key(record.event) != charged:
        raise ChargeRefusedError(
            f"round {record.round}, attempt {record.attempt} was charged for another event",
            where=record.job,
            remedy="send the contribution that was charged, or open a new attempt",
        )


def refuse_unreserved(record: Committed, status: JobStatus) -> None:
    """Only what an open job reserved and has not used up may be charged.

    Raises:
        ChargeRefusedError: the job is over, or the event was not reserved, or as often as it was.
    """
    key = event_key(record.event)
    if not status.open:
        raise ChargeRefusedError("this job is over", where=record.job, remedy="propose a new job")
    for item in status.allowances:
        if event_key(item.event) == key:
            if item.committed < item.reserved:
                return
            raise ChargeRefusedError(
                f"all {item.reserved} reserved releases of this event are used up",
                where=record.job,
                remedy="end the job; a new plan may reserve more burned rounds",
            )
    raise ChargeRefusedError(
        "this event is not among those the job reserved",
        where=record.job,
        remedy="the noise that was drawn is not the plan's: nothing may leave",
    )
