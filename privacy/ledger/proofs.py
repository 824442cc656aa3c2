"""Values that exist only because the ledger wrote an entry: whoever demands one demands the payment.

The two ``…_of`` functions belong to :mod:`privacy.ledger.ledger`; a test reads the sources for other users.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Final

from privacy.events import Event, EventCount
from privacy.ledger.records import Committed, Reserved

_MADE_HERE: Final = object()


@dataclass(frozen=True)
class Reservation:
    """Proof that a job's whole cost is reserved. Made by :meth:`Ledger.reserve` only.

    Attributes:
        account: who pays.
        job: which job.
        dataset: the rows it may touch.
        plan_sha256: digest of its plan.
        policy_sha256: digest of the policy that allowed it.
        requested_by: who proposed it.
        events: everything it may commit.
        seq: number of the entry.
    """

    account: str
    job: str
    dataset: str
    plan_sha256: str
    policy_sha256: str
    requested_by: str
    events: tuple[EventCount, ...]
    seq: int
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        """Refuse every other maker."""
        _only_here(token, "reservation")


@dataclass(frozen=True)
class Charge:
    """Proof that one contribution is paid for. Made by :meth:`Ledger.commit` only.

    Attributes:
        account: who paid.
        job: which job.
        dataset: the rows it was made of.
        round: round of the job.
        attempt: attempt of that round.
        event: what was paid for.
        plan_sha256: digest of the job's plan.
        policy_sha256: digest of the policy that allowed it.
        seq: number of the entry.
    """

    account: str
    job: str
    dataset: str
    round: int
    attempt: int
    event: Event
    plan_sha256: str
    policy_sha256: str
    seq: int
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        """Refuse every other maker."""
        _only_here(token, "charge")


def _only_here(token: object, what: str) -> None:
    if token is not _MADE_HERE:
        raise TypeError(f"a {what} is made by the ledger only")


def reservation_of(record: Reserved, seq: int) -> Reservation:
    """For :class:`~privacy.ledger.ledger.Ledger` alone: the proof of a durable ``reserved`` entry."""
    return Reservation(
        account=record.account,
        job=record.job,
        dataset=record.dataset,
        plan_sha256=record.plan_sha256,
        policy_sha256=record.policy_sha256,
        requested_by=record.requested_by,
        events=tuple(EventCount(item.event, item.count) for item in record.events),
        seq=seq,
        token=_MADE_HERE,
    )


def charge_of(record: Committed, seq: int) -> Charge:
    """For :class:`~privacy.ledger.ledger.Ledger` alone: the proof of a durable ``committed`` entry."""
    return Charge(
        account=record.account,
        job=record.job,
        dataset=record.dataset,
        round=record.round,
        attempt=record.attempt,
        event=record.event,
        plan_sha256=record.plan_sha256,
        policy_sha256=record.policy_sha256,
        seq=seq,
        token=_MADE_HERE,
    )
