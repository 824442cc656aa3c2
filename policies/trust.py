"""From bytes to trusted files. Pure: no clock, no disk, no network.

::

    charter bytes ── all members signed ── certificates fit ── in force ──> Charter
    policy bytes ── threshold of the administrators this charter lists ── in force ── not older ──> SiloPolicy

``now`` is one frozen reference time for a whole decision. The order of the checks is: size, form, signatures,
then what the signed content says of itself. ``expires`` names the last day in force (UTC).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import ClassVar

from pydantic import ValidationError

from policies.canonical import digest
from policies.charters.charter import Charter, check_certificate
from policies.documents import OversizeError, check_size
from policies.signing import (
    DetachedSignatures,
    SignatureError,
    ThresholdError,
    valid_signers,
    verify_threshold,
)
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from privacy.errors import EquivocationError, TrustError

__all__ = [
    "ExpiredError",
    "FastForwardError",
    "OversizeError",
    "RenewalTooEarlyError",
    "RollbackError",
    "SignatureError",
    "ThresholdError",
    "UnsignedError",
    "WrongSignerError",
    "WrongSiloError",
    "days_left",
    "missing_signatures",
    "parse_signatures",
    "require_unexpired",
    "trust_charter",
    "trust_policy",
]

MAX_VERSION_STEP = 1_000


class ExpiredError(TrustError):
    """The last day in force is over."""

    code: ClassVar[str] = "expired"


class RollbackError(TrustError):
    """An older version than the one trusted before."""

    code: ClassVar[str] = "rollback"


class FastForwardError(TrustError):
    """A version so high that hardly any newer one could follow."""

    code: ClassVar[str] = "fast_forward"


class RenewalTooEarlyError(TrustError):
    """A policy takes a renewal of a budget before the day that was declared for it."""

    code: ClassVar[str] = "renewal_too_early"


class WrongSiloError(TrustError):
    """A policy of, or for, a silo that is not the one meant."""

    code: ClassVar[str] = "wrong_silo"


class WrongSignerError(TrustError):
    """A key that may not sign this."""

    code: ClassVar[str] = "wrong_signer"


class UnsignedError(TrustError):
    """There are no signatures, or the file of signatures is none."""

    code: ClassVar[str] = "unsigned"


def days_left(expires: date, now: datetime) -> int:
    """Days in force after today; negative once expired.

    Raises:
        ValueError: ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone; times are UTC")
    return (expires - now.astimezone(UTC).date()).days


def require_unexpired(what: str, expires: date, now: datetime) -> date:
    """Accept a date that is not over.

    Args:
        what: of what it is, for the message.
        expires: last day in force.
        now: reference time, aware.

    Raises:
        ExpiredError: the day is over.
    """
    if days_left(expires, now) < 0:
        raise ExpiredError(
            f"the {what} was in force until {expires.isoformat()}",
            remedy=f"sign a {what} with a later date; if the date is right, set this machine's clock",
        )
    return expires


def parse_signatures(content: bytes, source: str) -> DetachedSignatures:
    """Read a file of detached signatures.

    Raises:
        OversizeError: more than 1 MiB.
        UnsignedError: it is no file of signatures.
    """
    try:
        return DetachedSignatures.model_validate_json(check_size(content, source))
    except ValidationError as error:
        raise UnsignedError(
            "this is not a file of signatures", where=source, remedy="sign again: … sign"
        ) from error


def missing_signatures(charter: Charter, signatures: DetachedSignatures) -> tuple[str, ...]:
    """Members that have not validly signed ``charter``, in its order.

    Raises:
        SignatureError: the signatures belong to other content.
    """
    keys = [member.identity_key for member in charter.members]
    signers = valid_signers(charter.signed_bytes(), signatures, keys)
    return tuple(member.silo for member in charter.members if member.identity_key not in signers)


