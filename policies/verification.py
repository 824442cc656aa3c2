"""Is this policy to be trusted, who signed it, and is it frozen? Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.files import load_card, load_charters, load_yaml, read_signed, signature_path
from policies.freezing import FREEZE_FILE, Freeze, trust_freeze
from policies.signing import PublicKey, SignatureError, valid_signers
from policies.silo_policy import SiloPolicy
from policies.trust import WrongSiloError, parse_signatures, trust_policy
from privacy.errors import ArchipelError


@dataclass(frozen=True)
class Verified:
    """What a verification found.

    Attributes:
        policy: the policy as the file says it.
        sha256: its digest.
        threshold: how many administrators must sign.
        signers: those who signed exactly this content.
        missing: the other administrators that the charter lists.
        in_force: the newest version that was in force here, None if there was none.
        problem: why the policy, or a freeze beside it, is not to be trusted; None where it is.
        freeze: a trusted freeze of this version; None where there is none. One whose file was removed after
            the agent had seen it counts.
    """

    policy: SiloPolicy
    sha256: str
    threshold: int
    signers: tuple[PublicKey, ...]
    missing: tuple[PublicKey, ...]
    in_force: int | None
    problem: ArchipelError | None
    freeze: Freeze | None


def verify_policy(directory: Path, now: datetime, *, charter_file: Path | None = None) -> Verified:
    """Judge a silo's ``policy.yaml`` as its agent would, without its keys and its ledger.

    Args:
        directory: the silo's, or a copy of its public files.
        now: reference time, aware.
        charter_file: the verifier's own charter; ``charter.yaml`` of the directory by default.

    Raises:
        ArchipelError: a file that is missing or malformed, or a charter that is not to be trusted.
    """
    charter = load_charters(charter_file or directory / "charter.yaml", now)[-1]
    silo = load_card(directory / "card.json").name
    member = charter.member(silo)
    if member is None:
        raise WrongSiloError(f"{silo} is no member of the charter {charter.name}", where=str(directory))
    path = directory / "policy.yaml"
    policy = load_yaml(path, SiloPolicy)
    in_force, problem = newest_version(directory), None
    try:
        signed = read_signed(path)
        trust_policy(
            signed.content, signed.signatures, charter=charter, silo=silo, previous_version=in_force, now=now,
            source=str(path),
        )  # fmt: skip
    except ArchipelError as error:
        problem = error
    freeze = None
    try:
        freeze = _freeze(directory, charter, policy)
    except ArchipelError as error:
        problem = problem or error
    keys = member.administrators.keys
    signers = _signers(path, policy, keys)
    return Verified(
        policy,
        digest(policy),
        member.administrators.threshold,
        tuple(key for key in keys if key in signers),
        tuple(key for key in keys if key not in signers),
        in_force,
        problem,
        freeze,
    )


def newest_version(directory: Path) -> int | None:
    """Return the newest version that a silo's agent took, None if it took none yet."""
    kept = (path.stem for path in (directory / "policies").glob("*.yaml"))
    return max((int(stem) for stem in kept if stem.isdecimal()), default=None)


def _signers(path: Path, policy: SiloPolicy, keys: tuple[PublicKey, ...]) -> frozenset[PublicKey]:
    beside = signature_path(path)
    if not beside.exists():
        return frozenset()
    try:
        return valid_signers(policy.signed_bytes(), parse_signatures(beside.read_bytes(), str(beside)), keys)
    except SignatureError:
        return frozenset()  # of other content


def _freeze(directory: Path, charter: Charter, policy: SiloPolicy) -> Freeze | None:
    """The freeze that holds this version: as an administrator wrote it, or as the agent kept it."""
    for path in (directory / FREEZE_FILE, directory / "policies" / FREEZE_FILE):
        if not path.exists():
            continue
        signed = read_signed(path)
        freeze = trust_freeze(
            signed.content, signed.signatures, charter=charter, silo=policy.silo, source=str(path)
        )
        if policy.version <= freeze.policy_version:
            return freeze
    return None
