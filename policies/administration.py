"""What an administrator does with policies, as functions that return values and print nothing.

``archipel policy`` and ``archipel silo join`` are made of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from policies.charters.charter import Administrators, Card, Charter
from policies.documents import PolicyFileError, Problem
from policies.files import (
    load_card,
    load_charter,
    load_signatures,
    load_yaml,
    save_card,
    save_signatures,
    signature_path,
    write_atomically,
)
from policies.freezing import Freeze, write_freeze
from policies.requirements import PublishedRequirements, extract
from policies.signing import DetachedSignatures, PrivateKey, PublicKey, valid_signers
from policies.silo_policy import SiloPolicy
from policies.trust import WrongSignerError, WrongSiloError, days_left, require_unexpired
from policies.verification import verify_policy
from privacy.errors import UsageError

EXPIRES_SOON_DAYS = 30


@dataclass(frozen=True, slots=True)
class PolicyState:
    """A policy and how far it is signed.

    Attributes:
        policy: the policy.
        signers: administrators who signed exactly this content.
        administrators: who may, and how many must.
    """

    policy: SiloPolicy
    signers: frozenset[PublicKey]
    administrators: Administrators

    @property
    def is_complete(self) -> bool:
        """Whether enough administrators signed."""
        return len(self.signers) >= self.administrators.threshold


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """What a check found beyond the form of the file.

    Attributes:
        policy: the policy.
        problems: what keeps the agent from running under it.
        warnings: what deserves a second look.
        is_signed: whether enough administrators signed exactly this content.
    """

    policy: SiloPolicy
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    is_signed: bool


def sign_policy(
    directory: Path, now: datetime, *, key_file: Path | None = None, passphrase: bytes | None = None
) -> PolicyState:
    """Sign the policy of a silo's directory as one of its administrators.

    Args:
        directory: holds ``policy.yaml`` and ``card.json`` or ``charter.yaml``.
        now: reference time, aware.
        key_file: the administrator's key; ``keys/administrator.pem`` of the directory by default.
        passphrase: of that key.

    Raises:
        PassphraseError: the passphrase is missing or wrong.
        WrongSignerError: the key is none of the silo's administrators.
        WrongSiloError: the policy names another silo.
        ArchipelError: files that cannot be used, or an expired policy.
    """
    path = directory / "policy.yaml"
    silo, administrators = silo_administrators(directory)
    policy = load_yaml(path, SiloPolicy)
    if policy.silo != silo:
        raise WrongSiloError(
            f"this is the policy of {policy.silo}, not of {silo}",
            where=str(path),
            remedy=f"write silo: {silo}",
        )
    require_unexpired("policy", policy.expires, now)
    require_enforceable(policy, str(path))
    key = _administrator_key(directory, silo, administrators, key_file, passphrase)
    payload = policy.signed_bytes()
    signatures = _kept(path, payload).signed_by(key, payload)
    save_signatures(path, signatures)
    return PolicyState(policy, valid_signers(payload, signatures, administrators.keys), administrators)


def freeze_policy(
    directory: Path,
    now: datetime,
    *,
    key_file: Path | None = None,
    passphrase: bytes | None = None,
    stop_jobs: bool = False,
    reason: str | None = None,
) -> Freeze:
    """Stop new jobs of a silo as one of its administrators; see :mod:`policies.freezing`.

    Args:
        directory: the silo's.
        now: reference time, aware.
        key_file: the administrator's key; ``keys/administrator.pem`` of the directory by default.
        passphrase: of that key.
        stop_jobs: cancel running jobs as well.
        reason: for this silo's own people.

    Raises:
        PassphraseError: the passphrase is missing or wrong.
        WrongSignerError: the key is none of the silo's administrators.
        ArchipelError: files that cannot be used.
    """
    silo, administrators = silo_administrators(directory)
    key = _administrator_key(directory, silo, administrators, key_file, passphrase)
    return write_freeze(directory, now, silo=silo, key=key, stop_jobs=stop_jobs, reason=reason)


def check_policy(directory: Path, now: datetime) -> PolicyCheck:
    """Read a silo's policy as its agent would, and look beyond the form.

    Args:
        directory: holds ``policy.yaml``; card, charter and signatures are used where they are.
        now: reference time, aware.

    Raises:
        PolicyFileError: the file itself is malformed; every problem at once.
    """
    path = directory / "policy.yaml"
    policy = load_yaml(path, SiloPolicy)
    problems = [*_expiry_problems(policy, now), *_unenforced_problems(policy)]
    warnings = [*policy.warnings(), *early_renewals(policy, now), *_file_warnings(policy, directory)]
    is_signed = False
    if (directory / "card.json").exists() or (directory / "charter.yaml").exists():
        silo, administrators = silo_administrators(directory)
        if policy.silo != silo:
            problems.append(Problem(0, "silo", f"{policy.silo} is not {silo}", f"write silo: {silo}"))
        is_signed = _is_signed(path, policy, administrators)
    if (directory / "charter.yaml").exists():
        charter = load_yaml(directory / "charter.yaml", Charter)
        warnings += [
            f"accepts.with_members: {name} is no member of the charter {charter.name}"
            for name in policy.accepts.with_members
            if charter.member(name) is None
        ]
    left = days_left(policy.expires, now)
    if 0 <= left < EXPIRES_SOON_DAYS:
        warnings.append(f"expires: {left} days left; sign a newer version before")
    return PolicyCheck(policy, tuple(problems), tuple(warnings), is_signed)


def publish_requirements(directory: Path, target: Path, now: datetime) -> PublishedRequirements:
    """Write what a silo's signed policy demands of plans; see :mod:`policies.requirements`.

    Args:
        directory: the silo's.
        target: the file.
        now: reference time, aware.

    Raises:
        ArchipelError: the policy or the charter is not to be trusted, or files that cannot be used.
    """
    verified = verify_policy(directory, now)
    if verified.problem is not None:
        raise verified.problem
    identity = PrivateKey.load(directory / "keys" / "identity.pem")
    published = extract(verified.policy, load_charter(directory, now), identity, now)
    text = json.dumps(published.model_dump(mode="json", exclude_unset=True), indent=2) + "\n"
    write_atomically(target, text.encode("utf-8"))
    return published


def name_administrators(directory: Path, keys: Sequence[str], threshold: int) -> Card:
    """Issue a silo's card anew with other administrators, by its identity key.

    Args:
        directory: holds ``card.json`` and ``keys/identity.pem``.
        keys: their public keys; all earlier ones are left out.
        threshold: how many of them must sign.

    Raises:
        UsageError: not a silo's directory, or keys and threshold that cannot be.
        ArchipelError: files that cannot be used.
    """
    card = load_card(directory / "card.json")
    if card.administrators is None:
        raise UsageError("a coordinator has no policy", where=str(directory), remedy="name a silo's --dir")
    try:
        listed = Administrators(threshold=threshold, keys=tuple(PublicKey.parse(text) for text in keys))
    except ValueError as error:
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            text, where="--key, --threshold", remedy="archipel policy key new prints a key"
        ) from error
    identity = PrivateKey.load(directory / "keys" / "identity.pem")
    fresh = Card.issue(
        identity, role="silo", name=card.name, certificate_der=card.certificate_der, administrators=listed
    )
    save_card(directory / "card.json", fresh)
    return fresh


def early_renewals(policy: SiloPolicy, now: datetime) -> list[str]:
    """Renewals that a policy takes before their day: it may be signed, and is refused until then."""
    return [
        f"budgets.{name}.renewed: the renewal of {renewal.date} is taken before its day; "
        "until then the agent refuses this version, and the one before it stays in force"
        for name, budget in policy.budgets.items()
        for renewal in budget.taken
        if renewal.date > now.astimezone(UTC).date()
    ]


def silo_administrators(directory: Path) -> tuple[str, Administrators]:
    """Name and administrators of the silo whose directory this is: as its charter says, else as its card.

    Raises:
        UsageError: this is no silo's directory.
        ArchipelError: files that cannot be used.
    """
    card = load_card(directory / "card.json")
    if card.administrators is None:
        raise UsageError(
            "this is a coordinator's directory; it has no policy",
            where=str(directory),
            remedy="name a silo's directory with --dir",
        )
    charter_path = directory / "charter.yaml"
    if not charter_path.exists():
        return card.name, card.administrators
    member = load_yaml(charter_path, Charter).member(card.name)
    if member is None:
        raise WrongSiloError(f"{card.name} is no member of this charter", where=str(charter_path))
    return member.silo, member.administrators


def _administrator_key(
    directory: Path,
    silo: str,
    administrators: Administrators,
    key_file: Path | None,
    passphrase: bytes | None,
) -> PrivateKey:
    key = PrivateKey.load(key_file or directory / "keys" / "administrator.pem", passphrase)
    if key.public_key not in administrators.keys:
        raise WrongSignerError(
            f"key {key.key_id} is none of the administrators of {silo}",
            where=str(key_file or directory),
            remedy=f"sign with one of: {', '.join(known.key_id for known in administrators.keys)}",
        )
    return key


def _kept(path: Path, payload: bytes) -> DetachedSignatures:
    """Signatures of the same content; those of an earlier content are dropped."""
    fresh = DetachedSignatures.over(payload)
    present = load_signatures(path) if signature_path(path).exists() else None
    return present if present is not None and present.payload_sha256 == fresh.payload_sha256 else fresh


def _is_signed(path: Path, policy: SiloPolicy, administrators: Administrators) -> bool:
    signatures = _kept(path, policy.signed_bytes())
    signers = valid_signers(policy.signed_bytes(), signatures, administrators.keys)
    return len(signers) >= administrators.threshold


def require_enforceable(policy: SiloPolicy, source: str) -> SiloPolicy:
    """Accept a policy whose every field something holds to.

    Raises:
        PolicyFileError: a field that would do nothing.
    """
    problems = tuple(_unenforced_problems(policy))
    if problems:
        raise PolicyFileError(source, problems)
    return policy


def _unenforced_problems(policy: SiloPolicy) -> Iterator[Problem]:
    for field, why in policy.unenforced():
        yield Problem(0, field, why, "remove it: nothing of this version would hold to it")


def _expiry_problems(policy: SiloPolicy, now: datetime) -> list[Problem]:
    if days_left(policy.expires, now) >= 0:
        return []
    message = f"{policy.expires.isoformat()} is over"
    return [Problem(0, "expires", message, "write a later date, raise version and sign")]


def _file_warnings(policy: SiloPolicy, directory: Path) -> list[str]:
    return [
        f"datasets.{name}.exclude_users: {dataset.exclude_users} is not there; jobs will be refused"
        for name, dataset in policy.datasets.items()
        if dataset.exclude_users and not (directory / dataset.exclude_users).exists()
    ]
