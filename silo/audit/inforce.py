"""Which policy was in force at an entry: every version that was kept, as its administrators signed it.

The ledger names policies by digest. The file of a version, with the signatures beside it, is in ``policies/``
since the site began to trust it; the newest is ``policy.yaml`` as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import PurePosixPath

from policies.canonical import digest
from policies.charter import Charter
from policies.silo_policy import SiloPolicy
from policies.trust import UnsignedError, days_left, trust_policy
from policies.validation import parse_yaml
from privacy.errors import ArchipelError
from privacy.ledger.fold import Fold, ReservedAt, TermsAt
from privacy.ledger.records import AccountTerms
from silo.audit.evidence import POLICY, Evidence
from silo.audit.findings import Finding, finding


@dataclass(frozen=True)
class KeptPolicies:
    """The signed policies of a record.

    Attributes:
        current: what ``policy.yaml`` says, None where that is not to be trusted.
        by_digest: every trusted version.
        findings: files that are not to be trusted.
    """

    current: SiloPolicy | None
    by_digest: Mapping[str, SiloPolicy]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, evidence: Evidence, *, silo: str, charter: Charter, now: datetime) -> KeptPolicies:
        """Read and check every kept version.

        Args:
            evidence: the record.
            silo: whose policies they must be.
            charter: the auditor's; lists the administrators.
            now: reference time; a policy that has expired since is still what was in force.
        """
        found: list[Finding] = []
        trusted: dict[str, SiloPolicy] = {}
        current = None
        for name in (POLICY, *(name for name in evidence.names() if _is_kept(name))):
            try:
                policy = _trusted(evidence, name, silo=silo, charter=charter, now=now)
            except ArchipelError as error:
                found.append(finding("policy_untrusted", name, error.message))
                continue
            trusted[digest(policy)] = policy
            if name == POLICY:
                current = policy
            elif PurePosixPath(name).stem != str(policy.version):
                text = f"the file is of version {policy.version}"
                found.append(finding("policy_untrusted", name, text))
        return cls(current, trusted, tuple(found))


def check_policies(kept: KeptPolicies, fold: Fold, *, ledger: str) -> Iterator[Finding]:
    """Hold every set of terms, and the moment of every reservation, against the policy in force then.

    Args:
        kept: the signed versions.
        fold: the ledger's entries.
        ledger: what their file is called.
    """
    yield from kept.findings
    for item in fold.terms:
        where = f"{ledger} entry {item.seq}"
        policy = kept.by_digest.get(item.terms.policy_sha256)
        if policy is None:
            yield from _unknown(kept.current, item, where)
            continue
        yield from _budget(item.terms, policy, f"version {policy.version} of the policy")
        yield from _expired(policy, item, where)
    for reservation in fold.reservations:
        policy = kept.by_digest.get(reservation.record.policy_sha256)
        if policy is not None:
            yield from _expired(policy, reservation, f"{ledger} entry {reservation.seq}")


def _unknown(current: SiloPolicy | None, item: TermsAt, where: str) -> Iterator[Finding]:
    """Terms of a policy that is not among the trusted ones."""
    if current is None:
        return  # policy.yaml is a finding already
    terms = item.terms
    text = f"account {terms.account} was given terms by version {terms.policy_version}"
    if terms.policy_version < current.version:
        yield finding("policy_unproven", where, f"{text}, of which no signed copy was kept")
    elif terms.policy_version > current.version:
        yield finding("policy_rolled_back", POLICY, f"{text}; the file is version {current.version}")
    else:
        text += f" with other content ({terms.policy_sha256[:12]}…)"
        yield finding("policy_digest", POLICY, text)


def _budget(terms: AccountTerms, policy: SiloPolicy, what: str) -> Iterator[Finding]:
    signed = policy.budgets.get(terms.account)
    if signed is None or signed.to_budget() != terms.budget:
        text = f"the ledger's budget of account {terms.account} is not that of {what}"
        yield finding("budget_differs", POLICY, text)


def _expired(policy: SiloPolicy, item: TermsAt | ReservedAt, where: str) -> Iterator[Finding]:
    try:
        at = datetime.fromisoformat(item.at)
    except ValueError:
        return  # said where the clock is looked at
    if at.tzinfo is not None and days_left(policy.expires, at) < 0:
        text = f"version {policy.version} of the policy was in force until {policy.expires}"
        yield finding("policy_expired", where, f"{text}, the entry is of {at.date()}")


def last_moment(expires: date) -> datetime:
    """The last moment of the last day in force."""
    return datetime.combine(expires, time.max, tzinfo=UTC)


def _is_kept(name: str) -> bool:
    return name.startswith("policies/") and name.endswith(".yaml")


def _trusted(evidence: Evidence, name: str, *, silo: str, charter: Charter, now: datetime) -> SiloPolicy:
    content = evidence.read(name)
    beside = name.removesuffix(".yaml") + ".sig.json"
    if not evidence.has(beside):
        raise UnsignedError("nobody has signed this file", where=evidence.place(name))
    expires = parse_yaml(content, SiloPolicy, name).expires
    return trust_policy(
        content,
        evidence.read(beside),
        charter=charter,
        silo=silo,
        previous_version=None,
        now=min(now, last_moment(expires)),
        source=name,
    )
