"""Which policy was in force at an entry: every version that was kept, as its administrators signed it.

The ledger names policies by digest. The file of a version, with the signatures beside it, is in ``policies/``
since the site began to trust it; the newest is ``policy.yaml`` as well. Whose signatures count is said by the
charter that was in force at the entry: what a since revoked administrator signed before stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.silo_policy import SiloPolicy
from policies.trust import UnsignedError, days_left, trust_policy
from policies.validation import parse_yaml
from privacy.errors import ArchipelError
from privacy.ledger.fold import Fold, ReservedAt, TermsAt
from privacy.ledger.records import AccountTerms
from silo.audit.charters import CharterChain, at_most
from silo.audit.evidence import FREEZES, POLICY, Evidence
from silo.audit.findings import Finding, finding, untrusted

_AFTER_ALL = 2**53


@dataclass(frozen=True)
class KeptPolicies:
    """The signed policies of a record.

    Attributes:
        current: what ``policy.yaml`` says, where the administrators of the latest charter signed it.
        by_digest: every version that the administrators of some charter signed.
        signed_under: the versions of those charters, by the policy's digest.
        findings: files that are not to be trusted.
    """

    current: SiloPolicy | None
    by_digest: Mapping[str, SiloPolicy]
    signed_under: Mapping[str, frozenset[int]]
    findings: tuple[Finding, ...]

    @classmethod
    def of(
        cls, evidence: Evidence, *, silo: str, chain: CharterChain, fold: Fold, now: datetime
    ) -> KeptPolicies:
        """Read and check every kept version.

        A version that an entry rests on is judged by the charter of that entry (:func:`check_policies`);
        ``policy.yaml``, where none does, by the charter that the ledger is kept under last.

        Args:
            evidence: the record.
            silo: whose policies they must be.
            chain: the charters; they list the administrators.
            fold: the ledger's entries.
            now: reference time; a policy that has expired since is still what was in force.
        """
        found: list[Finding] = []
        trusted: dict[str, SiloPolicy] = {}
        signed_under: dict[str, frozenset[int]] = {}
        current, named = None, {item.terms.policy_sha256 for item in fold.terms}
        latest = {charter.version for charter in chain.in_force_at(fold, _AFTER_ALL)}
        for name in (POLICY, *(name for name in evidence.names() if _is_kept(name))):
            try:
                policy, under = _trusted(evidence, name, silo=silo, chain=chain, now=now)
            except ArchipelError as error:
                found += untrusted("policy_untrusted", name, error)
                continue
            sha256 = digest(policy)
            trusted[sha256] = policy
            signed_under[sha256] = signed_under.get(sha256, frozenset()) | under
            if name == POLICY:
                if under & latest:
                    current = policy
                elif sha256 not in named:
                    text = (
                        f"version {policy.version} was not signed by administrators of the charter in force"
                    )
                    found.append(finding("policy_untrusted", name, text))
            elif PurePosixPath(name).stem != str(policy.version):
                text = f"the file is of version {policy.version}"
                found.append(finding("policy_untrusted", name, text))
        return cls(current, trusted, signed_under, tuple(found))


def check_policies(kept: KeptPolicies, chain: CharterChain, fold: Fold, *, ledger: str) -> Iterator[Finding]:
    """Hold every set of terms, and the moment of every reservation, against charter and policy in force then.

    Args:
        kept: the signed versions.
        chain: the charters.
        fold: the ledger's entries.
        ledger: what their file is called.
    """
    yield from kept.findings
    for item in fold.terms:
        where = f"{ledger} entry {item.seq}"
        policy = kept.by_digest.get(item.terms.policy_sha256)
        if policy is None:
            yield from _unknown(kept, item, where)
            continue
        yield from _budget(item.terms, policy, f"version {policy.version} of the policy")
        yield from _renewed_early(policy, item, where)
        yield from _signers(kept, item.terms.policy_sha256, chain.in_force_at(fold, item.seq), where)
        yield from _expired(policy, item, where)
    for reservation in fold.reservations:
        policy = kept.by_digest.get(reservation.record.policy_sha256)
        if policy is not None:
            where = f"{ledger} entry {reservation.seq}"
            charters = chain.in_force_at(fold, reservation.seq)
            yield from _signers(kept, reservation.record.policy_sha256, charters, where)
            yield from _expired(policy, reservation, where)


def _signers(kept: KeptPolicies, sha256: str, charters: Sequence[Charter], where: str) -> Iterator[Finding]:
    """Whether the administrators of the charter in force then had signed the policy."""
    versions = [charter.version for charter in charters]
    if versions and not kept.signed_under[sha256].intersection(versions):
        text = f"version {kept.by_digest[sha256].version} of the policy was not signed by the administrators "
        text += f"of version {versions[-1]} of the charter, which was in force"
        yield finding("signers_revoked", where, text)


def _renewed_early(policy: SiloPolicy, item: TermsAt, where: str) -> Iterator[Finding]:
    budget, at = policy.budgets.get(item.terms.account), _moment(item.at)
    if budget is None or at is None:
        return
    early = [renewal.date for renewal in budget.taken if renewal.date > at.date()]
    if early:
        text = f"account {item.terms.account} got its renewal of {early[0]} on {at.date()}"
        yield finding("renewal_early", where, text)


def _unknown(kept: KeptPolicies, item: TermsAt, where: str) -> Iterator[Finding]:
    """Terms of a policy that is not among the trusted ones."""
    current, terms = kept.current, item.terms
    if current is None:
        if not any(found.where == POLICY for found in kept.findings):  # else policy.yaml is a finding already
            text = f"account {terms.account} was given terms by version {terms.policy_version}"
            yield finding("policy_unproven", where, f"{text}, of which no signed copy was kept")
        return
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
    at = _moment(item.at)
    if at is not None and days_left(policy.expires, at) < 0:
        text = f"version {policy.version} of the policy was in force until {policy.expires}"
        yield finding("policy_expired", where, f"{text}, the entry is of {at.date()}")


def _moment(at: str) -> datetime | None:
    """An entry's time, UTC; one that is none is said where the clock is looked at."""
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return None
    return None if found.tzinfo is None else found.astimezone(UTC)


def _is_kept(name: str) -> bool:
    return name.startswith("policies/") and name.endswith(".yaml") and name not in FREEZES


def _trusted(
    evidence: Evidence, name: str, *, silo: str, chain: CharterChain, now: datetime
) -> tuple[SiloPolicy, frozenset[int]]:
    """A policy, and the versions of the charters whose administrators signed it; at least one."""
    content = evidence.read(name)
    beside = name.removesuffix(".yaml") + ".sig.json"
    if not evidence.has(beside):
        raise UnsignedError("nobody has signed this file", where=evidence.place(name))
    signatures = evidence.read(beside)
    expires = parse_yaml(content, SiloPolicy, name).expires
    policy: SiloPolicy | None = None
    under, refused = set[int](), list[ArchipelError]()
    for charter in reversed(chain.charters):
        try:
            policy = trust_policy(
                content,
                signatures,
                charter=charter,
                silo=silo,
                previous_version=None,
                now=at_most(at_most(now, charter.expires), expires),
                source=name,
            )
            under.add(charter.version)
        except ArchipelError as error:
            refused.append(error)
    if policy is None:
        raise refused[0]
    return policy, frozenset(under)
