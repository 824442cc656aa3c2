"""A disk gives back other bytes than were written: any page of a ledger is zeroed, overwritten or flipped.

Whatever is read then is what was written, or an error that says what is damaged and what to do; and an agent
does not go on behind a history that nobody can read any more.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from privacy.errors import ArchipelError, ExitCode
from privacy.ledger.chain import Entry, LogReader
from privacy.ledger.paging import Selection, read_page
from privacy.ledger.storage import LogCorruptError, check_pages
from silo.audit.spending import overview
from silo.audit.verify import verify
from silo.running import run_agent
from tests.contracts.audited_silo import NOW, AuditedSilo, make_audited_silo

PAGE = 4096
Damage = Callable[[bytearray, int], None]


def zeros(content: bytearray, page: int) -> None:
    content[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)


def garbage(content: bytearray, page: int) -> None:
    content[page * PAGE : (page + 1) * PAGE] = random.Random(page).randbytes(PAGE)


def flips(content: bytearray, page: int) -> None:
    source = random.Random(page)
    for _ in range(60):
        content[page * PAGE + source.randrange(PAGE)] ^= 1 << source.randrange(8)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    silo = make_audited_silo(tmp_path_factory.mktemp("original"))
    silo.federation.install_charter()
    with closing(sqlite3.connect(silo.ledger_path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert db.execute("PRAGMA page_size").fetchone() == (PAGE,)
    return silo


@pytest.fixture(scope="module")
def entries(original: AuditedSilo) -> list[Entry]:
    with LogReader.open(original.ledger_path) as log:
        return list(log.entries())


def damaged(original: AuditedSilo, directory: Path, damage: Damage) -> Iterator[AuditedSilo]:
    """The silo with one page after the other damaged, each time only that one."""
    silo = original.copy(directory)
    content = original.ledger_path.read_bytes()
    for page in range(len(content) // PAGE):
        changed = bytearray(content)
        damage(changed, page)
        for path in silo.directory.glob("ledger.db*"):
            path.unlink()
        silo.ledger_path.write_bytes(changed)
        yield silo


def read(silo: AuditedSilo) -> list[Entry] | None:
    """The entries, all and by the page; None where the log says that it is damaged."""
    try:
        with LogReader.open(silo.ledger_path) as log:
            found = list(log.entries())
            read_page(log, Selection(job="0"), size=100)
    except LogCorruptError as error:
        return None if (error.where, bool(error.remedy)) == (str(silo.ledger_path), True) else []
    return found


@pytest.mark.parametrize("damage", [zeros, garbage, flips])
def test_an_auditor_reads_what_was_written_or_finds_the_damage(
    original: AuditedSilo, entries: list[Entry], tmp_path: Path, damage: Damage
) -> None:
    unreadable = 0
    for silo in damaged(original, tmp_path, damage):
        found = read(silo)
        report = verify(silo.directory, silo.charter_path, now=NOW)
        if found != entries:
            unreadable += 1
            assert report.findings
        if found is None:
            assert "ledger_unreadable" in {item.code for item in report.findings}
            with pytest.raises(LogCorruptError):
                overview_of(silo)
    assert unreadable >= 2


def overview_of(silo: AuditedSilo) -> object:
    from silo.audit.evidence import open_evidence

    with open_evidence(silo.directory) as evidence:
        return overview(evidence)


@pytest.mark.parametrize("damage", [zeros, garbage])
def test_no_agent_starts_on_a_ledger_with_a_damaged_page(
    original: AuditedSilo, tmp_path: Path, damage: Damage
) -> None:
    check_pages(original.ledger_path)
    for silo in damaged(original, tmp_path, damage):
        before = silo.ledger_path.read_bytes()
        with pytest.raises(ArchipelError) as caught:
            asyncio.run(run_agent(silo.directory))
        assert (caught.value.code, caught.value.exit_code) == ("log_corrupt", ExitCode.TRUST)
        assert silo.ledger_path.read_bytes() == before


def test_a_schema_that_is_no_text_is_said(original: AuditedSilo, tmp_path: Path) -> None:
    silo = original.copy(tmp_path)
    content = silo.ledger_path.read_bytes()
    silo.ledger_path.write_bytes(
        content.replace(b"CREATE TABLE entries", b"CREATE TABLE \xc9\xff\xfe\xc9ies", 1)
    )
    assert silo.ledger_path.read_bytes() != content
    for look in (lambda: check_pages(silo.ledger_path), lambda: overview_of(silo)):
        with pytest.raises(LogCorruptError):
            look()
