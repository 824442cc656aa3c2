"""Joining a federation: the charter is checked and kept, the policy checked and signed, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from federation.identity import Party
from policies.administration import sign_policy
from policies.charter import Charter
from policies.files import load_yaml, read_signed, signature_path, write_atomically
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
    """Trust the charter, check that it names this silo as it is, keep it, sign the policy.

    A silo whose administrator key is kept elsewhere joins without signing; its policy is signed there.

    Raises:
        TrustError: the charter is not in force, or pins other keys than this silo's.
        PolicyFileError: everything wrong with policy.yaml.
    """
    now = datetime.now(UTC)
    party = Party.load(directory)
    signed = read_signed(charter_path)
    charter = trust_charter(signed.content, signed.signatures, now, source=str(charter_path))
    _check_membership(party, charter, str(charter_path))
    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    target = directory / "charter.yaml"
    write_atomically(signature_path(target), signed.signatures)
    write_atomically(target, signed.content)
    if party.administrator is not None:
        sign_policy(directory, now)
    return Joined(party.name, charter, policy)


def _check_membership(party: Party, charter: Charter, source: str) -> None:
    member = charter.member(party.name)
    if member is None:
        raise WrongSiloError(
            f"{party.name} is no member of the charter {charter.name}",
            where=source,
            remedy="send card.json to whoever makes the charter",
        )
    if member != party.card.as_member():
        raise TrustError(
            f"the charter pins other keys for {party.name} than its card.json has",
            where=source,
            remedy="have the charter made again from this directory's card.json",
        )
