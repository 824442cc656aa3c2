"""A person's consent to be scored with what a feature silo knows of them, for one session.

After a person has logged in at the feature silo and agreed, that silo hands them a token. They take it to the
label silo, which sends it back and is told the few numbers that stand for that person. The label silo
never names the person, and the token names nobody: it is a random word that only its issuer can look up.

Guarantees
    * A token is worth one answer, to the silo and for the purpose that it was issued for, until it expires.
      What was redeemed stays redeemed after a crash: it is marked before the answer is made.
    * The issuer's file holds hashes of tokens. A copy of the file redeems nothing; whose a token was is
      forgotten with its redemption.
    * Whatever is wrong with a token, whoever presents it hears the same. The reason is for the issuer's own
      people; that somebody is known here, or was, is not told.
    * One silo is answered at most so often an hour, unknown tokens included: they are guesses.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from policies.silo_policy import SiloPolicy
from privacy.errors import DeniedError, UsageError
from silo.private_file import Database, PrivateFile

CONSENT_FILE = "consent.db"
PREFIX = "archipel-consent-v1."
MAX_LIFETIME = timedelta(hours=1)
DAYS_SHOWN = 30
"""For how long back people are shown what questions came to."""

_NONCE_BYTES = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    hash BLOB PRIMARY KEY, user_id TEXT NOT NULL, audience TEXT NOT NULL, purpose TEXT NOT NULL,
    expires TEXT NOT NULL, redeemed TEXT);
CREATE TABLE IF NOT EXISTS requests (silo TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (silo, at);
CREATE TABLE IF NOT EXISTS merges (ticket BLOB PRIMARY KEY, expires TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (
    day TEXT NOT NULL, silo TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (day, silo, outcome));
"""


class ConsentError(DeniedError):
    """This token is worth no answer.

    Attributes:
        reason: why, for the issuer's own people: ``unknown``, ``expired``, ``redeemed``, ``audience``,
            ``purpose`` or ``too_many_requests``.
    """

    code = "consent"

    def __init__(self, reason: str) -> None:
        super().__init__("the token is not valid here", remedy="ask the person for a new one")
        self.reason = reason


@dataclass(frozen=True)
class ConsentLimits:
    """What bounds one issuer.

    Attributes:
        lifetime: how long a token is valid, at most ``MAX_LIFETIME``; the policy's ``token_minutes``.
        max_requests_per_hour: by one silo, whatever becomes of them.
    """

    lifetime: timedelta = timedelta(minutes=10)
    max_requests_per_hour: int = 3_600


def limits_of(policy: SiloPolicy | None) -> ConsentLimits:
    """The limits that a policy sets; the defaults where none is in force."""
    if policy is None:
        return ConsentLimits()
    serving = policy.serving
    return ConsentLimits(timedelta(minutes=serving.token_minutes), serving.max_requests_per_hour)


@dataclass(frozen=True)
class Redemption:
    """A token that was redeemed: what lets one person's numbers leave, once.

    Attributes:
        user_id: whose row may be used.
        audience: the one silo that may be told.
        purpose: for which it may use them.
    """

    user_id: str
    audience: str
    purpose: str


@dataclass(frozen=True)
class Admission:
    """A ticket that was used: what lets one person take their own numbers to their own device, once.

    Attributes:
        ticket: SHA-256 of it.
        user_id: whose row may be used.
    """

    ticket: bytes
    user_id: str


