"""Times of entries.

Whoever sets a clock back may revive an expired policy; whoever writes a history later has a clock that jumps.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from privacy.ledger.chain import CLOCK_TOLERANCE, Entry
from silo.audit.findings import Finding, finding


class ClockCheck:
    """Looks at one entry after another.

    Args:
        now: the auditor's clock.
        ledger: what the entries' file is called.
    """

    def __init__(self, now: datetime, ledger: str) -> None:
        self._latest_believable = now + CLOCK_TOLERANCE
        self._ledger = ledger
        self._before: datetime | None = None
        self._is_ahead = False

    def look(self, entry: Entry) -> Iterator[Finding]:
        """Yield what is wrong with the time of the next entry."""
        where = f"{self._ledger} entry {entry.seq}"
        try:
            at = datetime.fromisoformat(entry.at)
        except ValueError:
            at = None
        if at is None or at.utcoffset() is None:
            yield finding("entry_unknown", where, f"its time {entry.at[:40]!r} is none")
            return
        if self._before is not None and at < self._before - CLOCK_TOLERANCE:
            text = f"it is of {_text(at)}, the entry before it of {_text(self._before)}"
            yield finding("clock_back", where, text)
        is_ahead = at > self._latest_believable
        if is_ahead and not self._is_ahead:
            yield finding("clock_ahead", where, f"it is of {_text(at)}, which is still to come")
        self._before, self._is_ahead = at, is_ahead


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
