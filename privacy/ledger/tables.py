"""The accounts beside the entries: kept in the same transaction as each entry, so an append stays cheap.

They are a convenience. What counts is the entries; :mod:`privacy.ledger.fold` recomputes them.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import NamedTuple

import rfc8785

from privacy.accounting import Spending
from privacy.budget import Budget
from privacy.events import EventCount
from privacy.ledger.chain import GENESIS, Entry, Head
from privacy.ledger.checks import unknown_account
from privacy.ledger.records import (
    CHARTER_ADOPTED,
    POLICY_FROZEN,
    TERMS_KINDS,
    AccountTerms,
    CharterAdopted,
    Committed,
    PolicyFrozen,
    Reserved,
    event_key,
    event_of,
)
from privacy.ledger.state import AccountStatus, Allowance, JobStatus, LedgerState, Standing
from privacy.ledger.storage import LogCorruptError, statements

TABLES = """
CREATE TABLE accounts (
    account TEXT PRIMARY KEY, budget TEXT NOT NULL, policy_sha256 TEXT NOT NULL,
    policy_version INTEGER NOT NULL, frozen INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
    job TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts, dataset TEXT NOT NULL,
    plan_sha256 TEXT NOT NULL, policy_sha256 TEXT NOT NULL, requested_by TEXT NOT NULL,
    seq INTEGER NOT NULL, open INTEGER NOT NULL
) STRICT;
CREATE TABLE allowances (
    job TEXT NOT NULL REFERENCES jobs, event TEXT NOT NULL, reserved INTEGER NOT NULL,
    committed INTEGER NOT NULL DEFAULT 0 CHECK (committed BETWEEN 0 AND reserved), PRIMARY KEY (job, event)
) STRICT;
CREATE TABLE charges (
    job TEXT NOT NULL REFERENCES jobs, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    event TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (job, round, attempt)
) STRICT;
CREATE TABLE folded (
    one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL
) STRICT;
INSERT INTO folded VALUES (1, 0, 'GENESIS');
""".replace("GENESIS", GENESIS)

SUMS = """
CREATE TABLE balances (
    account TEXT PRIMARY KEY REFERENCES accounts, spent TEXT NOT NULL, sha256 TEXT NOT NULL
) STRICT;
CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), latest TEXT NOT NULL) STRICT;
CREATE INDEX jobs_of_dataset ON jobs (dataset, seq);
CREATE INDEX jobs_open ON jobs (account) WHERE open = 1;
INSERT INTO clock SELECT 1, coalesce(max(at), '') FROM entries
    WHERE seq >= (SELECT coalesce(max(seq), 0) FROM entries WHERE kind IN (TERMS));
