"""Was anything altered? Everything a silo's record claims, against what the auditor knows from elsewhere.

The charter is the *auditor's* copy: it says who the silo is, who its administrators and who its peers are.
The ledger is read at one moment and never written, also while the agent runs.

Checked, in this order: every entry's hash, place, signature and time; what the entries mean (accounts,
reservations, charges, releases, every filter decision repeated); the accounts beside them; peers' receipts
and an earlier bundle; the charter and the policy in force at each entry, and freezes; each job's plan,
digest, price and whether that policy allowed it; the coordinator's trail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from policies.signing import PublicKey
from privacy.accounting import Spending
from privacy.errors import ArchipelError, DeniedError, TrustError
from privacy.ledger import tables
from privacy.ledger.chain import GENESIS, Head, LogCorruptError, LogReader, chain_problems
from privacy.ledger.fold import Fold
from silo.audit.adoption import check_adoption
from silo.audit.charters import CharterChain, check_charters, follow_charters
from silo.audit.clock import ClockCheck
from silo.audit.evidence import Evidence, LedgerCopy, open_evidence
from silo.audit.findings import Finding, Report, finding, worst_first
from silo.audit.freezes import check_freezes
from silo.audit.inforce import KeptPolicies, check_policies
from silo.audit.jobs import check_jobs
from silo.audit.receipts import check_earlier, check_receipts, kept_receipts, receipts_of_peer, unwitnessed
from silo.audit.trail import check_trail, verifier


class NotAMemberError(TrustError):
    """The auditor's charter does not know the silo, or knows it under another identity."""

    code = "not_a_member"


@dataclass(frozen=True)
class Elsewhere:
    """What the auditor has from others than the silo.

    Attributes:
        receipts: ``receipts.json`` files, bundles or directories of peers.
        trail: the coordinator's ``trail.db``.
        earlier: a bundle that was exported earlier.
    """

    receipts: Sequence[Path] = ()
    trail: Path | None = None
    earlier: Path | None = None


NOTHING_ELSE = Elsewhere()


@dataclass(frozen=True)
class Verified:
    """What was found, and what it was found in.

    Attributes:
        report: what ``archipel audit verify`` says.
        fold: the ledger's entries, up to where they can be read.
        kept: the signed policies.
    """

    report: Report
    fold: Fold
    kept: KeptPolicies


@dataclass
class _Read:
    """What one pass over the entries leaves."""

    fold: Fold = field(default_factory=Fold)
    hashes: dict[int, str] = field(default_factory=dict)
    head: Head = field(default=Head(0, GENESIS))
    findings: list[Finding] = field(default_factory=list)


def verify(
    path: Path,
    charter_path: Path,
    *,
    now: datetime,
    silo: str | None = None,
    receipts: Sequence[Path] = (),
    trail: Path | None = None,
    earlier: Path | None = None,
) -> Report:
    """Verify a silo's ledger and the files its digests name.

    Args:
        path: the silo's directory, a copy of it, or a bundle.
        charter_path: the auditor's own charter, its signatures beside it; any version of it.
        now: reference time; a charter that has expired since is still who they were.
        silo: whose record it is; by default what its card says.
        receipts: what peers handed out: ``receipts.json`` files, or their bundles.
        trail: the coordinator's ``trail.db``.
        earlier: a bundle of the same silo that was exported earlier.

    Raises:
        NotAMemberError: the charter does not know this silo.
        TrustError: the charter itself is not to be trusted.
        DataError: there is no ledger, no such file, or a damaged bundle.
    """
    with open_evidence(path) as evidence:
        chain = follow_charters(charter_path, evidence, now)
        return verify_evidence(
            evidence, chain, now=now, silo=silo, elsewhere=Elsewhere(receipts, trail, earlier)
        ).report


