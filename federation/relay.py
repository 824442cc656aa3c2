"""Carries sealed questions between silos, in memory and for seconds.

Agents dial out only, so a silo that answers waits here for what is addressed to it. The relay knows who asks
whom and when; questions have one size, answers another, and it can open neither. Nothing is written down:
with the coordinator's process go all questions, and who asked asks again.

Guarantees
    * A question is handed out at most once, to the silo it is addressed to, under the asker's own name as
      TLS knows it; its answer goes to that asker alone. Nothing is handed out for who stopped waiting.
    * The same bytes asked again by the same silo are the same question: a repeated call changes nothing.
    * Each asker has bounds of its own: who asks too much stops nobody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import defaultdict, deque
from dataclasses import dataclass, field

from federation.questions import NoAnswerError, NotAnsweringError
from federation.quotas import CoordinatorLimits, OverQuotaError, WaitingCalls
from privacy.errors import ProtocolError
from privacy.questions import ANSWER_BYTES, QUESTION_BYTES

MAX_HANDED_OUT = 16
OFFER_SECONDS = 60.0
"""How long a silo counts as answering after it last listened."""
KEPT_SECONDS = 30.0
"""How long an answer can be asked for again, where the first way back was lost."""
_WINDOW_SECONDS = 3600.0


@dataclass(frozen=True)
class Handed:
    """One question on its way to the silo that answers it.

    Attributes:
        ticket: its name between that silo and the relay.
        asker: who asks, as TLS knows it.
        question: sealed.
    """

    ticket: str
    asker: str
    question: bytes


@dataclass(eq=False)
class _Asked:
    handed: Handed
    answerer: str
    until: float
    answer: asyncio.Future[bytes]
    is_handed: bool = False


@dataclass
class _Listener:
    offer: bytes = b""
    until: float = 0.0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class QuestionRelay:
    """Questions that wait for their silo, and answers that wait for their asker. Needs a running event loop.

    Args:
        limits: what one party may have.
    """

    def __init__(self, limits: CoordinatorLimits) -> None:
        self._limits = limits
        self._listeners: dict[str, _Listener] = defaultdict(_Listener)
        self._asked: dict[tuple[str, str, bytes], _Asked] = {}
        self._times: dict[str, deque[float]] = defaultdict(deque)
        self._waiting = WaitingCalls(
            limits.max_waiting_questions_per_party,
            "max_waiting_questions_per_party",
            remedy="wait for their answers",
        )

    def offer_of(self, silo: str) -> bytes:
        """The signed key that ``silo`` answers with now.

        Raises:
            NotAnsweringError: its agent does not listen.
        """
        listener = self._listeners.get(silo)
        if listener is None or listener.until <= _now():
            raise NotAnsweringError(
                f"{silo} answers no questions at the moment",
                remedy="its agent must run, under a policy that answers; or serve without its features",
            )
        return listener.offer

    async def ask(self, asker: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
        """Hand ``question`` to ``silo`` and return what it answers, sealed.

        Raises:
            ProtocolError: not of a question's size.
            NotAnsweringError: that silo's agent does not listen.
            OverQuotaError: the asker has asked too much.
            NoAnswerError: no answer came in time.
        """
        if len(question) != QUESTION_BYTES:
            raise ProtocolError(f"a question of {len(question)} bytes; all have {QUESTION_BYTES}")
        with self._waiting.one_of(asker):
            asked = self._put(asker, silo, question, _now() + wait_seconds)
            try:
                async with asyncio.timeout(wait_seconds):
                    return await asyncio.shield(asked.answer)
            except TimeoutError:
                raise NoAnswerError(
                    f"{silo} has not answered within {wait_seconds:g} seconds",
                    remedy="try again with a new token, or serve without its features",
                ) from None

    async def listen(self, silo: str, offer: bytes, wait_seconds: float) -> list[Handed]:
        """Return questions for ``silo``, waiting for the first one; until then its ``offer`` is given out."""
        listener, end = self._listeners[silo], _now() + wait_seconds
        listener.offer, listener.until = offer, end + OFFER_SECONDS
        while True:
            self._forget()
            listener.arrived.clear()
            waiting = [one for one in self._asked.values() if one.answerer == silo and not one.is_handed]
            for one in waiting[:MAX_HANDED_OUT]:
                one.is_handed = True
            if waiting:
                return [one.handed for one in waiting[:MAX_HANDED_OUT]]
            try:
                async with asyncio.timeout_at(end):
                    await listener.arrived.wait()
            except TimeoutError:
                return []

    def answer(self, silo: str, ticket: str, answer: bytes) -> None:
        """Take ``silo``'s answer; the first one counts, and one that nobody waits for any more is dropped.

        Raises:
            ProtocolError: not of an answer's size.
        """
        if len(answer) != ANSWER_BYTES:
            raise ProtocolError(f"an answer of {len(answer)} bytes; all have {ANSWER_BYTES}")
        for one in self._asked.values():
            if (one.handed.ticket, one.answerer) == (ticket, silo) and not one.answer.done():
                one.answer.set_result(answer)
                one.until = _now() + KEPT_SECONDS

    def _put(self, asker: str, silo: str, question: bytes, until: float) -> _Asked:
        """The question as it waits here, which it may do already."""
        self._forget()
        key = (asker, silo, hashlib.sha256(question).digest())
        if key not in self._asked:
            self.offer_of(silo)
            self._count(asker)
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            handed = Handed(secrets.token_hex(16), asker, question)
            self._asked[key] = _Asked(handed, silo, until, answer)
            self._listeners[silo].arrived.set()
        return self._asked[key]

    def _count(self, asker: str) -> None:
        """Accept one more question of a party, or raise that it has had its number."""
        most, times, now = self._limits.max_questions_per_hour_per_party, self._times[asker], _now()
        while times and times[0] <= now - _WINDOW_SECONDS:
            times.popleft()
        if len(times) >= most:
            raise OverQuotaError(
                f"{asker} has asked {most} questions within an hour (max_questions_per_hour_per_party)",
                remedy="ask later; the coordinator's operator sets the limit",
            )
        times.append(now)

    def _forget(self) -> None:
        """Drop what nobody waits for any more."""
        now = _now()
        self._asked = {key: one for key, one in self._asked.items() if one.until > now}


def _now() -> float:
    return asyncio.get_running_loop().time()
