"""The one way out of a silo: authorise → charge the ledger → build.

Every outbound field and every log field is declared (:mod:`silo.declarations`). What is not declared does not
leave: :func:`announce` and :func:`release_stream` raise, :func:`declared_log_fields` drops.

Guarantees
    * A post leaves only under an :class:`~policies.decisions.decision.Authorization` of this very plan.
    * The stream of a contribution leaves only with the ledger's :class:`~privacy.ledger.ledger.Charge` of
      exactly this (job, round, attempt); both are required arguments, so forgetting one is a type error.
    * One person's numbers leave only with the :class:`~silo.vertical.serving.consent.Redemption` of their
      own token.
    * A person's own numbers leave for their device only with the
      :class:`~silo.vertical.serving.consent.Admission` of exactly that ticket.
    * A refusal leaves as reason codes; values and the remaining budget stay here.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, TypeVar

from federation.legs.legs import Leg, LegPurpose
from federation.messages import Body, Cancel, Denial, Envelope, ReasonCode, Stream, seal
from federation.questions import FeatureAnswer, KeyOffer, Question
from policies.decisions.decision import Authorization, PolicyDeniedError
from policies.signing import PrivateKey
from privacy.devices import DeviceAddress
from privacy.errors import ArchipelError
from privacy.ledger.ledger import Charge
from silo.declarations import LEGS, LOG_FIELDS, OUTBOUND, SERVING, Declaration, Priced
from silo.vertical.merging.documents import FeaturePart, LabelPart, MergeTicket, seal_part
from silo.vertical.serving.consent import Admission, Redemption

SaidT = TypeVar("SaidT", KeyOffer, Question, FeatureAnswer, MergeTicket, LabelPart, FeaturePart)


class UndeclaredReleaseError(ArchipelError):
    """Something would leave the silo that nobody declared; it stays."""

    code = "undeclared_release"


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


def release_leg(
    body: Stream, authorization: Authorization, charge: Charge, leg: Leg,
    *, job: str, sender: str, identity: PrivateKey,
) -> Envelope:  # fmt: skip
    """Build the manifest that lets a priced leg's bytes leave, paid for at exactly that leg.

    Raises:
        UndeclaredReleaseError: the leg has no price, or the charge pays for something else.
    """
    if not _has_price(leg):
        raise UndeclaredReleaseError(f"{leg.in_words} has no price; it is announced without a charge")
    if (charge.round, charge.attempt) != (leg.number, 1):
        raise UndeclaredReleaseError(f"this charge pays for leg {charge.round}, not for {leg.in_words}")
    return release_stream(body, authorization, charge, job=job, sender=sender, identity=identity)


def announce_leg(
    body: Stream, authorization: Authorization, leg: Leg, *, job: str, sender: str, identity: PrivateKey
) -> Envelope:
    """Build the manifest of a leg that costs nothing; the reason stands in :data:`LEGS`.

    Raises:
        UndeclaredReleaseError: the leg has a price, or the plan is not the authorised one.
    """
    if _has_price(leg):
        raise UndeclaredReleaseError(f"{leg.in_words} has a price; it leaves with its charge only")
    _declaration(body)
    _check_plan(body, authorization)
    return seal(body, job=job, sender=sender, identity=identity, round=leg.number, attempt=1)


def _has_price(leg: Leg) -> bool:
    """Whether the ledger pays for a leg: of the hops only for the first, which carries a silo's own list."""
    declared = LEGS.get(leg.purpose)
    if declared is None:
        raise UndeclaredReleaseError(f"no silo sends {leg.purpose}")
    return isinstance(declared, Priced) and not (leg.purpose is LegPurpose.HOP and leg.index > 1)


def release_features(
    features: Sequence[float], redemption: Redemption, *, silo: str, purpose: str
) -> FeatureAnswer:
    """Build the answer that tells ``silo`` one person's numbers, allowed by exactly that person's token.

    Args:
        features: the person's numbers.
        redemption: of the token that was brought; it is worth nothing a second time.
        silo: who is told.
        purpose: of the plan whose model they are for.

    Raises:
        UndeclaredReleaseError: the consent is for another silo or purpose.
    """
    if (redemption.audience, redemption.purpose) != (silo, purpose):
        raise UndeclaredReleaseError("this consent allows something else than what would leave")
    return _declared(FeatureAnswer(tuple(float(value) for value in features)))


def withhold_features() -> FeatureAnswer:
    """Build the one answer to everything that is wrong with a question."""
    return _declared(FeatureAnswer(None))


def ask_for_features(job: str, token: str, *, transcript: bytes, identity: PrivateKey) -> Question:
    """Build a label silo's question: a job's public handle and what the person brought."""
    return _declared(Question.ask(job, token, transcript=transcript, identity=identity))


def offer_key(silo: str, public_key: bytes, expires: datetime, identity: PrivateKey) -> KeyOffer:
    """Build a feature silo's offer of a key to ask it under."""
    return _declared(KeyOffer.issue(silo, public_key, expires, identity))


def release_ticket(ticket: MergeTicket, identity: PrivateKey) -> MergeTicket:
    """Sign a label silo's ticket for one device."""
    return _declared(ticket.signed_by(identity))


def release_label_part(part: LabelPart, identity: PrivateKey) -> bytes:
    """Sign and seal what a person gets of the label silo; it opens on the device of its ticket alone."""
    return seal_part(_declared(part.signed_by(identity)), DeviceAddress.parse(part.ticket.device))


def release_feature_part(
    part: FeaturePart, admission: Admission, device: DeviceAddress, identity: PrivateKey
) -> bytes:
    """Sign and seal a person's own numbers for their device, allowed by a ticket that is used with this.

    Raises:
        UndeclaredReleaseError: the part is for another ticket.
    """
    if part.ticket_sha256 != admission.ticket.hex():
        raise UndeclaredReleaseError("this admission is of another ticket than the part")
    return seal_part(_declared(part.signed_by(identity)), device)


def _declared(said: SaidT) -> SaidT:
    names = {field.name for field in fields(said)} if is_dataclass(said) else set(type(said).model_fields)
    missing = names - set(SERVING.get(type(said), {}))
    if missing:
        raise UndeclaredReleaseError(
            f"{type(said).__name__} has undeclared fields {sorted(missing)}",
            remedy="declare each with its price, or the reason it has none, in silo/declarations.py",
        )
    return said


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
            remedy="declare each with its price, or the reason it has none, in silo/declarations.py",
        )
    return declared


def _check_plan(body: Body, authorization: Authorization) -> None:
    plan_sha256 = getattr(body, "plan_sha256", authorization.plan_sha256)
    if plan_sha256 != authorization.plan_sha256:
        raise UndeclaredReleaseError("a post about another plan than the authorised one")