def trust_charter(
    content: bytes, signatures: bytes, now: datetime, *, source: str = "charter.yaml"
) -> Charter:
    """Accept a charter: every member signed exactly this, and it is in force.

    Args:
        content: bytes of ``charter.yaml``.
        signatures: bytes of ``charter.sig.json``.
        now: reference time, aware.
        source: the file's name, for messages.

    Raises:
        PolicyFileError: not a charter.
        OversizeError, UnsignedError, SignatureError, ThresholdError, ExpiredError: not to be trusted.
    """
    charter = parse_yaml(content, Charter, source)
    detached = parse_signatures(signatures, _signature_name(source))
    missing = missing_signatures(charter, detached)
    if missing:
        more = "; as an amendment it is judged beside the charters before it" if charter.amends else ""
        raise ThresholdError(
            f"the charter is not in force: not signed by {', '.join(missing)}{more}",
            where=source,
            remedy="each of them runs charter sign on its copy; charter merge unites the copies",
        )
    for party in charter.parties():
        check_certificate(party.name, party)
    require_unexpired("charter", charter.expires, now)
    return charter


def trust_policy(
    content: bytes,
    signatures: bytes,
    *,
    charter: Charter,
    silo: str,
    previous_version: int | None,
    now: datetime,
    previous_sha256: str | None = None,
    source: str = "policy.yaml",
) -> SiloPolicy:
    """Accept a silo's policy: signed by enough of the administrators the charter lists, in force, not older.

    Args:
        content: bytes of ``policy.yaml``.
        signatures: bytes of ``policy.sig.json``.
        charter: a trusted charter.
        silo: whose policy it must be.
        previous_version: version trusted before; None at the first time.
        now: reference time, aware.
        previous_sha256: digest of the policy trusted before, if known: one version has one content.
        source: the file's name, for messages.

    Raises:
        PolicyFileError: not a policy.
        WrongSiloError: another silo's policy, or no member of the charter.
        OversizeError, UnsignedError, SignatureError, ThresholdError, ExpiredError, RollbackError,
        FastForwardError, RenewalTooEarlyError, EquivocationError: not to be trusted.
    """
    policy = parse_yaml(content, SiloPolicy, source)
    detached = parse_signatures(signatures, _signature_name(source))
    member = charter.member(silo)
    if member is None:
        raise WrongSiloError(f"{silo} is no member of the charter {charter.name}", where=source)
    administrators = member.administrators
    verify_threshold(policy.signed_bytes(), detached, administrators.keys, administrators.threshold)
    if policy.silo != silo:
        raise WrongSiloError(
            f"this is the policy of {policy.silo}, not of {silo}", where=source, remedy=f"write silo: {silo}"
        )
    _require_successor(policy, previous_version, previous_sha256, source)
    require_unexpired("policy", policy.expires, now)
    _require_due_renewals(policy, now, source)
    return policy


def _require_due_renewals(policy: SiloPolicy, now: datetime, source: str) -> None:
    for name, budget in policy.budgets.items():
        early = [renewal.date for renewal in budget.taken if renewal.date > now.astimezone(UTC).date()]
        if early:
            raise RenewalTooEarlyError(
                f"a renewal of {early[0].isoformat()} is taken before its day",
                where=f"{source}: budgets.{name}.renewed",
                remedy=f"write renewed: {budget.renewed - len(early)} until then",
            )


def _require_successor(
    policy: SiloPolicy, previous_version: int | None, previous_sha256: str | None, source: str
) -> None:
    if previous_version is None:
        return
    if policy.version < previous_version:
        raise RollbackError(
            f"version {policy.version} is older than version {previous_version}, which was trusted before",
            where=source,
            remedy=f"restore the newer file, or sign this content as version {previous_version + 1}",
        )
    if policy.version > previous_version + MAX_VERSION_STEP:
        raise FastForwardError(
            f"version {policy.version} leaps from {previous_version}; at most {MAX_VERSION_STEP} at once",
            where=source,
            remedy=f"sign it as version {previous_version + 1}",
        )
    if (
        policy.version == previous_version
        and previous_sha256 is not None
        and digest(policy) != previous_sha256
    ):
        raise EquivocationError(
            f"version {policy.version} was trusted before with other content",
            where=source,
            remedy=f"a changed policy is a new version: sign it as version {previous_version + 1}",
        )


def _signature_name(source: str) -> str:
    return source.removesuffix(".yaml") + ".sig.json"
