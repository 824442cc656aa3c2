"""Whether the silo took up the auditor's charter, and since when others had: their ledgers say.

An amendment has no date of its own: it is in force where it was installed. A silo that hides one writes no
entry about it, so only others can say since when it could have known. Each of them notes the charter its
ledger is kept under, signed and in the chain that its peers countersign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from privacy.errors import TrustError
from privacy.ledger.chain import chain_problems
from privacy.ledger.fold import Fold
from privacy.ledger.records import CharterAdopted, read_record
from silo.audit.charters import CharterChain
from silo.audit.evidence import Evidence, open_evidence
from silo.audit.findings import Finding, finding
from silo.audit.trail import verifier


class Adoption(NamedTuple):
    """A peer's ledger from some entry on."""

    at: str
    peer: str
    seq: int
    version: int


def check_adoption(
    chain: CharterChain, fold: Fold, *, ledger: str, peers: Sequence[Path] = ()
) -> Iterator[Finding]:
    """Say so where the ledger was last kept under an older charter than the auditor's.

    Args:
        chain: the trusted charters.
        fold: the ledger's entries.
        ledger: what its file is called.
        peers: bundles or directories of other members; files that are neither say nothing here.

    Raises:
        ArchipelError: a peer's record that cannot be opened.
    """
    if not fold.charters or fold.charters[-1].record.charter_version >= chain.rooted:
        return
    last = fold.charters[-1]
    version = last.record.charter_version
    text = f"it was last kept under version {version} of the charter; the auditor's is {chain.rooted}, "
    text += "and what that changes is not shown here; "
    known = [item for path in peers if path.suffix != ".json" for item in _adoptions(path, chain, version)]
    if known:
        first = min(known)
        later = [item.record.job for item in fold.reservations if item.at > first.at]
        text += f"{first.peer} has gone by version {first.version} since {first.at} (its entry {first.seq}); "
        text += f"jobs reserved for here after that: {len(later)}"
    else:
        later = [item.record.job for item in fold.reservations if item.seq > last.seq]
        text += f"version {version} stands since entry {last.seq} of {last.at}; "
        text += f"jobs reserved for since then: {len(later)}; "
        text += "when others took up the newer one is shown by a peer's bundle (--receipts)"
    yield finding("charter_not_adopted", ledger, text)


def _adoptions(path: Path, chain: CharterChain, version: int) -> Iterator[Adoption]:
    """When a peer took up its first charter after ``version``, by entries that are its own."""
    with open_evidence(path) as evidence:
        end = _first_problem(evidence, chain)
        with evidence.open_ledger() as ledger:
            for entry in ledger.entries():
                if end is not None and entry.seq >= end:
                    return
                try:
                    record = read_record(entry)
                except TrustError:
                    continue
                if (
                    isinstance(record, CharterAdopted)
                    and record.charter_version > version
                    and chain.with_digest(record.charter_sha256) is not None
                ):
                    yield Adoption(entry.at, evidence.silo(), entry.seq, record.charter_version)
                    return


def _first_problem(evidence: Evidence, chain: CharterChain) -> int | None:
    """The entry from which on a peer's chain proves nothing; None where it is sound."""
    member = chain.member(evidence.silo())
    if member is None:
        return 0
    with evidence.open_ledger() as ledger:
        problem = next(chain_problems(ledger.rows(), verifier(member.identity_key)), None)
    return problem.seq if problem else None
