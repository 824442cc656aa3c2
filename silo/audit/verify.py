"""Was anything altered? Everything a silo's directory claims, against what the auditor knows from elsewhere.

The charter is the *auditor's* copy: it says who the silo is, who its administrators and who its peers are.
The ledger is read at one moment and never written, also while the agent runs.

Checked, in this order: every entry's hash, place and signature; what the entries mean (accounts,
reservations, charges, releases, every filter decision repeated); the accounts beside them; peers' receipts;
the signed policy; each job's plan, digest and price.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from policies.charter import Charter
from policies.files import load_card, read_signed
from policies.signing import PublicKey
from policies.trust import trust_charter
from policies.validation import parse_yaml
from privacy.errors import ArchipelError, TrustError
from privacy.ledger import tables
from privacy.ledger.chain import GENESIS, Entry, LogCorruptError, LogReader
from privacy.ledger.fold import Fold
from privacy.ledger.records import Receipt
from silo.audit.files import check_jobs, check_policy, last_moment
from silo.audit.findings import Finding, Report, finding, worst_first
from silo.audit.receipts import check_receipts, load_receipts, unwitnessed

LEDGER = "ledger.db"


class NotAMemberError(TrustError):
    """The auditor's charter does not know the silo, or knows it under another identity."""

    code = "not_a_member"


def verify(
    directory: Path,
    charter_path: Path,
    *,
    now: datetime,
    silo: str | None = None,
    receipts: Sequence[Path] = (),
) -> Report:
    """Verify a silo's ledger and the files its digests name.

    Args:
        directory: the silo's, or a copy of it.
        charter_path: the auditor's own charter, its signatures beside it.
        now: reference time; a charter that has expired since is still who they were.
        silo: whose directory it is; by default what its card says.
        receipts: further ``receipts.json`` that peers handed out.

    Raises:
        NotAMemberError: the charter does not know this silo.
        TrustError: the charter itself is not to be trusted.
        DataError: there is no ledger, or no such file.
    """
    charter, at = auditors_charter(charter_path, now)
    name, key = _who(directory, charter, silo)
    ledger = directory / LEDGER
    found: list[Finding] = []
    entries: list[Entry] = []
    fold = Fold()
    try:
        with LogReader.open(ledger) as reader:
            found += _chain(reader, key)
            for entry in reader.entries():
                entries.append(entry)
                found += [_at_entry(item.code, item.seq, item.text) for item in fold.apply(entry)]
            found += _accounts(reader, fold, entries)
    except LogCorruptError as error:
        found.append(finding("ledger_unreadable", LEDGER, error.message))
    known = [(LEDGER, item) for item in fold.receipts]
    known += _kept_receipts(directory, found)
    known += [(str(path), item) for path in receipts for item in load_receipts(path)]
    hashes = {entry.seq: entry.hash for entry in entries}
    witness = check_receipts(known, silo=name, charter=charter, hashes=hashes)
    found += witness.findings
    found += unwitnessed(fold, witness.newest, LEDGER)
    found += check_policy(directory, fold, silo=name, charter=charter, now=at)
    found += check_jobs(directory, fold)
    return Report(
        silo=name,
        charter=charter.name,
        entries=len(entries),
        head_hash=entries[-1].hash if entries else GENESIS,
        charges=len(fold.charges),
        receipts=witness.valid,
        witnessed_seq=witness.newest,
        findings=worst_first(found),
    )


def auditors_charter(path: Path, now: datetime) -> tuple[Charter, datetime]:
    """The auditor's charter, and the latest moment up to ``now`` at which it was in force.

    Raises:
        TrustError: not signed by all members, or altered.
        DataError: no such file, or no charter.
    """
    signed = read_signed(path)
    expires = parse_yaml(signed.content, Charter, str(path)).expires
    at = min(now, last_moment(expires))
    return trust_charter(signed.content, signed.signatures, at, source=str(path)), at


def _who(directory: Path, charter: Charter, silo: str | None) -> tuple[str, PublicKey]:
    name = silo or load_card(directory / "card.json").name
    member = charter.member(name)
    if member is None:
        raise NotAMemberError(
            f"{name} is no member of the charter {charter.name}",
            where=str(directory),
            remedy="name the charter of its federation with --charter, or the member with --silo",
        )
    return name, member.identity_key


def _chain(reader: LogReader, key: PublicKey) -> Iterator[Finding]:
    for problem in reader.problems(_verifier(key)):
        yield _at_entry(problem.code, problem.seq, problem.text)


def _verifier(key: PublicKey) -> Callable[[bytes, bytes], None]:
    return lambda message, signature: key.verify(message, base64.b64encode(signature).decode("ascii"))


def _accounts(reader: LogReader, fold: Fold, entries: list[Entry]) -> Iterator[Finding]:
    """Hold the tables beside the entries against the fold of the entries."""
    db, state = reader.connection, fold.state()
    try:
        kept = tables.ledger_state(db)
    except (ArchipelError, ValueError, TypeError):
        yield finding("accounts_differ", LEDGER, "the accounts beside the entries cannot be read")
        return
    if kept != state or tables.all_charges(db) != fold.charges:
        yield finding("accounts_differ", LEDGER, "the entries add up to other accounts, jobs or charges")
    for status in state.accounts.values():
        if tables.is_frozen(db, status.account) != status.frozen:
            yield finding("accounts_differ", LEDGER, f"account {status.account} is frozen, or ought to be")
    head = (entries[-1].seq, entries[-1].hash) if entries else (0, GENESIS)
    if tables.folded_head(db) != head:
        yield finding("accounts_differ", LEDGER, "the accounts were not kept up to the last entry")


def _kept_receipts(directory: Path, found: list[Finding]) -> Iterator[tuple[str, Receipt]]:
    for path in sorted((directory / "jobs").glob("*/receipts.json")):
        where = str(path.relative_to(directory))
        try:
            for receipt in load_receipts(path):
                yield where, receipt
        except ArchipelError as error:
            found.append(finding("job_file_unreadable", where, error.message))


def _at_entry(code: str, seq: int, text: str) -> Finding:
    return finding(code, f"{LEDGER} entry {seq}", text)
