"""What a silo has said and is about to say: durable before it leaves, erased when the job ends.

Everything that goes out is stored here first, so that after a crash the same bytes are sent again and nothing
is ever computed twice under one name. A contribution and the ephemeral key that masks it share one record: a
disk restored from a backup can repeat that one contribution, never mask another with the same key.

SQLite with ``secure_delete``; erasing also truncates the write-ahead log. Forward secrecy rests on that.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.messages import Envelope, PostKind, parse_envelope
from privacy.errors import HostError
from privacy.ledger.storage import storage_errors

_KEPT = "kept."
_SCHEMA = """
CREATE TABLE IF NOT EXISTS posts (
    job TEXT NOT NULL, kind TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    envelope BLOB NOT NULL, PRIMARY KEY (job, kind, round, attempt));
CREATE TABLE IF NOT EXISTS secrets (
    job TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (job, name));
CREATE TABLE IF NOT EXISTS contributions (
    job TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    levels BLOB NOT NULL, private_key BLOB, contributors TEXT NOT NULL,
    PRIMARY KEY (job, round, attempt));
"""


@dataclass(frozen=True)
class Contribution:
    """One silo's clipped, noised integers of one attempt, and the key that masks exactly these.

    Attributes:
        levels: (values,) non-negative, below ``2**bits``.
        private_key: X25519, 32 bytes; absent until the integers were durable.
        contributors: the silos among which the noise was shared, in roster order.
    """

    levels: NDArray[np.int64]
    private_key: bytes | None
    contributors: tuple[str, ...]


class Outbox:
    """The ``outbox/`` of one silo directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "outbox"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._path = self._directory / "outbox.db"
        self._path.touch(mode=0o600)
        with storage_errors(self._path):
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)
            self._complete()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def post(self, job: str, kind: PostKind, round_: int = 0, attempt: int = 0) -> Envelope | None:
        """What this silo has already said there."""
        row = self._execute(
            "SELECT envelope FROM posts WHERE job = ? AND kind = ? AND round = ? AND attempt = ?",
            (job, kind.value, round_, attempt),
        ).fetchone()
        return parse_envelope(row[0]) if row else None

    def store_post(self, envelope: Envelope) -> None:
        """Fix what this silo says at a place, before it is sent."""
        self._execute(
            "INSERT INTO posts VALUES (?, ?, ?, ?, ?)",
            (envelope.job, envelope.kind.value, envelope.round, envelope.attempt, envelope.to_bytes()),
        )

    def secret(self, job: str, name: str) -> bytes | None:
        """A stored secret of a running job."""
        row = self._execute("SELECT value FROM secrets WHERE job = ? AND name = ?", (job, name)).fetchone()
        return bytes(row[0]) if row else None

    def store_secret(self, job: str, name: str, value: bytes) -> None:
        """Keep a secret until the job ends; the first value stays."""
        self._execute("INSERT OR IGNORE INTO secrets VALUES (?, ?, ?)", (job, name, value))

    def contribution(self, job: str, round_: int, attempt: int) -> Contribution | None:
        """The stored contribution of an attempt."""
        row = self._execute(
            "SELECT levels, private_key, contributors FROM contributions "
            "WHERE job = ? AND round = ? AND attempt = ?",
            (job, round_, attempt),
        ).fetchone()
        if row is None:
            return None
        levels = np.frombuffer(row[0], dtype="<i8").astype(np.int64)
        return Contribution(levels, row[1], tuple(json.loads(row[2])))

    def store_contribution(
        self, job: str, round_: int, attempt: int, levels: NDArray[np.int64], contributors: Sequence[str]
    ) -> None:
        """Make the integers durable, and for whom they are; they have no key yet and cannot leave.

        Raises:
            TypeError: real numbers, which rounding here would take from under their noise.
        """
        self._execute(
            "INSERT INTO contributions (job, round, attempt, levels, contributors) VALUES (?, ?, ?, ?, ?)",
            (job, round_, attempt, levels.astype("<i8", casting="safe").tobytes(), json.dumps(contributors)),
        )

    def attach_key(self, job: str, round_: int, attempt: int, private_key: bytes) -> None:
        """Give a durable contribution the key that masks it; a key once attached stays."""
        self._execute(
            "UPDATE contributions SET private_key = ? "
            "WHERE job = ? AND round = ? AND attempt = ? AND private_key IS NULL",
            (private_key, job, round_, attempt),
        )

    def forget_rounds_before(self, job: str, round_: int) -> None:
        """Erase contributions, keys and bulk bytes of rounds that are opened; what was said of them stays."""
        self._execute("DELETE FROM contributions WHERE job = ? AND round < ?", (job, round_))
        for path in self._directory.glob(f"{job}-*-*-*"):
            is_kept = path.name.startswith(f"{job}-{_KEPT}")
            if not is_kept and int(path.name.rsplit("-", 2)[1]) < round_:
                path.unlink()

    def path(self, job: str, kind: str, round_: int, attempt: int) -> Path:
        """Where this job's bulk bytes of one attempt lie."""
        return self._directory / f"{job}-{kind}-{round_}-{attempt}"

    def kept_path(self, job: str, name: str) -> Path:
        """Where bulk bytes lie that are wanted beyond their round, until the job ends."""
        return self._directory / f"{job}-{_KEPT}{name}"

    def jobs_with_secrets(self) -> list[str]:
        """Jobs of which keys or contributions are here."""
        rows = self._execute("SELECT job FROM secrets UNION SELECT job FROM contributions ORDER BY job")
        return [row[0] for row in rows]

    def erase_secrets(self, job: str) -> None:
        """Forget keys, contributions and bulk bytes of an ended job; its posts stay as its record.

        Raises:
            HostError: another process keeps the write-ahead log from being truncated.
        """
        self._execute("DELETE FROM secrets WHERE job = ?", (job,))
        self._execute("DELETE FROM contributions WHERE job = ?", (job,))
        busy, _, _ = self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise HostError(
                "another process reads the outbox, so its erased secrets are still on the disk",
                where=str(self._path),
                remedy="the agent tries again; end the other process if it stays",
            )
        for pattern in (f"{job}-*", f".{job}-*"):  # the other is what a power cut left of a write
            for path in self._directory.glob(pattern):
                path.unlink()

    def _complete(self) -> None:
        """Replace an older version's table, which does not say for whom: what has not left is drawn again."""
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(contributions)")}
        if "contributors" not in columns:
            self._db.execute("DROP TABLE contributions")
            self._db.executescript(_SCHEMA)

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with storage_errors(self._path):
            return self._db.execute(statement, values)
