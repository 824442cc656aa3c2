"""Which policy a silo is under: the newest that its administrators signed, and whether it is frozen.

``policy.yaml`` is what the administrators want next, ``policies/`` what was in force. A file that is not to
be trusted (unsigned, expired, rolled back, an account's filter changed) changes nothing: the version before
it stays in force for as long as it is itself in force, and the refusal is said.

=============================================  ==========================================================
``policy.yaml``                                in force
=============================================  ==========================================================
signed, newer                                  it, from the next plan on; it is kept
the one kept last                              it
edited, unsigned, malformed, gone              the one kept last, if it has not expired
older than one that was in force               the one kept last, if it has not expired
expired, and so is the one kept last           none: the agent takes no plan
signed by administrators the charter dropped   none, until the present ones sign a newer version
=============================================  ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from policies.administration import require_enforceable
from policies.charters.charter import Charter
from policies.files import SignedFile, load_yaml, read_limited, read_signed, signature_path, write_atomically
from policies.freezing import FREEZE_FILE, Freeze, Hold, hold_of, trust_freeze
from policies.silo_policy import SiloPolicy
from policies.trust import trust_policy
from privacy.errors import ArchipelError
from privacy.ledger.ledger import FilterChangedError
from privacy.ledger.state import LedgerState
from silo.policy_archive import POLICIES, keep_policy


@dataclass(frozen=True)
class Law:
    """What a silo is under.

    Attributes:
        policy: the policy in force.
        refused: why ``policy.yaml`` is not it; None where it is.
        hold: why no new job is taken; None where nothing stops them.
    """

    policy: SiloPolicy
    refused: ArchipelError | None = None
    hold: Hold | None = None


def law_of(
    directory: Path,
    *,
    charter: Charter,
    silo: str,
    ledger: LedgerState,
    now: datetime,
    is_kept: bool = True,
) -> Law:
    """Read, judge and keep the policy of a silo's directory, and its freeze.

    Args:
        directory: the silo's.
        charter: the trusted charter.
        silo: its name.
        ledger: the accounts; never an older policy than theirs, nor another filter.
        now: reference time, aware.
        is_kept: keep what is trusted; who only looks writes nothing.

    Raises:
        ArchipelError: what is wrong with ``policy.yaml``, where no earlier version is in force either.
        OSError: the disk is full or not writable.
    """
    trusted = _Judge(charter, silo, ledger, now, is_kept)
    kept = _newest_kept(directory)
    floor = int(kept.path.stem) if kept else None
    refused: ArchipelError | None = None
    try:
        signed = read_signed(directory / "policy.yaml")
        policy = trusted.policy(signed, floor)
        if is_kept:
            keep_policy(directory, policy.version, signed)
    except ArchipelError as error:
        if kept is None:
            raise
        refused = error
        try:
            policy = trusted.policy(kept, floor)
        except ArchipelError:
            raise error from None
    return Law(policy, refused, trusted.hold(directory, policy))


@dataclass(frozen=True)
class _Judge:
    charter: Charter
    silo: str
    ledger: LedgerState
    now: datetime
    is_kept: bool

    def policy(self, signed: SignedFile, floor: int | None) -> SiloPolicy:
        """A trusted version, not older than ``floor`` and the accounts, that the ledger can take."""
        seen = [(a.policy_version, a.policy_sha256) for a in self.ledger.accounts.values()]
        version, sha256 = max(seen, default=(0, None))
        policy = trust_policy(
            signed.content,
            signed.signatures,
            charter=self.charter,
            silo=self.silo,
            previous_version=max(version, floor or 0) or None,
            previous_sha256=sha256 if version >= (floor or 0) else None,
            now=self.now,
            source=str(signed.path),
        )
        require_enforceable(policy, str(signed.path))
        for name, budget in policy.budgets.items():
            account = self.ledger.accounts.get(name)
            if account is not None and account.budget.filter != budget.filter_spec:
                raise FilterChangedError(
                    "the filter of an account is fixed for its life",
                    where=f"{signed.path}: budgets.{name}",
                    remedy="write the old filter into the policy; what was promised stays on this account",
                )
        return policy

    def hold(self, directory: Path, policy: SiloPolicy) -> Hold | None:
        """What stops new jobs: a freeze that is there, or one that was, until a newer policy lifts it."""
        path = directory / FREEZE_FILE
        kept = directory / POLICIES / FREEZE_FILE
        try:
            if path.exists():
                signed = read_signed(path)
                found = hold_of(self._freeze(signed), policy)
                if found is not None and self.is_kept:
                    _keep_freeze(kept, signed)
                if found is not None:
                    return found
            found = hold_of(load_yaml(kept, Freeze), policy) if kept.exists() else None
            return found or self._noted_hold(policy)
        except ArchipelError as error:
            remedy = f"remove it, then freeze again: archipel policy freeze --dir {directory}"
            return Hold(f"a freeze that cannot be trusted: {error}", remedy, problem=error)

    def _noted_hold(self, policy: SiloPolicy) -> Hold | None:
        """A freeze whose files are gone: the ledger keeps that there was one."""
        noted = self.ledger.freeze
        if noted is None or policy.version > noted.policy_version:
            return None
        remedy = f"sign a policy of version {noted.policy_version + 1} or later"
        return Hold(f"frozen since {noted.frozen_at}; its file is gone, the ledger keeps it", remedy)

    def _freeze(self, signed: SignedFile) -> Freeze:
        return trust_freeze(
            signed.content, signed.signatures, charter=self.charter, silo=self.silo, source=str(signed.path)
        )


def _newest_kept(directory: Path) -> SignedFile | None:
    """The version kept last, unchecked."""
    kept = [path for path in (directory / POLICIES).glob("*.yaml") if path.stem.isdecimal()]
    if not kept:
        return None
    path = max(kept, key=lambda path: int(path.stem))
    beside = signature_path(path)
    return SignedFile(path, read_limited(path), read_limited(beside) if beside.exists() else b"")


def _keep_freeze(path: Path, signed: SignedFile) -> None:
    """Keep a freeze that was trusted: removing its file does not lift it."""
    for target, content in ((signature_path(path), signed.signatures), (path, signed.content)):
        if not target.is_file() or target.read_bytes() != content:
            write_atomically(target, content)
