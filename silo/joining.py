"""Joining a federation: the charter is checked and kept, the policy checked and signed, in one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from federation.identity import Party
from policies.administration import sign_policy
from policies.charters.administration import adopt_charter, card_for
from policies.charters.charter import Card, Charter
from policies.files import load_charters, load_yaml
from policies.signing import PrivateKey, PublicKey
from policies.silo_policy import SiloPolicy
from policies.trust import WrongSiloError
from policies.verification import Verified, verify_policy
from privacy.errors import TrustError


@dataclass(frozen=True)
class Joined:
    """What was joined, under which law."""

    silo: str
    charter: Charter
    policy: SiloPolicy
    verified: Verified

    def describe(self, directory: Path) -> Iterator[str]:
        """What was done, and what is still to be done before the agent takes a job."""
        have, needed = len(self.verified.signers), self.verified.threshold
        yield (
            f"{self.silo} has joined {self.charter.name}: {len(self.charter.members)} members, "
            f"in force until {self.charter.expires}."
        )
        if have < needed:
            yield f"policy.yaml version {self.policy.version} is not signed: {have} of {needed} signatures."
            yield f"Next, an administrator: archipel policy sign --dir {directory}"
            return
        yield f"policy.yaml version {self.policy.version} is signed."
        yield f"Next: archipel silo run --dir {directory}"

    def values(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "silo": self.silo,
            "charter": self.charter.name,
            "policy_version": self.policy.version,
            "signed": len(self.verified.signers) >= self.verified.threshold,
            "frozen": self.verified.freeze is not None,
        }

    def warnings(self) -> Iterator[str]:
        """What keeps the agent from taking jobs, and what is permissive in the policy."""
        freeze, problem = self.verified.freeze, self.verified.problem
        if freeze is not None:
            yield (
                f"frozen since {freeze.frozen_at}: the agent takes no new job until a policy of version "
                f"{freeze.policy_version + 1} or later is signed"
            )
        if problem is not None and len(self.verified.signers) >= self.verified.threshold:
            yield f"the agent will not take this policy: [{problem.code}] {problem}"
        yield from self.policy.warnings()


def join(directory: Path, charter_path: Path, passphrase: bytes | None = None) -> Joined:
    """Trust the charter, check that it names this silo as it is, keep it, sign the policy.

    A silo whose administrator key is kept elsewhere, or behind a passphrase that is not given, joins without
    signing; its policy is signed there, or later.

    Args:
        directory: the silo's.
        charter_path: the charter that its members signed.
        passphrase: of the administrator's key.

    Raises:
        PassphraseError: it is not the key's; nothing was done.
        TrustError: the charter is not in force, or pins other keys than this silo's.
        PolicyFileError: everything wrong with policy.yaml.
    """
    now = datetime.now(UTC)
    party = Party.load(directory)
    charter = load_charters(charter_path, now)[-1]
    _check_membership(card_for(directory, charter), charter, str(charter_path))
    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    key_file = directory / "keys" / "administrator.pem"
    administrator = party.administrator
    if passphrase is not None and key_file.exists():
        administrator = PrivateKey.load(key_file, passphrase)
    adopt_charter(directory, charter_path, now)
    if administrator is not None and administrator.public_key in _administrators(party, charter):
        sign_policy(directory, now, passphrase=passphrase)
    return Joined(party.name, charter, policy, verify_policy(directory, now))


def _administrators(party: Party, charter: Charter) -> tuple[PublicKey, ...]:
    member = charter.member(party.name)
    return member.administrators.keys if member else ()


def _check_membership(card: Card, charter: Charter, source: str) -> None:
    member = charter.member(card.name)
    if member is None:
        raise WrongSiloError(
            f"{card.name} is no member of the charter {charter.name}",
            where=source,
            remedy="send card.json to whoever makes the charter",
        )
    if member != card.as_member():
        raise TrustError(
            f"the charter pins other keys for {card.name} than its card.json has",
            where=source,
            remedy="have the charter made again from this directory's card.json",
        )
