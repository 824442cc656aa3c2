"""Does a ledger stay quick as it grows? Appends at two lengths, and an audit of the whole.

A ledger is filled as an agent fills one: a job reserves, is charged eight times, gives back its rest. Every
job has noise of its own, so that no two events are equal. Then the same is timed on a short and on the long
ledger, in turns, on the same disk, with every write durable: what differs is their length. Wall time is
mostly the disk's; processor time shows what the program itself does more on a long one.

    python benchmarks/ledger.py
    python benchmarks/ledger.py --entries 1000000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from reporting import Page, Terminal, add_json_option, header, write

from policies.signing import PrivateKey
from privacy.budget import Budget, ZcdpFilter
from privacy.events import SAMPLER, EventCount, GaussianEvent
from privacy.ledger.chain import ChainLog, LogReader
from privacy.ledger.fold import Fold
from privacy.ledger.ledger import Ledger
from silo.audit.trail import verifier

SHORT = 100
CHARGES = 8
ENTRIES_OF_A_JOB = CHARGES + 2
GOAL_RATIO = 2.0
KINDS = ("reserve", "commit", "release")


class Seconds(NamedTuple):
    """A moment, or a span: on the wall, and of this process's processor."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        """This moment."""
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Seconds:
        """The span from this moment to now."""
        now = Seconds.now()
        return Seconds(now.wall - self.wall, now.cpu - self.cpu)


class Filled:
    """A ledger that is being filled, job after job."""

    def __init__(self, path: Path, key: PrivateKey) -> None:
        self.path = path
        Ledger.open(path, sign=key.sign_raw, key_id=key.key_id).close()
        self._log = ChainLog.open(path, sign=key.sign_raw, key_id=key.key_id)
        self.ledger = Ledger(self._log)
        budget = Budget(epsilon=1e6, delta=1e-6, filter=ZcdpFilter())
        self.ledger.open_account("customers", budget, "a" * 64, 1)
        self._jobs = 0

    def job(self) -> dict[str, list[Seconds]]:
        """One more job; how long each append took."""
        self._jobs += 1
        name = f"{self._jobs:032x}"
        event = GaussianEvent(noise_multiplier=50.0 + self._jobs / 1000, sampler=SAMPLER)
        seconds: dict[str, list[Seconds]] = {kind: [] for kind in KINDS}
        begin = Seconds.now()
        self.ledger.reserve(
            account="customers",
            job=name,
            dataset="purchases",
            plan_sha256="b" * 64,
            policy_sha256="a" * 64,
            requested_by="shop-b",
            events=[EventCount(event, CHARGES + 1)],
        )
        seconds["reserve"].append(begin.since())
        for round_ in range(CHARGES):
            begin = Seconds.now()
            self.ledger.commit(name, round=round_ + 1, attempt=0, event=event)
            seconds["commit"].append(begin.since())
        begin = Seconds.now()
        self.ledger.release_rest(name)
        seconds["release"].append(begin.since())
        return seconds

    def grow(self, entries: int) -> None:
        """Jobs until there are so many entries; not timed, so a hundred jobs share one write."""
        while self.ledger.head().seq + ENTRIES_OF_A_JOB <= entries:
            with self._log.transaction():
                for _ in range(100):
                    if self.ledger.head().seq + ENTRIES_OF_A_JOB <= entries:
                        self.job()


def appended(short: Filled, long: Filled, jobs: int) -> dict[str, Any]:
    """Median seconds of each kind of append to both, one job after the other."""
    found: dict[str, dict[str, list[Seconds]]] = {
        name: {kind: [] for kind in KINDS} for name in ("short", "long")
    }
    for _ in range(jobs):
        for name, filled in (("short", short), ("long", long)):
            for kind, seconds in filled.job().items():
                found[name][kind] += seconds
    rows = {}
    for kind in KINDS:
        row = {}
        for what in ("wall", "cpu"):
            short_, long_ = (median(getattr(one, what) for one in found[name][kind]) for name in found)
            row[what] = {"short_seconds": short_, "long_seconds": long_, "ratio": long_ / short_}
        rows[kind] = row
    return rows


