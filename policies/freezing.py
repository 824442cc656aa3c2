"""A freeze: one administrator stops new jobs at once; only a newer policy, signed as any, lifts it.

``freeze.yaml`` beside ``policy.yaml`` names the version at which it was written. It holds every policy of
that version or an older one; nobody needs the others' signatures to stop, and everybody needs them to go on.
Running jobs keep their law, unless the freeze says ``stop_jobs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from policies.canonical import signed_bytes
from policies.charters.charter import Charter
from policies.files import load_yaml, save_signatures, save_yaml
from policies.sections import PartyName, Section, Whole
from policies.signing import DetachedSignatures, PrivateKey, verify_threshold
from policies.silo_policy import MAX_VERSION, SiloPolicy
from policies.trust import MAX_VERSION_STEP, FastForwardError, WrongSiloError, parse_signatures
from policies.validation import parse_yaml
from privacy.errors import ArchipelError

FREEZE_KIND = "freeze"
FREEZE_FILE = "freeze.yaml"


class Freeze(Section):
    """What one administrator signs to stop a silo.

    Attributes:
        silo: whose policy is frozen.
        policy_version: every policy up to this version is held.
        frozen_at: when, UTC.
        stop_jobs: whether running jobs are cancelled as well.
        reason: for this silo's own people.
    """

    kind: Literal["Freeze"]
    schema_version: Literal[1]
    silo: PartyName
    policy_version: Annotated[Whole, Field(ge=1, le=MAX_VERSION)]
    frozen_at: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    stop_jobs: bool = False
    reason: Annotated[str, StringConstraints(max_length=500)] | None = None

    def signed_bytes(self) -> bytes:
        """What the administrator signs."""
        return signed_bytes(FREEZE_KIND, self)


@dataclass(frozen=True)
class Hold:
    """Why a silo takes no new job.

    Attributes:
        why: for this silo's own people.
        remedy: how to go on.
        stops_jobs: whether running jobs are cancelled.
        problem: what is wrong with the freeze, where it cannot be trusted. It holds all the same: whoever can
            write this file can stop the silo anyway, and a damaged one must not start it.
        freeze: what an administrator signed, where that is why.
    """

    why: str
    remedy: str
    stops_jobs: bool = False
    problem: ArchipelError | None = None
    freeze: Freeze | None = None


def trust_freeze(
    content: bytes, signatures: bytes, *, charter: Charter, silo: str, source: str = FREEZE_FILE
) -> Freeze:
    """Accept a freeze: signed by one of the administrators that the charter lists.

    Args:
        content: bytes of ``freeze.yaml``.
        signatures: bytes of ``freeze.sig.json``.
        charter: a trusted charter.
        silo: whose freeze it must be.
        source: the file's name, for messages.

    Raises:
        PolicyFileError, OversizeError: not a freeze.
        WrongSiloError: another silo's, or no member of the charter.
        UnsignedError, SignatureError, ThresholdError: no administrator signed it.
    """
    freeze = parse_yaml(content, Freeze, source)
    member = charter.member(silo)
    if member is None or freeze.silo != silo:
        raise WrongSiloError(f"this is a freeze of {freeze.silo}, not of {silo}", where=source)
    detached = parse_signatures(signatures, source.removesuffix(".yaml") + ".sig.json")
    verify_threshold(freeze.signed_bytes(), detached, member.administrators.keys, 1)
    return freeze


def hold_of(freeze: Freeze, policy: SiloPolicy) -> Hold | None:
    """Return what a trusted freeze does to ``policy``; None where the policy is newer.

    Raises:
        FastForwardError: the freeze names a version that hardly any policy could follow.
    """
    if policy.version > freeze.policy_version:
        return None
    if freeze.policy_version > policy.version + MAX_VERSION_STEP:
        raise FastForwardError(
            f"the freeze names version {freeze.policy_version}, the policy is version {policy.version}",
            where=FREEZE_FILE,
            remedy=f"remove it, and freeze again: at most {MAX_VERSION_STEP} versions ahead",
        )
    because = f": {freeze.reason}" if freeze.reason else ""
    return Hold(
        f"frozen since {freeze.frozen_at}{because}",
        f"sign a policy of version {freeze.policy_version + 1} or later",
        freeze.stop_jobs,
        freeze=freeze,
    )


def write_freeze(
    directory: Path,
    now: datetime,
    *,
    silo: str,
    key: PrivateKey,
    stop_jobs: bool = False,
    reason: str | None = None,
) -> Freeze:
    """Write and sign a freeze of every version that this silo has, its draft included.

    Args:
        directory: the silo's.
        now: reference time, aware.
        silo: its name.
        key: an administrator's.
        stop_jobs: cancel running jobs as well.
        reason: for this silo's own people.

    Raises:
        PolicyFileError: ``policy.yaml`` is malformed.
        OSError: the disk is full or not writable; nothing is frozen.
    """
    kept = (path.stem for path in (directory / "policies").glob("*.yaml"))
    versions = [load_yaml(directory / "policy.yaml", SiloPolicy).version]
    versions += [int(stem) for stem in kept if stem.isdecimal()]
    values = {
        "kind": "Freeze",
        "schema_version": 1,
        "silo": silo,
        "policy_version": max(versions),
        "frozen_at": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "stop_jobs": stop_jobs,
    }
    freeze = Freeze.model_validate(values if reason is None else {**values, "reason": reason})
    path = directory / FREEZE_FILE
    payload = freeze.signed_bytes()
    save_yaml(path, freeze, header="No new job is accepted until a newer policy is signed.")
    save_signatures(path, DetachedSignatures.over(payload).signed_by(key, payload))
    return freeze
