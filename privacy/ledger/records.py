"""What a ledger entry says: one closed, frozen record per kind.

Compatibility law: a kind means for ever what it meant when it was first written; its fields never change
name or meaning, and what needs one more field is another kind. A kind or an event that this version does not
know is refused, never skipped: a ledger that cannot be read in full cannot say what is left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Final

import rfc8785
from pydantic import Field, ValidationError

from privacy.budget import Budget
from privacy.errors import TrustError
from privacy.events import Event, EventCount, Record, parse_event
from privacy.ledger.chain import Entry

Name = Annotated[str, Field(min_length=1, max_length=128)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Position = Annotated[int, Field(strict=True, ge=1, lt=2**53)]


class UnknownRecordError(TrustError):
    """An entry that this version cannot read, and therefore does not ignore."""

    code = "unknown_record"


class AccountTerms(Record):
    """Body of ``account_opened``, ``budget_changed`` and ``policy_renewed``.

    Attributes:
        account: the population whose people the account protects.
        budget: what it may spend from this entry on.
        policy_sha256: digest of the signed policy that says so.
        policy_version: that policy's version.
    """

    account: Name
    budget: Budget
    policy_sha256: Sha256
    policy_version: Position


class CountedEvent(Record):
    """The same event ``count`` times."""

    event: Event
    count: Position


class Reserved(Record):
    """Body of ``reserved``: a job may commit these events, and they count as spent until released.

    Attributes:
        account: who pays.
        job: which job.
        dataset: the policy's name of the rows it may touch.
        plan_sha256: digest of its plan.
        policy_sha256: digest of the policy that allowed it.
        requested_by: the party that proposed it.
        events: everything it may release, burned rounds included; each event once.
    """

    account: Name
    job: Name
    dataset: Name
    plan_sha256: Sha256
    policy_sha256: Sha256
    requested_by: Name
    events: Annotated[tuple[CountedEvent, ...], Field(min_length=1, max_length=64)]


class Committed(Record):
    """Body of ``committed``: one contribution, spent for ever whether or not it ever arrives.

    Attributes:
        account: who paid.
        job: which job.
        dataset: the rows it was made of.
        round: round of the job.
        attempt: attempt of that round.
        event: what was released.
        plan_sha256: digest of the job's plan.
        policy_sha256: digest of the policy that allowed it.
        requested_by: the party that proposed the job.
    """

    account: Name
    job: Name
    dataset: Name
    round: Number
    attempt: Number
    event: Event
    plan_sha256: Sha256
    policy_sha256: Sha256
    requested_by: Name


class Released(Record):
    """Body of ``released``: what a finished job reserved and never used; the job can charge no more."""

    account: Name
    job: Name
    events: tuple[CountedEvent, ...]


class Receipt(Record):
    """A member's countersignature of another member's ledger head at the end of a job.

    Attributes:
        silo: whose ledger.
        by: who saw it.
        head_seq: number of its last entry then.
        head_hash: that entry's hash.
        job: the job that ended.
        signature: base64, by ``by``'s identity, over kind ``receipt`` of :meth:`statement`.
    """

    silo: Name
    by: Name
    head_seq: Position
    head_hash: Sha256
    job: Name
    signature: Annotated[str, Field(max_length=200)]

    def statement(self) -> dict[str, Any]:
        """What the signature covers, as a JSON object."""
        return {
            "job": self.job,
            "silo": self.silo,
            "seq": self.head_seq,
            "hash": self.head_hash,
            "by": self.by,
        }


class Witnessed(Record):
    """Body of ``witnessed``: receipts by and for the members of a job."""

    job: Name
    receipts: Annotated[tuple[Receipt, ...], Field(min_length=1, max_length=4096)]


class CharterAdopted(Record):
    """Body of ``charter_adopted``: the entries from here on were made under this charter.

    Attributes:
        charter_sha256: its digest.
        charter_version: its version.
    """

    charter_sha256: Sha256
    charter_version: Position


class PolicyFrozen(Record):
    """Body of ``policy_frozen``: an administrator stopped every policy up to a version; a newer one goes on.

    Attributes:
        policy_version: no job is reserved for under this version or an older one.
        freeze_sha256: digest of the freeze that was signed.
        frozen_at: when the administrator signed it, as the freeze says.
    """

    policy_version: Position
    freeze_sha256: Sha256
    frozen_at: Name


ACCOUNT_OPENED: Final = "account_opened"
BUDGET_CHANGED: Final = "budget_changed"
POLICY_RENEWED: Final = "policy_renewed"
TERMS_KINDS: Final = (ACCOUNT_OPENED, BUDGET_CHANGED, POLICY_RENEWED)
RESERVED: Final = "reserved"
COMMITTED: Final = "committed"
RELEASED: Final = "released"
WITNESSED: Final = "witnessed"
CHARTER_ADOPTED: Final = "charter_adopted"
POLICY_FROZEN: Final = "policy_frozen"

RECORDS: dict[str, type[Record]] = {
    ACCOUNT_OPENED: AccountTerms,
    BUDGET_CHANGED: AccountTerms,
    POLICY_RENEWED: AccountTerms,
    RESERVED: Reserved,
    COMMITTED: Committed,
    RELEASED: Released,
    WITNESSED: Witnessed,
    CHARTER_ADOPTED: CharterAdopted,
    POLICY_FROZEN: PolicyFrozen,
}


def read_record(entry: Entry) -> Record:
    """The typed body of an entry.

    Raises:
        UnknownRecordError: the kind, a field or an event is unknown.
    """
    remedy = "use a version of archipel that knows this entry; entries are never skipped"
    model = RECORDS.get(entry.kind)
    if model is None:
        raise UnknownRecordError(f"kind {entry.kind!r} is unknown", where=f"entry {entry.seq}", remedy=remedy)
    try:
        return model.model_validate(entry.payload)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UnknownRecordError(
            f"{entry.kind} cannot be read: {field}: {first['msg']}",
            where=f"entry {entry.seq}",
            remedy=remedy,
        ) from error


def event_key(event: Event) -> str:
    """Canonical JSON of an event: two events are the same if and only if their keys are."""
    return rfc8785.dumps(event.model_dump(mode="json")).decode()


def event_of(key: str) -> Event:
    """The event of a key.

    Raises:
        UnknownEventError: this version does not know it.
    """
    return parse_event(json.loads(key))


def count_events(events: Iterable[EventCount]) -> dict[str, int]:
    """Equal events counted together, by key, in the order of the keys; counts of 0 left out."""
    counts: dict[str, int] = {}
    for event, count in events:
        key = event_key(event)
        counts[key] = counts.get(key, 0) + count
    return {key: counts[key] for key in sorted(counts) if counts[key]}


def event_counts(counts: dict[str, int]) -> tuple[EventCount, ...]:
    """Back from :func:`count_events`."""
    return tuple(EventCount(event_of(key), counts[key]) for key in sorted(counts) if counts[key])


def counted(counts: dict[str, int]) -> tuple[CountedEvent, ...]:
    """The same as records of an entry."""
    return tuple(CountedEvent(event=event, count=count) for event, count in event_counts(counts))