def audited(path: Path, key: PrivateKey) -> dict[str, Any]:
    """Seconds to check every hash and signature, and to recompute every decision of the filter."""
    begin = time.perf_counter()
    with LogReader.open(path) as reader:
        problems = list(reader.problems(verifier(key.public_key)))
        chain = time.perf_counter()
        fold, wrong = Fold.of(reader.entries())
    done = time.perf_counter()
    entries = len(fold.charges) // CHARGES * ENTRIES_OF_A_JOB + 1
    return {
        "entries": entries,
        "findings": len(problems) + len(wrong),
        "chain_seconds": chain - begin,
        "meaning_seconds": done - chain,
        "microseconds_an_entry": (done - begin) / entries * 1e6,
    }


def measure(entries: int, jobs: int, directory: Path) -> dict[str, Any]:
    """Fill, append and audit."""
    key = PrivateKey.generate()
    short, long = Filled(directory / "short.db", key), Filled(directory / "long.db", key)
    short.grow(SHORT)
    audits = []
    for part in (100, 10, 1):
        long.grow(entries // part)
        audits.append(audited(long.path, key))
    result = {
        "entries": long.ledger.head().seq,
        "short_entries": short.ledger.head().seq,
        "jobs_timed": jobs,
        "append": appended(short, long, jobs),
        "audit": audits,
        "goal_ratio": GOAL_RATIO,
    }
    last = long.ledger.head().seq
    for filled in (short, long):
        filled.ledger.close()
    return result | {"bytes_an_entry": long.path.stat().st_size / last}


def show(result: dict[str, Any], page: Page) -> None:
    """Print both tables."""
    page.table(
        f"one append, durable, from {result['short_entries']:,} and from {result['entries']:,} entries on",
        ("append", "time", "short ms", "long ms", "ratio", f"at most {result['goal_ratio']:g}"),
        [
            (
                kind,
                what,
                f"{row['short_seconds'] * 1e3:.2f}",
                f"{row['long_seconds'] * 1e3:.2f}",
                f"{row['ratio']:.2f}",
                "yes" if row["ratio"] <= result["goal_ratio"] else "no",
            )
            for kind, both in result["append"].items()
            for what, row in both.items()
        ],
    )
    page.table(
        "an audit of every entry: hashes and signatures, then every decision of the filter again",
        ("entries", "chain s", "meaning s", "µs an entry", "findings"),
        [
            (
                f"{row['entries']:,}",
                f"{row['chain_seconds']:.2f}",
                f"{row['meaning_seconds']:.2f}",
                f"{row['microseconds_an_entry']:.0f}",
                row["findings"],
            )
            for row in result["audit"]
        ],
    )
    page.say(f"{result['bytes_an_entry']:,.0f} bytes an entry, accounts beside the entries included")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000, help="length of the long ledger")
    parser.add_argument("--jobs", type=int, default=40, help="jobs that are timed on each")
    parser.add_argument("--dir", type=Path, help="where the ledgers go; default: a scratch directory")
    add_json_option(parser, "ledger")
    asked = parser.parse_args(arguments)
    command = f"python benchmarks/ledger.py --entries {asked.entries} --jobs {asked.jobs}"
    with tempfile.TemporaryDirectory(dir=asked.dir) as directory:
        result = header("ledger", command) | measure(asked.entries, asked.jobs, Path(directory))
    show(result, Terminal(asked.json))
    write(result, asked.json)
    slow = any(row["ratio"] > GOAL_RATIO for both in result["append"].values() for row in both.values())
    return 1 if slow or any(row["findings"] for row in result["audit"]) else 0


if __name__ == "__main__":
    sys.exit(main())