class ConsentBook(PrivateFile):
    """The tokens that one silo has issued, and others' tickets that were used here, in its ``consent.db``.

    Args:
        path: the file; made where it is missing, readable by its owner alone.
        limits: see :class:`ConsentLimits`.

    Raises:
        UsageError: a lifetime beyond ``MAX_LIFETIME``.
        LogStorageError: the file cannot be opened.
    """

    def __init__(self, path: Path, limits: ConsentLimits = ConsentLimits()) -> None:
        if not timedelta(0) < limits.lifetime <= MAX_LIFETIME:
            raise UsageError(
                f"a token for {limits.lifetime} is a standing permission",
                where="lifetime",
                remedy=f"write at most {MAX_LIFETIME}",
            )
        super().__init__(path, _SCHEMA)
        self._limits = limits

    def issue(self, user_id: str, *, audience: str, purpose: str, now: datetime) -> str:
        """Return a token for a person who is logged in here and has agreed; shown to that person only.

        Args:
            user_id: whose row may be used.
            audience: the one silo that may redeem it.
            purpose: of the plan whose model it is for.
            now: aware.
        """
        token = PREFIX + secrets.token_urlsafe(_NONCE_BYTES)
        row = (_hash(token), user_id, audience, purpose, _text(now + self._limits.lifetime))
        with self._writing() as db:
            _forget_old(db, now)
            db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, NULL)", row)
        return token

    def redeem(self, token: str, *, by: str, purpose: str, now: datetime) -> Redemption:
        """Return whose row a token stands for, once.

        Args:
            token: as the person brought it.
            by: the silo that sends it, as the transport knows it, not as it says.
            purpose: of the plan whose model asks.
            now: aware.

        Raises:
            ConsentError: it is worth no answer; nothing but the request was noted.
        """
        with self._writing() as db:
            _forget_old(db, now)
            reason, user_id = self._look_up(db, token, by, purpose, now)
            if reason != "too_many_requests":
                db.execute("INSERT INTO requests VALUES (?, ?)", (by, _text(now)))
            if reason is None:
                spent = (_text(now), _hash(token))
                db.execute("UPDATE tokens SET redeemed = ?, user_id = '' WHERE hash = ?", spent)
        if reason is not None:
            raise ConsentError(reason)
        return Redemption(user_id, by, purpose)

    def admit(self, ticket: bytes, user_id: str, *, ends: datetime, now: datetime) -> Admission:
        """Accept a ticket, once: a second answer to it would tell more than one list does.

        Args:
            ticket: SHA-256 of it; all else about it has been checked.
            user_id: who is logged in here and has agreed.
            ends: when it is over; it is remembered a good while longer.
            now: aware.

        Raises:
            ConsentError: it was used before.
        """
        with self._writing() as db:
            _forget_old(db, now)
            added = db.execute("INSERT OR IGNORE INTO merges VALUES (?, ?)", (ticket, _text(ends)))
        if not added.rowcount:
            raise ConsentError("redeemed")
        return Admission(ticket, user_id)

    def forget_old(self, now: datetime) -> None:
        """Drop whose tokens were that nobody brought and that ended more than an hour ago."""
        with self._writing() as db:
            _forget_old(db, now)

    def count(self, silo: str, outcome: str, now: datetime) -> None:
        """Note that a question of ``silo`` came to ``outcome``: a number a day, of nobody in particular."""
        day = now.astimezone(UTC).date().isoformat()
        with self._writing() as db:
            db.execute(
                "INSERT INTO outcomes VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                (day, silo, outcome),
            )

    def counts(self, since: date) -> list[tuple[str, str, str, int]]:
        """(day, silo, outcome, number) of every question since a day, in that order."""
        with self._reading() as db:
            return db.execute(
                "SELECT day, silo, outcome, count FROM outcomes WHERE day >= ? ORDER BY day, silo, outcome",
                (since.isoformat(),),
            ).fetchall()

    def _look_up(
        self, db: Database, token: str, by: str, purpose: str, now: datetime
    ) -> tuple[str | None, str]:
        since = _text(now - timedelta(hours=1))
        db.execute("DELETE FROM requests WHERE at < ?", (since,))
        (count,) = db.execute("SELECT COUNT(*) FROM requests WHERE silo = ?", (by,)).fetchone()
        if count >= self._limits.max_requests_per_hour:
            return "too_many_requests", ""
        found = db.execute(
            "SELECT user_id, audience, purpose, expires, redeemed FROM tokens WHERE hash = ?", (_hash(token),)
        ).fetchone()
        if found is None:
            return "unknown", ""
        user_id, audience, issued_for, expires, redeemed = found
        wrongs = {
            "audience": audience != by,
            "purpose": issued_for != purpose,
            "redeemed": redeemed is not None,
            "expired": expires <= _text(now),
        }
        return next((reason for reason, is_wrong in wrongs.items() if is_wrong), None), user_id


def _forget_old(db: Database, now: datetime) -> None:
    """Drop tokens and tickets that have been over for long enough to be told from unknown ones in the log."""
    db.execute("DELETE FROM tokens WHERE expires < ?", (_text(now - MAX_LIFETIME),))
    db.execute("DELETE FROM merges WHERE expires < ?", (_text(now - MAX_LIFETIME),))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _text(moment: datetime) -> str:
    """Seconds since 1970 as text that sorts like the numbers."""
    return f"{moment.timestamp():017.6f}"
