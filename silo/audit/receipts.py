"""What others saw: peers' countersignatures of a ledger's head, and an auditor's own earlier bundle.

Both outlive whatever the ledger's owner does to the file later, its own key in hand.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from policies.canonical import signed_bytes
from policies.decisions.selections import is_selection
from policies.files import read_limited
from policies.signing import SignatureError
from privacy.errors import ArchipelError, DataError, TrustError
from privacy.ledger.fold import Fold
from privacy.ledger.records import Receipt, Witnessed, read_record
from silo.audit.charters import CharterChain
from silo.audit.evidence import Evidence, open_evidence
from silo.audit.findings import Finding, finding

RECEIPT_KIND = "receipt"
_RECEIPTS: TypeAdapter[tuple[Receipt, ...]] = TypeAdapter(tuple[Receipt, ...])


@dataclass
class Witness:
    """What the receipts about one ledger prove.

    Attributes:
        valid: receipts by peers that fit the ledger.
        newest: the newest entry they cover.
        jobs: the jobs at whose end they were given.
        findings: what is wrong with them, or with the ledger in their light.
    """

    valid: int = 0
    newest: int = 0
    jobs: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def load_receipts(path: Path) -> tuple[Receipt, ...]:
    """A ``receipts.json``, as agents leave it in ``jobs/<job_id>/``.

    Raises:
        DataError: no such file, or no receipts.
    """
    return parse_receipts(read_limited(path), str(path))


def parse_receipts(content: bytes, source: str) -> tuple[Receipt, ...]:
    """The same from the bytes of the file."""
    try:
        return _RECEIPTS.validate_python(json.loads(content))
    except (ValueError, ValidationError, RecursionError) as error:
        raise DataError(
            "this is not a file of receipts", where=source, remedy="name a receipts.json of a member"
        ) from error


def receipts_of_peer(path: Path) -> Iterator[tuple[str, Receipt]]:
    """Every receipt that a peer hands out: a ``receipts.json``, or all of its bundle or directory.

    Raises:
        DataError: none of these.
    """
    if path.suffix == ".json":
        yield from ((str(path), item) for item in load_receipts(path))
        return
    with open_evidence(path) as evidence:
        found: list[Finding] = []
        for where, receipt in kept_receipts(evidence, found):
            yield f"{path}/{where}", receipt
        if found:
            raise DataError(found[0].text, where=found[0].where, remedy="ask the peer for the file again")
        with evidence.open_ledger() as ledger:
            for entry in ledger.entries():
                try:
                    record = read_record(entry)
                except TrustError:
                    continue
                if isinstance(record, Witnessed):
                    yield from ((f"{path} entry {entry.seq}", item) for item in record.receipts)


def kept_receipts(evidence: Evidence, found: list[Finding]) -> Iterator[tuple[str, Receipt]]:
    """The receipts beside a ledger; what cannot be read is added to ``found``."""
    for job in evidence.jobs():
        name = f"jobs/{job}/receipts.json"
        if not evidence.has(name):
            continue
        try:
            for receipt in parse_receipts(evidence.read(name), name):
                yield name, receipt
        except ArchipelError as error:
            found.append(finding("job_file_unreadable", name, error.message))


def check_receipts(
    receipts: Iterable[tuple[str, Receipt]], *, silo: str, chain: CharterChain, hashes: Mapping[int, str]
) -> Witness:
    """Verify receipts and hold them against a ledger.

    Args:
        receipts: where each was found, and the receipt.
        silo: whose ledger.
        chain: the charters; whoever was a member is known by its identity.
        hashes: the ledger's hash by entry number.
    """
    witness = Witness()
    last = max(hashes, default=0)
    seen: dict[int, dict[str, Receipt]] = defaultdict(dict)
    unique = {receipt: where for where, receipt in receipts}
    for receipt, where in unique.items():
        problem = _signature_problem(receipt, chain)
        if problem:
            witness.findings.append(finding("receipt_signature", where, problem))
            continue
        if receipt.silo != silo or receipt.by == silo:
            continue
        seen[receipt.head_seq].setdefault(receipt.head_hash, receipt)
        if receipt.head_seq > last:
            text = f"{receipt.by} saw entry {receipt.head_seq} (job {receipt.job}); now {last} is the last"
            witness.findings.append(finding("ledger_truncated", where, text))
        elif hashes.get(receipt.head_seq) != receipt.head_hash:
            text = f"{receipt.by} saw another entry {receipt.head_seq} at the end of job {receipt.job}"
            witness.findings.append(finding("receipt_contradicted", where, text))
        else:
            witness.valid += 1
            witness.newest = max(witness.newest, receipt.head_seq)
            witness.jobs.add(receipt.job)
    witness.findings += _forks(seen)
    return witness


def check_earlier(path: Path, hashes: Mapping[int, str], *, silo: str, ledger: str) -> Iterator[Finding]:
    """Hold a ledger against an earlier bundle, or copy, of it: what was written then must still be there.

    Args:
        path: the earlier one.
        hashes: the ledger's hash by entry number, as it is now.
        silo: whose ledger it must be.
        ledger: what the file of the entries is called now.

    Raises:
        DataError: it cannot be read, or is another silo's.
    """
    with open_evidence(path) as evidence:
        if evidence.silo() != silo:
            raise DataError(
                f"this is a record of {evidence.silo()}, not of {silo}",
                where=str(path),
                remedy="name an earlier bundle of the same silo",
            )
        with evidence.open_ledger() as earlier:
            last = 0
            for entry in earlier.entries():
                last = entry.seq
                if entry.seq in hashes and hashes[entry.seq] != entry.hash:
                    where = f"{ledger} entry {entry.seq}"
                    text = f"it is another one than in {path.name}, and so may be every later one"
                    yield finding("history_changed", where, text)
                    return
    newest = max(hashes, default=0)
    if last > newest:
        text = f"{path.name} goes up to entry {last}; now {newest} is the last"
        yield finding("ledger_truncated", ledger, text)


def unwitnessed(fold: Fold, newest: int, where: str) -> Iterator[Finding]:
    """Whether the last charge is covered by a receipt."""
    if fold.last_charge_seq <= newest:
        return
    job = fold.state().jobs.get(fold.last_charge_job)
    charged = f"job {fold.last_charge_job}"
    if is_selection(fold.last_charge_job):
        charged = f"the private choice {fold.last_charge_job} (peers countersign it when the next job ends)"
    elif job and job.open:
        charged += " (the job is still open: verify again when it has ended)"
    yield finding(
        "unwitnessed",
        f"{where} entry {fold.last_charge_seq}",
        f"no peer's receipt covers the last charge, of {charged}",
    )


def _forks(seen: Mapping[int, Mapping[str, Receipt]]) -> Iterator[Finding]:
    """Two peers that countersigned different entries of one number were shown different histories."""
    for seq, by_hash in sorted(seen.items()):
        if len(by_hash) > 1:
            told = ", ".join(f"{receipt.by} {digest[:12]}…" for digest, receipt in by_hash.items())
            yield finding("ledger_forked", f"receipts of entry {seq}", f"peers saw different entries: {told}")


def _signature_problem(receipt: Receipt, chain: CharterChain) -> str | None:
    member = chain.member(receipt.by)
    if member is None:
        return f"a receipt by {receipt.by}, who is no member of the charter {chain.newest.name}"
    try:
        member.identity_key.verify(signed_bytes(RECEIPT_KIND, receipt.statement()), receipt.signature)
    except SignatureError:
        return f"{receipt.by} did not sign the receipt about {receipt.silo} at entry {receipt.head_seq}"
    return None
