"""What a job's lists of one person are made of, fixed the first time: in ``jobs/<job>/merges.db``.

A list says something of both sides of it, and nothing pays for that. A person who changes their history at
the label silo, and begins a list after each change, would read another row of its exact sums each time; one
who edits their rows at a feature silo would hold as many different features as the loadings have columns and
solve for them. So for one job one person's answers never change: many lists tell what one does.

Guarantees
    * Two processes that answer one person at once answer alike; what was answered from is on disk before.
    * Who is nobody any more (no row, opted out, erased) is nobody for the rest of the job: what was kept of
      them is overwritten, and rows that come back later are not answered from.
    * Spellings that :func:`~silo.data.ids.canonical_id` takes for one id are one person.

Not guaranteed: people who pool what each was told solve for as many unknowns as they are.
"""

from __future__ import annotations

from pathlib import Path

from silo.data.ids import canonical_id
from silo.private_file import PrivateFile

FIRST_FILE = "merges.db"
_SCHEMA = "CREATE TABLE IF NOT EXISTS first (user_id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"


class FirstAnswers(PrivateFile):
    """What each person's lists of one job are made of.

    Args:
        path: the file; made where it is missing, readable by its owner alone.

    Raises:
        LogStorageError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    def first(self, user_id: str, fresh: bytes) -> bytes:
        """Return what was kept first for a person, and keep ``fresh`` if nothing was.

        Args:
            user_id: however it is written.
            fresh: what their rows say now; empty for nobody, which overwrites what was kept, for good.
        """
        name = canonical_id(user_id)
        with self._writing() as db:
            found = db.execute("SELECT value FROM first WHERE user_id = ?", (name,)).fetchone()
            if found is None:
                if fresh:
                    db.execute("INSERT INTO first VALUES (?, ?)", (name, fresh))
                return fresh
            if not fresh:
                db.execute("UPDATE first SET value = x'' WHERE user_id = ?", (name,))
                return b""
            return bytes(found[0])
