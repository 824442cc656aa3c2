"""Whether an administrator's freeze was heeded: no job is reserved for while the policy is frozen.

A freeze is a finding's ground twice over: from the entry on at which the ledger noted it (the fold says so),
and from the moment that the freeze itself names, where the signed file came with the record.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from policies.freezing import Freeze, trust_freeze
from policies.trust import UnsignedError
from privacy.errors import ArchipelError
from privacy.ledger.fold import Fold
from silo.audit.charters import CharterChain
from silo.audit.evidence import FREEZES, Evidence
from silo.audit.findings import Finding, finding, untrusted

NOTICE = timedelta(seconds=10)
"""A job that is being accepted while an administrator signs may still be reserved for."""


def check_freezes(evidence: Evidence, chain: CharterChain, fold: Fold, *, silo: str) -> Iterator[Finding]:
    """Hold every reservation against the freezes of the record.

    Args:
        evidence: the record.
        chain: the charters; an administrator of any of them may have frozen.
        fold: the ledger's entries.
        silo: whose freezes they must be.
    """
    versions = {item.terms.policy_sha256: item.terms.policy_version for item in fold.terms}
    for name in FREEZES:
        if not evidence.has(name):
            continue
        try:
            freeze = _trusted(evidence, name, chain, silo)
        except ArchipelError as error:
            yield from untrusted("freeze_untrusted", name, error)
            continue
        begins = datetime.fromisoformat(freeze.frozen_at) + NOTICE
        for item in fold.reservations:
            version = versions.get(item.record.policy_sha256, freeze.policy_version + 1)
            if version <= freeze.policy_version and _moment(item.at, begins) > begins:
                text = f"entry {item.seq} of {item.at} reserved for job {item.record.job} under version"
                text += f" {version}, which an administrator froze at {freeze.frozen_at}"
                yield finding("reserved_while_frozen", name, text)


def _trusted(evidence: Evidence, name: str, chain: CharterChain, silo: str) -> Freeze:
    beside = name.removesuffix(".yaml") + ".sig.json"
    if not evidence.has(beside):
        raise UnsignedError("nobody has signed this file", where=evidence.place(name))
    content, signatures = evidence.read(name), evidence.read(beside)
    refused: ArchipelError | None = None
    for charter in reversed(chain.charters):
        try:
            return trust_freeze(content, signatures, charter=charter, silo=silo, source=name)
        except ArchipelError as error:
            refused = refused or error
    raise refused or UnsignedError("nobody has signed this file", where=evidence.place(name))


def _moment(at: str, otherwise: datetime) -> datetime:
    """An entry's time; one that is none is said where the clock is looked at."""
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return otherwise
    return found if found.tzinfo is not None else otherwise