def verify_evidence(
    evidence: Evidence,
    chain: CharterChain,
    *,
    now: datetime,
    silo: str | None = None,
    elsewhere: Elsewhere = NOTHING_ELSE,
) -> Verified:
    """The same of a record that is open.

    Args:
        evidence: the record.
        chain: the charters that the auditor can trust.
        now: reference time.
        silo: whose record it is; by default what its card says.
        elsewhere: what the auditor has from others.
    """
    name, key = _who(evidence, chain, silo)
    read = _read(evidence, key, now)
    fold, found = read.fold, read.findings
    known = [(evidence.ledger, item) for item in fold.receipts]
    known += kept_receipts(evidence, found)
    for path in elsewhere.receipts:
        known += receipts_of_peer(path)
    witness = check_receipts(known, silo=name, chain=chain, hashes=read.hashes)
    found += witness.findings
    found += unwitnessed(fold, witness.newest, evidence.ledger)
    if elsewhere.earlier is not None:
        found += check_earlier(elsewhere.earlier, read.hashes, silo=name, ledger=evidence.ledger)
    found += check_charters(chain, fold, silo=name, ledger=evidence.ledger)
    found += check_adoption(chain, fold, ledger=evidence.ledger, peers=elsewhere.receipts)
    kept = KeptPolicies.of(evidence, silo=name, chain=chain, fold=fold, now=now)
    found += check_policies(kept, chain, fold, ledger=evidence.ledger)
    found += check_freezes(evidence, chain, fold, silo=name)
    found += check_jobs(evidence, fold, kept.by_digest, chain)
    if elsewhere.trail is not None:
        found += check_trail(elsewhere.trail, fold, silo=name, chain=chain, witnessed_jobs=witness.jobs)
    report = Report(
        silo=name,
        charter=chain.newest.name,
        entries=len(read.hashes),
        head_hash=read.head.hash,
        charges=len(fold.charges),
        receipts=witness.valid,
        witnessed_seq=witness.newest,
        findings=worst_first(found),
    )
    return Verified(report, fold, kept)


def _who(evidence: Evidence, chain: CharterChain, silo: str | None) -> tuple[str, PublicKey]:
    name = silo or evidence.silo()
    member = chain.member(name)
    if member is None:
        raise NotAMemberError(
            f"{name} is no member of the charter {chain.newest.name}",
            where=str(evidence.path),
            remedy="name the charter of its federation with --charter, or the member with --silo",
        )
    return name, member.identity_key


def _read(evidence: Evidence, key: PublicKey, now: datetime) -> _Read:
    """Chain, meaning and times of the entries; what is damaged ends the reading, not the audit."""
    read, clock = _Read(), ClockCheck(now, evidence.ledger)
    found = read.findings
    try:
        with evidence.open_ledger() as ledger:
            found += _chain(ledger, key, evidence.ledger)
            for entry in ledger.entries():
                read.hashes[entry.seq] = entry.hash
                read.head = Head(entry.seq, entry.hash)
                where = f"{evidence.ledger} entry {entry.seq}"
                found += [finding(item.code, where, item.text) for item in read.fold.apply(entry)]
                found += clock.look(entry)
            if isinstance(ledger, LogReader):
                found += _accounts(ledger, read, evidence.ledger)
    except LogCorruptError as error:
        found.append(finding("ledger_unreadable", evidence.ledger, error.message))
    return read


def _chain(ledger: LedgerCopy, key: PublicKey, where: str) -> Iterator[Finding]:
    for problem in chain_problems(ledger.rows(), verifier(key)):
        yield finding(problem.code, f"{where} entry {problem.seq}", problem.text)


def _accounts(reader: LogReader, read: _Read, where: str) -> Iterator[Finding]:
    """Hold the tables beside the entries against the fold of the entries."""
    db, state = reader.connection, read.fold.state()
    try:
        kept = tables.ledger_state(db)
        sums = tables.balances(db) if tables.has_sums(db) else None
    except (ArchipelError, ValueError, TypeError):
        yield finding("accounts_differ", where, "the accounts beside the entries cannot be read")
        return
    if kept != state or tables.all_charges(db) != read.fold.charges:
        yield finding("accounts_differ", where, "the entries add up to other accounts, jobs or charges")
    for status in state.accounts.values():
        if tables.is_frozen(db, status.account) != status.frozen:
            yield finding("accounts_differ", where, f"account {status.account} is frozen, or ought to be")
    if sums is not None and sums != _sums(read.fold, state.accounts):
        yield finding("accounts_differ", where, "the entries come to another epsilon than is kept")
    if tables.folded_head(db) != read.head:
        yield finding("accounts_differ", where, "the accounts were not kept up to the last entry")


def _sums(fold: Fold, accounts: Iterable[str]) -> dict[str, Spending]:
    """What each account's entries come to; what its filter cannot price is nothing that is ever kept."""
    sums = {}
    for name in accounts:
        with suppress(DeniedError):
            sums[name] = fold.spent(name)
    return sums
