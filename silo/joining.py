"""Joining a federation: the charter is checked and kept, the policy checked and signed, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from federation.identity import Party
from policies.charter import Charter
from policies.files import (
    load_signatures,
    load_yaml,
    read_signed,
    save_signatures,
    signature_path,
    write_atomically,
)
from policies.signing import DetachedSignatures
from policies.silo_policy import SiloPolicy
from policies.trust import WrongSiloError, trust_charter
from privacy.errors import TrustError


@dataclass(frozen=True)
class Joined:
    """What was joined, under which law."""

    silo: str
    charter: Charter
    policy: SiloPolicy


def join(directory: Path, charter_path: Path) -> Joined:
    """Trust the charter, check that it names this silo as it is, sign the policy.

    Raises:
        TrustError: the charter is not in force, or pins other keys than this silo's.
        PolicyFileError: everything wrong with policy.yaml.
    """
    party = Party.load(directory)
    signed = read_signed(charter_path)
    charter = trust_charter(signed.content, signed.signatures, datetime.now(UTC), source=str(charter_path))
    member = charter.member(party.name)
    if member is None:
        raise WrongSiloError(
            f"{party.name} is no member of the charter {charter.name}",
            where=str(charter_path),
            remedy="send card.json to whoever makes the charter",
        )
    if (member.identity_key, member.certificate_sha256) != (
        party.card.identity_key,
        party.card.certificate_sha256,
    ):
        raise TrustError(
            f"the charter pins other keys for {party.name} than those in {directory / 'keys'}",
            where=str(charter_path),
            remedy="have the charter made again from this directory's card.json",
        )
    policy_path = directory / "policy.yaml"
    policy = load_yaml(policy_path, SiloPolicy)
    if policy.silo != party.name:
        raise WrongSiloError(
            f"this is the policy of {policy.silo}", where=str(policy_path), remedy=f"write silo: {party.name}"
        )
    if party.administrator is not None:
        payload = policy.signed_bytes()
        fresh = DetachedSignatures.over(payload).signed_by(party.administrator, payload)
        before = load_signatures(policy_path)
        same = before is not None and before.payload_sha256 == fresh.payload_sha256
        save_signatures(policy_path, before.united(fresh) if before is not None and same else fresh)
    target = directory / "charter.yaml"
    write_atomically(target, signed.content)
    write_atomically(signature_path(target), signed.signatures)
    return Joined(party.name, charter, policy)
