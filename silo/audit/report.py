"""The whole audit as one value: what was verified, spent, promised and replayed; for people and machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from policies.canonical import digest
from policies.explain import explain_policy
from policies.plans.plan import Plan
from policies.plans.summary import counted
from privacy.errors import ArchipelError, FindingError
from privacy.ledger.fold import TermsAt
from silo.audit.alignments import AlignmentLine, alignment_lines
from silo.audit.charters import CharterChain, follow_charters
from silo.audit.evidence import Evidence, open_evidence
from silo.audit.findings import MEANINGS, PAGE, Finding, Report, worst_first
from silo.audit.inforce import KeptPolicies
from silo.audit.jobs import plan_of
from silo.audit.replay import Replay, replay
from silo.audit.spending import Overview, overview
from silo.audit.verify import NOTHING_ELSE, Elsewhere, verify_evidence
from silo.audit.words import assumptions, guarantee

T = TypeVar("T")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Value):
    """What was audited, and against what.

    Attributes:
        record: name of the directory or bundle.
        record_sha256: of a bundle's bytes; None of a directory, which goes on changing.
        charter: its name.
        charter_sha256: digest of the auditor's charter.
        made: when, UTC.
        made_by: version of the program.
        compared: what else was looked at: peers' receipts, trail, earlier bundle.
    """

    record: str
    record_sha256: str | None
    charter: str
    charter_sha256: str
    made: str
    made_by: str
    compared: tuple[str, ...]


class PolicyVersion(_Value):
    """One version of the policy and since when the ledger was kept under it."""

    version: int
    sha256: str
    since_entry: int
    since: str
    expires: str | None
    signed: bool


class Section(_Value):
    """Sentences under a heading."""

    heading: str
    sentences: tuple[str, ...]


class AuditReport(_Value):
    """What ``archipel audit report`` says.

    Attributes:
        source: what was audited.
        verification: what ``audit verify`` says.
        findings: of verification and replay, worst first.
        meanings: what each code of a finding means.
        guarantees: one section an account.
        assumptions: what they rest on.
        spending: what ``audit budget`` says; None where the entries cannot be read.
        alignments: vertical plans for which people in common were looked for.
        policy: the policy in force, in plain words; empty where none is to be trusted.
        versions: every version that the ledger names.
        replay: what ``audit replay`` says; None where the second accountant refused or was not asked.
        unreadable: why one of the two is missing.
    """

    source: Source
    verification: Report
    findings: tuple[Finding, ...]
    meanings: dict[str, str]
    guarantees: tuple[Section, ...]
    assumptions: tuple[str, ...]
    spending: Overview | None
    alignments: tuple[AlignmentLine, ...]
    policy: tuple[Section, ...]
    versions: tuple[PolicyVersion, ...]
    replay: Replay | None
    unreadable: tuple[str, ...]

    def accepted(self) -> AuditReport:
        """Return this report if nothing was found.

        Raises:
            FindingError: something was, or could not be looked at.
        """
        if self.findings or self.unreadable:
            codes = ", ".join(dict.fromkeys(item.code for item in self.findings))
            raise FindingError(
                f"{counted(len(self.findings), 'finding')}: {codes}" if codes else self.unreadable[0],
                where=self.verification.silo,
                remedy=f"{PAGE} says what each means and what to do",
            )
        return self


def make_report(
    path: Path,
    charter_path: Path,
    *,
    now: datetime,
    silo: str | None = None,
    elsewhere: Elsewhere = NOTHING_ELSE,
    advance: Callable[[int, int], None] | None = None,
    is_replayed: bool = True,
) -> AuditReport:
    """Verify, add up and replay one record.

    Args:
        path: a silo's directory or a bundle.
        charter_path: the auditor's charter.
        now: reference time.
        silo: whose record it is; by default what its card says.
        elsewhere: what the auditor has from others.
        advance: told of each account and job that the second accountant has done.
        is_replayed: ask the second accountant, who takes his time over sampled releases.

    Raises:
        NotAMemberError, TrustError, DataError: see :func:`silo.audit.verify.verify`.
    """
    with open_evidence(path) as evidence:
        chain = follow_charters(charter_path, evidence, now)
        found = verify_evidence(evidence, chain, now=now, silo=silo, elsewhere=elsewhere)
        verified, current = found.report, found.kept.current
        unreadable: list[str] = []
        spending = _tried(lambda: overview(evidence), unreadable)
        replayed = _tried(lambda: replay(evidence, advance=advance), unreadable) if is_replayed else None
        findings = worst_first([*verified.findings, *(replayed.findings if replayed else ())])
        return AuditReport(
            source=_source(path, chain, now, elsewhere),
            verification=verified,
            findings=findings,
            meanings={item.code: MEANINGS[item.code][1] for item in findings},
            guarantees=tuple(_guarantees(spending)),
            assumptions=assumptions(tuple(_plans(evidence, spending))),
            spending=spending,
            alignments=tuple(alignment_lines(evidence, spending)),
            policy=tuple(
                Section(heading=heading, sentences=sentences)
                for heading, sentences in (explain_policy(current, now) if current else ())
            ),
            versions=tuple(_versions(found.fold.terms, found.kept)),
            replay=replayed,
            unreadable=tuple(dict.fromkeys(unreadable)),
        )


def _tried(compute: Callable[[], T], unreadable: list[str]) -> T | None:
    try:
        return compute()
    except ArchipelError as error:
        unreadable.append(str(error))
        return None


def _source(path: Path, chain: CharterChain, now: datetime, elsewhere: Elsewhere) -> Source:
    compared = [f"receipts of a peer: {item.name}" for item in elsewhere.receipts]
    if elsewhere.trail is not None:
        compared.append(f"trail of the coordinator: {elsewhere.trail.name}")
    if elsewhere.earlier is not None:
        compared.append(f"earlier bundle: {elsewhere.earlier.name}")
    return Source(
        record=path.resolve().name,
        record_sha256=_digest_of(path) if path.is_file() else None,
        charter=chain.root.name,
        charter_sha256=digest(chain.root),
        made=now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        made_by=f"archipel {version('archipel')}",
        compared=tuple(compared),
    )


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _guarantees(spending: Overview | None) -> Iterator[Section]:
    for account in spending.accounts if spending else ():
        yield Section(heading=account.account, sentences=guarantee(account))


def _plans(evidence: Evidence, spending: Overview | None) -> Iterator[Plan]:
    if spending is None:
        return
    for job in spending.jobs:
        if job.releases or job.open:
            plan = plan_of(evidence, job.job, job.plan_sha256)
            if plan is not None:
                yield plan


def _versions(terms: Iterable[TermsAt], kept: KeptPolicies) -> Iterator[PolicyVersion]:
    """Each version once, from the first entry that rests on it."""
    seen: set[str] = set()
    for item in terms:
        sha256 = item.terms.policy_sha256
        if sha256 in seen:
            continue
        seen.add(sha256)
        policy = kept.by_digest.get(sha256)
        yield PolicyVersion(
            version=item.terms.policy_version,
            sha256=sha256,
            since_entry=item.seq,
            since=item.at,
            expires=policy.expires.isoformat() if policy else None,
            signed=policy is not None,
        )
