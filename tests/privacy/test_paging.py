from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from privacy.ledger.chain import LogReader
from privacy.ledger.paging import EntryPage, Selection, read_page
from privacy.ledger.storage import LogCorruptError
from tests.contracts.ledger_tools import open_log, tampering

LONG = 100_000

SELECTIONS = (
    Selection(),
    Selection(job="a"),
    Selection(job="a%"),
    Selection(account="staff"),
    Selection(kinds=frozenset({"committed"})),
    Selection(kinds=frozenset({"committed", "witnessed"}), job="a1"),
    Selection(since="2026-01-01T00:00:10", until="2026-01-01T00:00:14"),
    Selection(since="2026-01-01T00:00:1"),
    Selection(until="2025"),
    Selection(job="b", account="customers", kinds=frozenset({"reserved"}), since="2026", until="2026-01"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Entries a second apart: of two jobs, two accounts, and some of neither."""
    path = tmp_path / "log.db"
    with open_log(path) as log:
        for number in range(30):
            account = "customers" if number % 3 else "staff"
            payload = {"job": f"{'ab'[number % 2]}{number % 3}", "account": account}
            log.append(("reserved", "committed", "witnessed")[number % 3], payload if number % 5 else {})
    return path


def page(path: Path, chosen: Selection, **options: int) -> EntryPage:
    with LogReader.open(path) as log:
        return read_page(log, chosen, **({"size": 4} | options))


@pytest.mark.parametrize("chosen", SELECTIONS)
def test_sql_chooses_what_the_selection_says(path: Path, chosen: Selection) -> None:
    with LogReader.open(path) as log:
        wanted = [entry for entry in log.entries() if chosen.has(entry)][::-1]
        found = read_page(log, chosen, size=100)
    assert list(found.entries) == wanted
    assert found.total == len(wanted)


def test_the_selections_of_this_test_are_no_two_alike(path: Path) -> None:
    sizes = {chosen: page(path, chosen, size=100).total for chosen in SELECTIONS}
    assert sizes[Selection()] == 30
    assert sizes[Selection(job="a%")] == sizes[Selection(until="2025")] == 0
    assert all(0 < size < 30 for chosen, size in sizes.items() if chosen.job != "a%" and size not in (0, 30))


def test_pages_stand_still_while_entries_are_written(path: Path) -> None:
    first = page(path, Selection())
    seen = [entry.seq for entry in first.entries]
    for number in range(2, 9):
        with open_log(path) as log:
            log.append("committed", {"job": "later"})
        found = page(path, Selection(), number=number, upto=first.upto)
        assert (found.total, found.upto, found.head) == (30, 30, 30 + number - 1)
        seen += [entry.seq for entry in found.entries]
    assert seen == list(range(30, 0, -1))


def test_behind_the_last_page_there_is_nothing(path: Path) -> None:
    assert page(path, Selection(), number=9).entries == ()
    assert page(path, Selection(), upto=10**9).upto == 30


def test_an_empty_log_has_an_empty_page(tmp_path: Path) -> None:
    open_log(tmp_path / "log.db").close()
    assert page(tmp_path / "log.db", Selection()) == ((), 0, 0, 0)


@pytest.mark.parametrize("chosen", [Selection(), Selection(job="a")])
def test_an_entry_that_cannot_be_read_is_said(path: Path, chosen: Selection) -> None:
    with tampering(path) as db:
        db.execute("UPDATE entries SET payload = '{' WHERE seq = 29")
    with pytest.raises(LogCorruptError, match="cannot be read"):
        page(path, chosen)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 entries of the usual size, written past the log: nothing is verified here."""
    path = tmp_path_factory.mktemp("long") / "log.db"
    open_log(path).close()
    event = {"kind": "gaussian", "noise_multiplier": 50.001, "sampler": "discrete-gaussian/v1"}
    with tampering(path) as db:
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO entries VALUES (?, ?, 'committed', ?, ?, ?, 'key', 'signature')",
            (
                (
                    seq,
                    f"2026-{seq % 12 + 1:02d}-01T00:00:00.000000Z",
                    json.dumps({"account": "customers", "job": f"{seq // 10:032x}", "event": event}),
                    f"p{seq:063d}",
                    f"h{seq:063d}",
                )
                for seq in range(1, LONG + 1)
            ),
        )
        db.execute("COMMIT")
    return path


@pytest.mark.parametrize(
    ("chosen", "number", "total"),
    [
        (Selection(), 1, LONG),
        (Selection(), LONG // 50, LONG),
        (Selection(job=f"{77:032x}"), 1, 10),
        (Selection(account="nobody"), 1, 0),
        (Selection(kinds=frozenset({"committed"}), since="2026-03", until="2026-03"), 1, LONG // 12 + 1),
    ],
)
def test_a_page_of_a_long_log_costs_well_under_a_second(
    long: Path, chosen: Selection, number: int, total: int
) -> None:
    begun = time.process_time()
    found = page(long, chosen, size=50, number=number)
    assert time.process_time() - begun < 1.0
    assert found.total == total
    assert len(found.entries) == min(50, total)
