"""Which entries of a ledger, and what each says in a few words. Nothing is verified here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from privacy.errors import UsageError
from privacy.events import Event
from privacy.ledger import records
from privacy.ledger.chain import Entry
from privacy.ledger.paging import Selection
from silo.audit.options import moment


def selection(
    *,
    job: str | None = None,
    account: str | None = None,
    kinds: Iterable[str] | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Selection:
    """Which entries somebody asked for.

    Raises:
        UsageError: no such kind of entry, or a time that is none.
    """
    known = frozenset(kinds or ())
    unknown = sorted(known - set(records.RECORDS))
    if unknown:
        raise UsageError(
            f"there are no entries of kind {', '.join(unknown)}",
            where="--kind",
            remedy=f"choose of: {', '.join(records.RECORDS)}",
        )
    return Selection(job, account, known, moment(since), moment(until))


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry in full."""
    return {
        "seq": entry.seq,
        "at": entry.at,
        "kind": entry.kind,
        "payload": dict(entry.payload),
        "previous": entry.previous,
        "hash": entry.hash,
        "key_id": entry.key_id,
        "signature": entry.signature,
    }


def what(entry: Entry) -> str:
    """What an entry says beside its account and job, in a few words."""
    try:
        body = records.read_record(entry)
    except records.UnknownRecordError as error:
        return error.message
    if isinstance(body, records.AccountTerms):
        terms = f"epsilon {body.budget.epsilon:.6g}, delta {body.budget.delta:.6g}"
        return f"{terms}, policy version {body.policy_version}"
    if isinstance(body, records.Committed):
        return f"round {body.round}, attempt {body.attempt}: {event_text(body.event)}"
    if isinstance(body, records.Witnessed):
        return "receipts by " + ", ".join(sorted({item.by for item in body.receipts}))
    if isinstance(body, records.Reserved | records.Released):
        listed = (f"{item.count} x {event_text(item.event)}" for item in body.events)
        return ", ".join(listed) or "nothing was left to release"
    if isinstance(body, records.CharterAdopted):
        return f"version {body.charter_version} of the charter ({body.charter_sha256[:12]}…)"
    if isinstance(body, records.PolicyFrozen):
        return f"policies up to version {body.policy_version}, by a freeze of {body.frozen_at}"
    return ""


def event_text(event: Event) -> str:
    """An event in a few words."""
    if event.kind == "self_composed":
        return f"{event.count} steps of {event_text(event.event)}"
    if event.kind == "pure":
        return f"pure (epsilon {event.epsilon:.6g}): the noised numbers of its people and of those in common"
    text = f"{event.kind} (noise_multiplier {event.noise_multiplier:.6g}"
    if event.kind == "poisson_sampled_gaussian":
        text += f", sample_rate {event.sample_rate:.6g}"
    return text + ")"