""".replace("TERMS", ", ".join(f"'{kind}'" for kind in TERMS_KINDS))
"""What keeps an append from reading the history; made from the other tables where it is not there yet."""

LAW = """
CREATE TABLE law (kind TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""
"""The charter and the freeze that count, by the kind of their entry; an earlier version had none."""


class ChargeRow(NamedTuple):
    """One charge: its event's key and the number of its entry."""

    event: str
    seq: int


def folded_head(db: sqlite3.Connection) -> Head:
    """Up to which entry the tables are kept."""
    return Head(*db.execute("SELECT seq, hash FROM folded").fetchone())


def set_folded_head(db: sqlite3.Connection, entry: Entry) -> None:
    """Note that the tables hold this entry too."""
    db.execute("UPDATE folded SET seq = ?, hash = ?", (entry.seq, entry.hash))


def add_sums(db: sqlite3.Connection) -> None:
    """Add the tables of :data:`SUMS` to a ledger of an earlier version, filled from what is there."""
    if has_sums(db):
        return
    for statement in statements(SUMS):
        db.execute(statement)
    for (account,) in db.execute("SELECT account FROM accounts").fetchall():
        status = account_status(db, account)
        if status is not None:
            _set_spent(db, account, status.spent)


def has_sums(db: sqlite3.Connection) -> bool:
    """Whether the tables of :data:`SUMS` are there (a ledger of an earlier version has none)."""
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'balances'").fetchone())


def add_law(db: sqlite3.Connection) -> None:
    """Add the table of :data:`LAW` to a ledger of an earlier version, which has no such entries."""
    if not has_law(db):
        for statement in statements(LAW):
            db.execute(statement)


def has_law(db: sqlite3.Connection) -> bool:
    """Whether the table of :data:`LAW` is there."""
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'law'").fetchone())


def set_law(db: sqlite3.Connection, kind: str, record: CharterAdopted | PolicyFrozen) -> None:
    """Note the charter, or the freeze, that counts from here on."""
    body = rfc8785.dumps(record.model_dump(mode="json")).decode()
    db.execute(
        "INSERT INTO law VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET body = excluded.body", (kind, body)
    )


def charter_of(db: sqlite3.Connection) -> CharterAdopted | None:
    """The charter that the ledger is kept under, None where no entry says so."""
    body = _law(db, CHARTER_ADOPTED)
    return None if body is None else CharterAdopted.model_validate_json(body)


def freeze_of(db: sqlite3.Connection) -> PolicyFrozen | None:
    """The freeze of the highest version, None where there never was one."""
    body = _law(db, POLICY_FROZEN)
    return None if body is None else PolicyFrozen.model_validate_json(body)


def _law(db: sqlite3.Connection, kind: str) -> str | None:
    row = db.execute("SELECT body FROM law WHERE kind = ?", (kind,)).fetchone() if has_law(db) else None
    return row[0] if row else None


def set_latest(db: sqlite3.Connection, entry: Entry) -> None:
    """Note an entry's time as the latest; terms of a newer policy begin anew."""
    if entry.kind in TERMS_KINDS:
        db.execute("UPDATE clock SET latest = ?", (entry.at,))
    else:
        db.execute("UPDATE clock SET latest = max(latest, ?)", (entry.at,))


def latest(db: sqlite3.Connection) -> str:
    """The latest time of an entry since the newest terms of an account, empty if there is none."""
    return str(db.execute("SELECT latest FROM clock").fetchone()[0])


def spent(db: sqlite3.Connection, account: str) -> Spending:
    """Everything an account's jobs committed, composed.

    Raises:
        LogCorruptError: it is not there, or cannot be read.
    """
    row = db.execute("SELECT spent, sha256 FROM balances WHERE account = ?", (account,)).fetchone()
    return _spending(account, *(row or ("", "")))


def balances(db: sqlite3.Connection) -> dict[str, Spending]:
    """:func:`spent` of every account."""
    rows = db.execute("SELECT account, spent, sha256 FROM balances")
    return {account: _spending(account, text, sha256) for account, text, sha256 in rows}


def _set_spent(db: sqlite3.Connection, account: str, spending: Spending) -> None:
    """Note a sum with its digest: it stands for a history that nobody adds up again before the next audit."""
    text = spending.model_dump_json()
    row = (account, text, _digest(account, text))
    db.execute(
        "INSERT INTO balances VALUES (?, ?, ?) ON CONFLICT (account) DO UPDATE SET "
        "spent = excluded.spent, sha256 = excluded.sha256",
        row,
    )


def _digest(account: str, text: str) -> str:
    return hashlib.sha256(f"{account}\0{text}".encode()).hexdigest()


def _spending(account: str, text: str, sha256: str) -> Spending:
    try:
        if _digest(account, text) != sha256:
            raise ValueError("a bit of it is not what was written")
        return Spending.model_validate_json(text)
    except ValueError as error:
        raise LogCorruptError(
            "what the account has spent is not there or cannot be read",
            where=f"account {account}",
            remedy="stop the agent, keep the file and run archipel audit verify; the entries are what counts",
        ) from error


def known_standing(db: sqlite3.Connection, account: str) -> tuple[AccountTerms, Standing]:
    """:func:`standing` of an account that must be there.

    Raises:
        UnknownAccountError: it is not.
    """
    found = standing(db, account)
    if found is None:
        raise unknown_account(account)
    return found


def standing(db: sqlite3.Connection, account: str) -> tuple[AccountTerms, Standing] | None:
    """An account's terms, and what the filter judges of it; None where there is none."""
    row = db.execute(
        "SELECT budget, policy_sha256, policy_version FROM accounts WHERE account = ?", (account,)
    ).fetchone()
    if row is None:
        return None
    budget = Budget.model_validate(json.loads(row[0]))
    counts = db.execute(
        "SELECT event, sum(reserved - committed) FROM jobs CROSS JOIN allowances USING (job) "
        "WHERE account = ? AND open = 1 GROUP BY event ORDER BY event",
        (account,),
    ).fetchall()
    outstanding = tuple(EventCount(event_of(key), count) for key, count in counts if count)
    terms = AccountTerms(account=account, budget=budget, policy_sha256=row[1], policy_version=row[2])
    return terms, Standing(account, budget, spent(db, account), outstanding)


def set_terms(db: sqlite3.Connection, terms: AccountTerms) -> None:
    """Open an account or give it new terms; it is thawed until :func:`set_frozen` says otherwise."""
    budget = rfc8785.dumps(terms.budget.model_dump(mode="json")).decode()
    db.execute(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, 0) ON CONFLICT (account) DO UPDATE SET "
        "budget = excluded.budget, policy_sha256 = excluded.policy_sha256, "
        "policy_version = excluded.policy_version, frozen = 0",
        (terms.account, budget, terms.policy_sha256, terms.policy_version),
    )
    if not db.execute("SELECT 1 FROM balances WHERE account = ?", (terms.account,)).fetchone():
        _set_spent(db, terms.account, Spending.none(terms.budget.filter))


def set_frozen(db: sqlite3.Connection, account: str, frozen: bool) -> None:
    """Note whether commits of this account must be judged one by one."""
    db.execute("UPDATE accounts SET frozen = ? WHERE account = ?", (int(frozen), account))


