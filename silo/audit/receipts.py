"""What peers saw: their countersignatures of a ledger's head outlive whatever its owner does to the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from policies.canonical import signed_bytes
from policies.charter import Charter
from policies.files import read_limited
from policies.signing import SignatureError
from privacy.errors import DataError
from privacy.ledger.fold import Fold
from privacy.ledger.records import Receipt
from silo.audit.findings import Finding, finding

RECEIPT_KIND = "receipt"
_RECEIPTS: TypeAdapter[tuple[Receipt, ...]] = TypeAdapter(tuple[Receipt, ...])


@dataclass
class Witness:
    """What the receipts about one ledger prove.

    Attributes:
        valid: receipts by peers that fit the ledger.
        newest: the newest entry they cover.
        findings: what is wrong with them, or with the ledger in their light.
    """

    valid: int = 0
    newest: int = 0
    findings: list[Finding] = field(default_factory=list)


def load_receipts(path: Path) -> tuple[Receipt, ...]:
    """A ``receipts.json``, as agents leave it in ``jobs/<job_id>/``.

    Raises:
        DataError: no such file, or no receipts.
    """
    try:
        return _RECEIPTS.validate_python(json.loads(read_limited(path)))
    except (ValueError, ValidationError) as error:
        raise DataError(
            "this is not a file of receipts", where=str(path), remedy="name a receipts.json of a member"
        ) from error


def check_receipts(
    receipts: Iterable[tuple[str, Receipt]], *, silo: str, charter: Charter, hashes: Mapping[int, str]
) -> Witness:
    """Verify receipts and hold them against a ledger.

    Args:
        receipts: where each was found, and the receipt.
        silo: whose ledger.
        charter: the auditor's.
        hashes: the ledger's hash by entry number.
    """
    witness = Witness()
    last = max(hashes, default=0)
    unique = {receipt: where for where, receipt in receipts}
    for receipt, where in unique.items():
        problem = _signature_problem(receipt, charter)
        if problem:
            witness.findings.append(finding("receipt_signature", where, problem))
        elif receipt.silo != silo or receipt.by == silo:
            continue
        elif receipt.head_seq > last:
            text = f"{receipt.by} saw entry {receipt.head_seq} (job {receipt.job}); now {last} is the last"
            witness.findings.append(finding("ledger_truncated", where, text))
        elif hashes.get(receipt.head_seq) != receipt.head_hash:
            text = f"{receipt.by} saw another entry {receipt.head_seq} at the end of job {receipt.job}"
            witness.findings.append(finding("receipt_contradicted", where, text))
        else:
            witness.valid += 1
            witness.newest = max(witness.newest, receipt.head_seq)
    return witness


def unwitnessed(fold: Fold, newest: int, where: str) -> Iterator[Finding]:
    """Whether the last charge is covered by a receipt."""
    if fold.last_charge_seq <= newest:
        return
    job = fold.state().jobs.get(fold.last_charge_job)
    running = " (the job is still open: verify again when it has ended)" if job and job.open else ""
    yield finding(
        "unwitnessed",
        f"{where} entry {fold.last_charge_seq}",
        f"no peer's receipt covers the last charge, of job {fold.last_charge_job}{running}",
    )


def _signature_problem(receipt: Receipt, charter: Charter) -> str | None:
    member = charter.member(receipt.by)
    if member is None:
        return f"a receipt by {receipt.by}, who is no member of the charter {charter.name}"
    try:
        member.identity_key.verify(signed_bytes(RECEIPT_KIND, receipt.statement()), receipt.signature)
    except SignatureError:
        return f"{receipt.by} did not sign the receipt about {receipt.silo} at entry {receipt.head_seq}"
    return None
