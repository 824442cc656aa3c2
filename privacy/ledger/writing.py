"""The file of a ledger: opened whole, appended to in one transaction with the tables beside its entries.

It also notes the law that the entries are made under: the charter, and an administrator's freeze. What pays
for what is in :mod:`privacy.ledger.ledger`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from privacy.events import Record
from privacy.ledger import tables
from privacy.ledger.chain import ChainLog, Entry, Head, utc_now
from privacy.ledger.checks import refuse_stale_charter
from privacy.ledger.records import CHARTER_ADOPTED, POLICY_FROZEN, CharterAdopted, PolicyFrozen
from privacy.ledger.storage import corrupt_error


class LedgerFile:
    """An open ledger's file; see :class:`privacy.ledger.ledger.Ledger`."""

    def __init__(self, log: ChainLog) -> None:
        self._log = log

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        sign: Callable[[bytes], bytes],
        key_id: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open the ledger, creating it if there is no such file.

        Args:
            path: ``ledger.db``.
            sign: raw signature of a message under the silo's identity.
            key_id: names that identity.
            clock: the time written into entries.

        Raises:
            LogStorageError: the file cannot be used now.
            LogCorruptError: it is damaged.
        """
        schema = tables.TABLES + tables.SUMS + tables.LAW
        ledger = cls(ChainLog.open(path, sign=sign, key_id=key_id, clock=clock, tables=schema))
        try:
            ledger._complete()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Close the file."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def head(self) -> Head:
        """The last entry's number and hash: what peers countersign at the end of a job."""
        return self._log.head()

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Entries numbered above ``after``."""
        return self._log.entries(after)

    def adopt_charter(self, charter_sha256: str, charter_version: int) -> None:
        """Note under which charter the entries from here on are made; nothing where the last note says so.

        Args:
            charter_sha256: digest of the trusted charter in force.
            charter_version: its version.

        Raises:
            StaleCharterError: an older charter than the ledger's, or another of its version.
        """
        record = CharterAdopted(charter_sha256=charter_sha256, charter_version=charter_version)
        with self._log.snapshot() as db:
            if tables.charter_of(db) == record:
                return
        with self._write() as db:
            known = tables.charter_of(db)
            if known == record:
                return
            if known is not None:
                refuse_stale_charter(known, record)
            self._append(db, CHARTER_ADOPTED, record)
            tables.set_law(db, CHARTER_ADOPTED, record)

    def freeze(self, policy_version: int, freeze_sha256: str, frozen_at: str) -> None:
        """Stop new jobs under every policy up to a version, for good; nothing where one does so already.

        Args:
            policy_version: the highest version that is stopped.
            freeze_sha256: digest of the freeze, whose signature the caller checked.
            frozen_at: when it was signed, as it says.
        """
        record = PolicyFrozen(policy_version=policy_version, freeze_sha256=freeze_sha256, frozen_at=frozen_at)
        with self._write() as db:
            known = tables.freeze_of(db)
            if known is None or known.policy_version < policy_version:
                self._append(db, POLICY_FROZEN, record)
                tables.set_law(db, POLICY_FROZEN, record)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._log.transaction() as db:
            if tables.folded_head(db) != self._log.head():
                raise corrupt_error(self._log.path, "the accounts are not those of the last entry")
            yield db

    def _append(self, db: sqlite3.Connection, kind: str, record: Record) -> Entry:
        entry = self._log.append(kind, record.model_dump(mode="json"))
        tables.set_folded_head(db, entry)
        tables.set_latest(db, entry)
        return entry

    def _complete(self) -> None:
        with self._log.snapshot() as db:
            complete = tables.has_sums(db) and tables.has_law(db)
        if not complete:
            with self._write() as db:
                tables.add_sums(db)
                tables.add_law(db)
