"""Entries of a log by the page, newest first: chosen and counted by SQLite, so a long log answers at once.

Guarantees:
    * Only the entries of the page are read in full, whatever the log's length.
    * Pages of one ``upto`` belong together: what is written meanwhile moves nothing, so that who turns from
      page to page sees each entry once.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, NamedTuple

from privacy.ledger.chain import COLUMNS, Entry, LogReader, entry_of
from privacy.ledger.storage import corrupt_error


@dataclass(frozen=True)
class Selection:
    """Which entries; None and empty stand for all. Nothing is verified.

    Attributes:
        job: of this job; its first characters suffice.
        account: of this population.
        kinds: of these kinds.
        since: from this beginning of a time on.
        until: up to this one, itself included.
    """

    job: str | None = None
    account: str | None = None
    kinds: frozenset[str] = frozenset()
    since: str | None = None
    until: str | None = None

    def has(self, entry: Entry) -> bool:
        """Whether an entry is among them."""
        about, at = entry.payload.get, entry.at
        return (
            (self.job is None or str(about("job", "")).startswith(self.job))
            and (self.account is None or about("account") == self.account)
            and (not self.kinds or entry.kind in self.kinds)
            and (self.since is None or at[: len(self.since)] >= self.since)
            and (self.until is None or at[: len(self.until)] <= self.until)
        )

    def condition(self) -> tuple[str, dict[str, Any]]:
        """:meth:`has` as a condition of SQL and its values; what is cheapest to look at comes first."""
        conditions = {
            "kinds": "kind IN (SELECT value FROM json_each(:kinds))",
            "since": "substr(at, 1, length(:since)) >= :since",
            "until": "substr(at, 1, length(:until)) <= :until",
            "account": "json_extract(payload, '$.account') = :account",
            "job": "substr(json_extract(payload, '$.job'), 1, length(:job)) = :job",
        }
        values = {
            "kinds": json.dumps(sorted(self.kinds)) if self.kinds else None,
            "since": self.since,
            "until": self.until,
            "account": self.account,
            "job": self.job,
        }
        given = {name: value for name, value in values.items() if value is not None}
        return " AND ".join(conditions[name] for name in given) or "TRUE", given


class EntryPage(NamedTuple):
    """Some of the chosen entries.

    Attributes:
        entries: newest first.
        total: how many were chosen, on all pages.
        upto: the newest entry that was looked at, chosen or not; 0 in an empty log.
        head: the newest entry there is now.
    """

    entries: tuple[Entry, ...]
    total: int
    upto: int
    head: int


def read_page(
    log: LogReader, chosen: Selection, *, size: int, number: int = 1, upto: int | None = None
) -> EntryPage:
    """One page of a log.

    Args:
        log: at one moment.
        chosen: which entries.
        size: entries on a page.
        number: which page, from 1 on; one behind the last is empty.
        upto: entries numbered above it are left out; None = none is.

    Raises:
        LogCorruptError: an entry of the page, or one that had to be looked at, cannot be read.
    """
    condition, values = chosen.condition()
    (head,) = log.connection.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()
    values |= {"upto": head if upto is None else min(upto, head), "size": size, "skip": (number - 1) * size}
    which = f"FROM entries WHERE seq <= :upto AND {condition}"
    try:
        (total,) = log.connection.execute(f"SELECT count(*) {which}", values).fetchone()
        rows = log.connection.execute(
            f"SELECT {', '.join(COLUMNS)} {which} ORDER BY seq DESC LIMIT :size OFFSET :skip",
            values,
        ).fetchall()
    except sqlite3.OperationalError as error:
        if "JSON" not in str(error):
            raise
        raise corrupt_error(log.path, "an entry cannot be read") from error
    return EntryPage(tuple(entry_of(row, log.path) for row in rows), total, values["upto"], head)