def is_frozen(db: sqlite3.Connection, account: str) -> bool:
    """What :func:`set_frozen` noted last."""
    row = db.execute("SELECT frozen FROM accounts WHERE account = ?", (account,)).fetchone()
    return bool(row and row[0])


def add_job(db: sqlite3.Connection, record: Reserved, seq: int) -> None:
    """Note a reservation."""
    db.execute(
        "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
        (
            record.job,
            record.account,
            record.dataset,
            record.plan_sha256,
            record.policy_sha256,
            record.requested_by,
            seq,
        ),
    )
    rows = [(record.job, event_key(item.event), item.count) for item in record.events]
    db.executemany("INSERT INTO allowances (job, event, reserved) VALUES (?, ?, ?)", rows)


def home_of(db: sqlite3.Connection, dataset: str) -> str | None:
    """The account that a dataset was first reserved on, None if it never was."""
    row = db.execute("SELECT account FROM jobs WHERE dataset = ? ORDER BY seq LIMIT 1", (dataset,)).fetchone()
    return row[0] if row else None


def add_charge(db: sqlite3.Connection, record: Committed, seq: int) -> None:
    """Note a charge."""
    key = event_key(record.event)
    db.execute(
        "UPDATE allowances SET committed = committed + 1 WHERE job = ? AND event = ?", (record.job, key)
    )
    row = (record.job, record.round, record.attempt, key, seq)
    db.execute("INSERT INTO charges VALUES (?, ?, ?, ?, ?)", row)
    _set_spent(db, record.account, spent(db, record.account).plus(record.event))


def close_job(db: sqlite3.Connection, job: str) -> None:
    """Note that a job can charge no more."""
    db.execute("UPDATE jobs SET open = 0 WHERE job = ?", (job,))


def charge_at(db: sqlite3.Connection, job: str, round_: int, attempt: int) -> ChargeRow | None:
    """The charge of one (job, round, attempt)."""
    query = "SELECT event, seq FROM charges WHERE job = ? AND round = ? AND attempt = ?"
    row = db.execute(query, (job, round_, attempt)).fetchone()
    return ChargeRow(*row) if row else None


def all_charges(db: sqlite3.Connection) -> dict[tuple[str, int, int], str]:
    """Event key by (job, round, attempt)."""
    rows = db.execute("SELECT job, round, attempt, event FROM charges")
    return {(job, round_, attempt): event for job, round_, attempt, event in rows}


def account_status(db: sqlite3.Connection, account: str) -> AccountStatus | None:
    """One account, None where there is none."""
    row = db.execute(
        "SELECT budget, policy_sha256, policy_version FROM accounts WHERE account = ?", (account,)
    ).fetchone()
    if row is None:
        return None
    counts = db.execute(
        "SELECT event, sum(committed), sum((reserved - committed) * open) "
        "FROM allowances JOIN jobs USING (job) WHERE account = ? GROUP BY event ORDER BY event",
        (account,),
    ).fetchall()
    return AccountStatus(
        account=account,
        budget=Budget.model_validate(json.loads(row[0])),
        policy_sha256=row[1],
        policy_version=row[2],
        committed=tuple(EventCount(event_of(key), count) for key, count, _ in counts if count),
        outstanding=tuple(EventCount(event_of(key), count) for key, _, count in counts if count),
    )


def known_status(db: sqlite3.Connection, account: str) -> AccountStatus:
    """:func:`account_status` of an account that must be there.

    Raises:
        UnknownAccountError: it is not.
    """
    found = account_status(db, account)
    if found is None:
        raise unknown_account(account)
    return found


def job_status(db: sqlite3.Connection, job: str) -> JobStatus | None:
    """One job, None where there is none."""
    row = db.execute(
        "SELECT account, dataset, plan_sha256, policy_sha256, requested_by, seq, open "
        "FROM jobs WHERE job = ?",
        (job,),
    ).fetchone()
    if row is None:
        return None
    rows = db.execute(
        "SELECT event, reserved, committed FROM allowances WHERE job = ? ORDER BY event", (job,)
    )
    allowances = tuple(Allowance(event_of(key), reserved, committed) for key, reserved, committed in rows)
    account, dataset, plan_sha256, policy_sha256, requested_by, seq, is_open = row
    return JobStatus(
        job=job,
        account=account,
        dataset=dataset,
        plan_sha256=plan_sha256,
        policy_sha256=policy_sha256,
        requested_by=requested_by,
        seq=seq,
        allowances=allowances,
        open=bool(is_open),
    )


def ledger_state(db: sqlite3.Connection) -> LedgerState:
    """Everything the tables say."""
    accounts = db.execute("SELECT account FROM accounts ORDER BY account").fetchall()
    jobs = db.execute("SELECT job FROM jobs ORDER BY seq").fetchall()
    statuses = (account_status(db, name) for (name,) in accounts)
    reservations = (job_status(db, name) for (name,) in jobs)
    return LedgerState(
        accounts={item.account: item for item in statuses if item is not None},
        jobs={item.job: item for item in reservations if item is not None},
        charter=charter_of(db),
        freeze=freeze_of(db),
    )
