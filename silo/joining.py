"""Joining a federation: the charter is checked and kept, the policy checked and signed, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from federation.identity import Party
from policies.administration import sign_policy
from policies.charter import Charter
from policies.charter_administration import adopt_charter
from policies.files import load_charters, load_yaml
from policies.signing import PublicKey
from policies.silo_policy import SiloPolicy
from policies.trust import WrongSiloError
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
    charter = load_charters(charter_path, now)[-1]
    _check_membership(party, charter, str(charter_path))
    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    adopt_charter(directory, charter_path, now)
    if party.administrator is not None and party.administrator.public_key in _administrators(party, charter):
        sign_policy(directory, now)
    return Joined(party.name, charter, policy)


def _administrators(party: Party, charter: Charter) -> tuple[PublicKey, ...]:
    member = charter.member(party.name)
    return member.administrators.keys if member else ()


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
