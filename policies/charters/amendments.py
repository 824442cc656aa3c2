"""Changing a charter without starting anew: m of n members suffice, and nobody is bound unasked. Pure.

An amendment is a whole charter of the next version that names its predecessor by digest. It is in force when

* as many members of the *predecessor* signed it as the predecessor's ``amendments.threshold`` says, by the
  identity keys that the predecessor pins;
* every member that it adds, or of which it says something new (administrators, certificate), signed it.

From then on only the administrators it lists count: whoever it leaves out is revoked. The identity key of a
party that stays never changes: its posts, receipts and ledger are signed with it. Who has lost it leaves, and
comes back under another name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from policies.canonical import digest
from policies.charters.charter import Charter, check_certificate
from policies.signing import DetachedSignatures, ThresholdError, valid_signers
from policies.trust import parse_signatures, require_unexpired
from policies.validation import parse_yaml
from privacy.errors import TrustError


class AmendmentError(TrustError):
    """A charter that is no amendment of the one before it."""

    code: ClassVar[str] = "amendment"


@dataclass(frozen=True)
class Lack:
    """What an amendment still needs.

    Attributes:
        signatures: how many more members of the charter before it.
        able: those who have not signed.
        consents: members that it adds or changes and that have not signed.
    """

    signatures: int
    able: tuple[str, ...]
    consents: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        if self.signatures:
            parts.append(f"{self.signatures} more of {', '.join(self.able)}")
        if self.consents:
            parts.append(f"{', '.join(self.consents)}, of whom it says something new")
        return " and ".join(parts)


def lacking(previous: Charter, amended: Charter, signatures: DetachedSignatures) -> Lack | None:
    """Return what an amendment still needs; None when it is agreed to.

    Args:
        previous: the charter before it.
        amended: the amendment.
        signatures: over it.

    Raises:
        SignatureError: the signatures belong to other content.
    """
    payload = amended.signed_bytes()
    before = {member.silo: member.identity_key for member in previous.members}
    agreed = valid_signers(payload, signatures, before.values())
    consented = valid_signers(payload, signatures, [member.identity_key for member in amended.members])
    consents = tuple(
        member.silo
        for member in amended.members
        if previous.member(member.silo) != member and member.identity_key not in consented
    )
    able = tuple(silo for silo, key in before.items() if key not in agreed)
    missing = max(0, previous.amendments.threshold - len(agreed))
    return Lack(missing, able, consents) if missing or consents else None


def trust_amendment(
    previous: Charter, content: bytes, signatures: bytes, now: datetime, *, source: str = "charter.yaml"
) -> Charter:
    """Accept an amendment of a trusted charter.

    Args:
        previous: the trusted charter before it.
        content: bytes of the amended ``charter.yaml``.
        signatures: bytes of its ``charter.sig.json``.
        now: reference time, aware.
        source: the file's name, for messages.

    Raises:
        PolicyFileError: not a charter.
        AmendmentError: it does not follow ``previous``.
        OversizeError, UnsignedError, SignatureError, ThresholdError, ExpiredError: not to be trusted.
    """
    amended = parse_yaml(content, Charter, source)
    for problem in _breaks(previous, amended):
        raise AmendmentError(problem, where=source, remedy="draft it with archipel charter amend")
    detached = parse_signatures(signatures, source.removesuffix(".yaml") + ".sig.json")
    lack = lacking(previous, amended, detached)
    if lack is not None:
        raise ThresholdError(
            f"the amendment is not in force: it needs {lack}",
            where=source,
            remedy="they run charter sign on their copies; charter merge unites the copies",
        )
    for party in amended.parties():
        check_certificate(party.name, party)
    require_unexpired("charter", amended.expires, now)
    return amended


def amendment_in_words(previous: Charter, amended: Charter) -> Iterator[str]:
    """Say what an amendment changes, for those who are to sign it."""
    for member in amended.members:
        known = previous.member(member.silo)
        if known is None:
            yield f"{member.silo} becomes a member"
            continue
        old, new = known.administrators, member.administrators
        for key in set(old.keys) - set(new.keys):
            yield f"{member.silo}: administrator {key.key_id} is revoked"
        for key in set(new.keys) - set(old.keys):
            yield f"{member.silo}: administrator {key.key_id} is added"
        if old.threshold != new.threshold:
            yield f"{member.silo}: its policy needs {new.threshold} signatures, before {old.threshold}"
        if known.certificate_sha256 != member.certificate_sha256:
            yield f"{member.silo}: another TLS certificate"
    for member in previous.members:
        if amended.member(member.silo) is None:
            yield f"{member.silo} is a member no more"
    if previous.coordinator != amended.coordinator:
        hub = amended.coordinator
        yield f"the coordinator is {hub.name} at {hub.host}:{hub.port}, identity {hub.identity_key.key_id}"
        if previous.coordinator.certificate_sha256 != hub.certificate_sha256:
            yield f"{hub.name}: another TLS certificate"
    if previous.amendments != amended.amendments:
        before, after = previous.amendments.threshold, amended.amendments.threshold
        yield f"amendments need {after} members, before {before}"
    if previous.expires != amended.expires:
        yield f"in force until {amended.expires}, before {previous.expires}"


def _breaks(previous: Charter, amended: Charter) -> Iterator[str]:
    if amended.version != previous.version + 1:
        yield f"version {amended.version} does not follow version {previous.version}"
    if amended.amends != digest(previous):
        yield "it amends another charter than the one before it"
    if amended.name != previous.name:
        yield f"{amended.name} is another federation than {previous.name}"
    keys = previous.identity_keys()
    for party in amended.parties():
        if keys.get(party.name, party.identity_key) != party.identity_key:
            yield f"{party.name} would get another identity key; who lost it comes back under another name"
