"""How a silo stands at one moment: what the audit finds, what is in force, what its jobs do. Only read.

The agent may be running: SQLite gives a reader its own moment and lets the writer go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from policies.charters.charter import Charter
from policies.explain import Paragraph, explain_policy
from policies.trust import days_left
from privacy.errors import ArchipelError
from privacy.ledger import tables
from privacy.ledger.chain import LogReader
from silo.audit.charters import follow_charters
from silo.audit.evidence import LEDGER, DirectoryEvidence
from silo.audit.report import AuditReport, make_report
from silo.law import Law, law_of
from silo.site import job_notes

SECONDS_KEPT = 5.0
"""A snapshot is shown for so long, and for ten times as long as it took: at most a tenth of one core."""

SECONDS_WAITED = 1.0
"""For a newer one; whoever has waited so long is shown the one before it."""


@dataclass(frozen=True)
class Snapshot:
    """One silo at one moment.

    Attributes:
        at: when, UTC.
        report: what the audit finds, without the second accountant.
        charter: the latest one that follows from the auditor's.
        charter_days: days until it ends.
        law: the policy in force; None where there is none.
        lawless: why there is none, None where there is one.
        policy: the policy in force in plain words.
        policy_days: days until it ends, None where there is none.
        is_paused: whether ``silo pause`` was asked for.
        notes: what the agent last noted of each job, by job.
        cards: the model's card of each job that has one, by job.
        is_renewing: whether a newer one is being taken.
    """

    at: datetime
    report: AuditReport
    charter: Charter
    charter_days: int
    law: Law | None
    lawless: ArchipelError | None
    policy: tuple[Paragraph, ...]
    policy_days: int | None
    is_paused: bool
    notes: Mapping[str, Mapping[str, Any]]
    cards: Mapping[str, Mapping[str, Any]]
    is_renewing: bool = False


def take_snapshot(directory: Path, charter_path: Path, now: datetime) -> Snapshot:
    """Look at a silo's directory.

    Args:
        directory: the silo's; the agent may be running.
        charter_path: whose charter it is held against.
        now: reference time, aware.

    Raises:
        ArchipelError: not a silo that has joined, or a charter that is not to be trusted.
    """
    charter = follow_charters(charter_path, DirectoryEvidence(directory), now).newest
    report = make_report(directory, charter_path, now=now, is_replayed=False)
    law, lawless = _law(directory, charter, report.verification.silo, now)
    return Snapshot(
        at=now,
        report=report,
        charter=charter,
        charter_days=days_left(charter.expires, now),
        law=law,
        lawless=lawless,
        policy=explain_policy(law.policy, now) if law else (),
        policy_days=days_left(law.policy.expires, now) if law else None,
        is_paused=(directory / "paused").exists(),
        notes={str(note.get("job", "")): note for note in job_notes(directory)},
        cards=_cards(DirectoryEvidence(directory)),
    )


def _law(
    directory: Path, charter: Charter, silo: str, now: datetime
) -> tuple[Law | None, ArchipelError | None]:
    """What the agent is under, by the agent's own rule; nothing is kept."""
    try:
        with LogReader.open(directory / LEDGER) as ledger:
            state = tables.ledger_state(ledger.connection)
        return law_of(directory, charter=charter, silo=silo, ledger=state, now=now, is_kept=False), None
    except ArchipelError as error:
        return None, error


def _cards(evidence: DirectoryEvidence) -> dict[str, Mapping[str, Any]]:
    """Cards that can be read; one that cannot is shown as none."""
    cards: dict[str, Mapping[str, Any]] = {}
    for job in evidence.jobs():
        name = f"jobs/{job}/model-card.json"
        if not evidence.has(name):
            continue
        try:
            card = json.loads(evidence.read(name))
        except (ArchipelError, ValueError, RecursionError):
            continue
        if isinstance(card, dict):
            cards[job] = card
    return cards


class Lookout:
    """Takes snapshots of one directory, one at a time and not more often than is worth it.

    Nobody waits long: while a new one is being taken, the one before it is shown, and says so.

    Args:
        directory: the silo's.
        charter_path: whose charter it is held against.
    """

    def __init__(self, directory: Path, charter_path: Path) -> None:
        self.directory = directory
        self._charter_path = charter_path
        self._lock = Lock()
        self._kept: Snapshot | None = None
        self._until = 0.0
        self._running: Future[Snapshot] | None = None
        self._failed: ArchipelError | None = None

    def look(self) -> Snapshot:
        """The silo as it stands, a few seconds ago at most unless looking takes longer.

        Raises:
            ArchipelError: see :func:`take_snapshot`; also of a look that ended after its asker had gone.
        """
        with self._lock:
            kept = self._kept
            if kept is not None and time.monotonic() < self._until:
                return kept
            failed, self._failed = self._failed, None
            if failed is not None:
                raise failed
            running = self._running or self._begin()
        try:
            return running.result(None if kept is None else SECONDS_WAITED)
        except TimeoutError:
            assert kept is not None  # noqa: S101  without one nobody stops waiting
            return replace(kept, is_renewing=True)
        except ArchipelError:
            self._failed = None  # it was said
            raise

    def latest(self) -> Snapshot:
        """The snapshot there is, of whatever age; nobody waits for a new one unless there is none.

        Raises:
            ArchipelError: see :func:`take_snapshot`.
        """
        return self._kept or self.look()

    def _begin(self) -> Future[Snapshot]:
        """Look in a thread of its own, which does not keep the process from ending."""
        self._running = running = Future[Snapshot]()
        Thread(target=self._take, args=(running,), daemon=True).start()
        return running

    def _take(self, running: Future[Snapshot]) -> None:
        begun = time.monotonic()
        try:
            taken = take_snapshot(self.directory, self._charter_path, datetime.now(UTC))
        except BaseException as error:
            with self._lock:
                self._running, self._failed = None, error if isinstance(error, ArchipelError) else None
            running.set_exception(error)
            return
        done = time.monotonic()
        with self._lock:
            self._kept, self._running = taken, None
            self._until = done + max(SECONDS_KEPT, 10 * (done - begun))
        running.set_result(taken)
