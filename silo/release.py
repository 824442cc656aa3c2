"""The one way out of a silo: authorise → charge the ledger → build.

Every outbound field and every log field is declared here with its price or the reason it has none. What is
not declared does not leave: :func:`announce` and :func:`release_stream` raise, :func:`declared_log_fields`
drops.

Guarantees
    * A post leaves only under an :class:`~policies.decision.Authorization` of exactly this job's plan.
    * The stream of a contribution leaves only with the ledger's :class:`~privacy.ledger.ledger.Charge` of
      exactly this (job, round, attempt); both are required arguments, so forgetting one is a type error.
    * A refusal leaves as reason codes; values and the remaining budget stay here.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from federation.messages import (
    Acceptance,
    Body,
    Burn,
    Cancel,
    Denial,
    Envelope,
    Ephemeral,
    Failed,
    Fingerprint,
    Keys,
    LedgerHead,
    Opened,
    Pause,
    ReasonCode,
    Receipts,
    Received,
    Repaired,
    Resume,
    Return,
    Stream,
    seal,
)
from policies.decision import Authorization, PolicyDeniedError
from policies.signing import PrivateKey
from privacy.errors import ArchipelError
from privacy.ledger.ledger import Charge


class UndeclaredReleaseError(ArchipelError):
    """Something would leave the silo that nobody declared; it stays."""

    code = "undeclared_release"


@dataclass(frozen=True)
class Free:
    """A field without a price, and why it has none."""

    reason: str


@dataclass(frozen=True)
class Priced:
    """A field that the ledger pays for."""

    by: str


Declaration = Free | Priced

_PUBLIC = Free("from the signed plan or policy alone")
_KEY = Free("fresh randomness of this job")
_KEYED = Free("a keyed hash of what its readers hold; uniform to everybody else")

OUTBOUND: Mapping[type[Body], Mapping[str, Declaration]] = {
    Acceptance: {"plan_sha256": _PUBLIC, "policy_sha256": _PUBLIC, "policy_version": _PUBLIC},
    Denial: {
        "plan_sha256": _PUBLIC,
        "reasons": Free("codes and field names; a budget refusal says that it is one, never what is left"),
    },
    Ephemeral: {
        "public_key": _KEY,
        "nonce": _KEY,
        "plan_sha256": _PUBLIC,
        "roster": _PUBLIC,
        "policy_version": _PUBLIC,
        "expires": _PUBLIC,
    },
    Keys: {"wrapped": Free("fresh keys, sealed to each silo")},
    Fingerprint: {"macs": _KEYED},
    Stream: {
        "sha256": Priced("the contribution's own event: the frames are masked, noised and encrypted"),
        "num_bytes": Free("follows from the plan up to the randomness of the ciphertext"),
        "num_frames": _PUBLIC,
    },
    Received: {"mac": _KEYED},
    Opened: {"digest": _KEYED},
    Failed: {},
    Burn: {"reason": Free("one of two constants")},
    Cancel: {},
    # Said by whoever may stop a job; a person says it, and it carries nothing.
    Pause: {},
    Resume: {},
    Return: {},
    Repaired: {"digest": _KEYED},
    LedgerHead: {
        "seq": Free("number of ledger entries: one per durable step of a job, never per row"),
        "hash": Free("a hash over signed entries"),
    },
    Receipts: {"receipts": Free("countersignatures of what others posted")},
}

LOG_FIELDS: frozenset[str] = frozenset(
    # structlog's own
    {"event", "level", "timestamp", "logger", "exc_info"}
    # names, codes, places: public to the members
    | {"job", "silo", "kind", "round", "attempt", "phase", "duty", "code", "outcome", "purpose", "step"}
    # what an operator needs and what depends on no row
    | {"what", "where", "remedy", "host", "port", "seconds_to_retry", "version", "attempts", "policy_version"}
)


def announce(
    body: Body, authorization: Authorization, *, job: str, sender: str, identity: PrivateKey,
    round: int = 0, attempt: int = 0,
) -> Envelope:  # fmt: skip
    """Build a post all of whose fields are free.

    Raises:
        UndeclaredReleaseError: a field has a price, or no declaration.
    """
    declared = _declaration(body)
    priced = [name for name, declaration in declared.items() if isinstance(declaration, Priced)]
    if priced:
        raise UndeclaredReleaseError(
            f"{type(body).__name__}.{priced[0]} has a price; it leaves with its charge only"
        )
    _check_plan(body, authorization)
    return seal(body, job=job, sender=sender, identity=identity, round=round, attempt=attempt)


def release_stream(
    body: Stream, authorization: Authorization, charge: Charge, *, job: str, sender: str, identity: PrivateKey
) -> Envelope:
    """Build the manifest that lets a contribution's frames leave; its place is that of ``charge``.

    Raises:
        UndeclaredReleaseError: the charge pays for another job, or the plan was not the authorised one.
    """
    _declaration(body)
    if charge.job != job:
        raise UndeclaredReleaseError("this charge pays for another job's contribution")
    if charge.plan_sha256 != authorization.plan_sha256:
        raise UndeclaredReleaseError("this charge pays for another plan than the authorised one")
    return seal(body, job=job, sender=sender, identity=identity, round=charge.round, attempt=charge.attempt)


def refuse(
    denied: PolicyDeniedError, *, plan_sha256: str, job: str, sender: str, identity: PrivateKey
) -> Envelope:
    """Build a denial: codes and fields only, and of the budget only where nothing else stands against it."""
    codes = tuple(ReasonCode(code=reason.code, field=reason.field) for reason in denied.outbound)
    body = Denial(plan_sha256=plan_sha256, reasons=codes)
    _declaration(body)
    return seal(body, job=job, sender=sender, identity=identity)


def cancel(*, job: str, sender: str, identity: PrivateKey) -> Envelope:
    """Build a cancellation: it needs no authorisation because it says nothing but that this silo stops."""
    _declaration(Cancel())
    return seal(Cancel(), job=job, sender=sender, identity=identity)


def declared_log_fields(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: what is not declared is not logged, and that it was not is."""
    undeclared = sorted(set(event) - LOG_FIELDS)
    for name in undeclared:
        del event[name]
    if undeclared:
        event["what"] = "undeclared fields were not logged"
    return event


def _declaration(body: Body) -> Mapping[str, Declaration]:
    declared = OUTBOUND.get(type(body))
    missing = set(body.model_dump()) - set(declared or {})
    if declared is None or missing:
        raise UndeclaredReleaseError(
            f"{type(body).__name__} has undeclared fields {sorted(missing)}",
            remedy="declare each with its price, or the reason it has none, in silo/release.py",
        )
    return declared


def _check_plan(body: Body, authorization: Authorization) -> None:
    plan_sha256 = getattr(body, "plan_sha256", authorization.plan_sha256)
    if plan_sha256 != authorization.plan_sha256:
        raise UndeclaredReleaseError("a post about another plan than the authorised one")
