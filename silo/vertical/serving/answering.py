"""The feature silo's agent answers label silos about people who brought them a token of this silo.

It listens at the coordinator's relay only while the policy in force answers somebody, no freeze holds, and
the silo is not paused; all of it is asked again for every question.

Guarantees
    * One person's numbers leave only for a token that this silo issued to that person for exactly this label
      silo and purpose, once, within its time, and only under a policy that answers that silo for it.
    * Whatever else was asked, whatever is wrong with it: the asker gets one denial, the carrier bytes of the
      same size, neither before :data:`ANSWER_SECONDS` have passed. The reason stays in the local log, with
      names of silos and codes, never of people.
    * The key is in this process alone, and for minutes: what was recorded on the way opens for nobody after.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from federation.questions import CLOCKS_APART, FeatureAnswer, Question
from federation.transport.base import Connection
from policies.silo_policy import SiloPolicy
from privacy.agreement import EphemeralKey
from privacy.errors import ArchipelError
from privacy.questions import Direction, Opening, QuestionSealError, no_answer, offered_key
from silo.release import offer_key, release_features, withhold_features
from silo.site import Site
from silo.vertical.projection import ProjectTask, project
from silo.vertical.serving.consent import CONSENT_FILE, ConsentBook, ConsentError, limits_of
from silo.vertical.serving.permission import NotAnsweredError, plan_served, policy_in_force
from silo.worker import Worker

log = structlog.get_logger("silo")

POLL_SECONDS = 20.0
CHECK_SECONDS = 5.0
RECONNECT_SECONDS = 2.0
ANSWER_SECONDS = 0.2
"""No answer leaves earlier, so that a denial is not known by its speed."""
KEY_LIFETIME = timedelta(minutes=10)
MAX_AT_ONCE = 32


class _Key(NamedTuple):
    key: EphemeralKey
    expires: datetime


class AnsweringDesk:
    """What the agent does beside its jobs: answers questions about people in session.

    Args:
        site: the silo's.
        connection: to the coordinator.
    """

    def __init__(self, site: Site, connection: Connection) -> None:
        self._site = site
        self._connection = connection
        self._worker = Worker()
        self._keys: deque[_Key] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble = ""

    async def run(self) -> None:
        """Listen and answer until cancelled; no trouble here ever ends the agent."""
        try:
            while True:
                try:
                    await self._listen()
                except Exception as error:
                    self._say(error)
                    await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._worker.close()

    async def _listen(self) -> None:
        """Take one handful of questions, if anything is answered at all."""
        self._forget_what_is_over()
        policy = policy_in_force(self._site)
        if policy is None or not policy.serving.answers_anybody:
            await asyncio.sleep(CHECK_SECONDS)
            return
        for ticket, asker, question in await self._connection.listen(self._offer(), POLL_SECONDS):
            task = asyncio.create_task(self._answer(ticket, asker, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._trouble = ""
        if len(self._tasks) >= MAX_AT_ONCE:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def _forget_what_is_over(self) -> None:
        """Drop keys nobody asks under any more, and whose tokens were; also where nobody is answered now."""
        while self._keys and self._keys[0].expires + CLOCKS_APART < self._site.now():
            self._keys.popleft()
        path = self._site.directory / CONSENT_FILE
        if path.exists():
            with ConsentBook(path) as book:
                book.forget_old(self._site.now())

    def _offer(self) -> bytes:
        """The newest key, signed; a new one in good time, the one before until its offer is over."""
        now = self._site.now()
        if not self._keys or self._keys[-1].expires - now < KEY_LIFETIME / 2:
            self._keys.append(_Key(EphemeralKey.generate(), now + KEY_LIFETIME))
        newest, identity = self._keys[-1], self._site.party.identity
        return offer_key(self._site.name, newest.key.public_bytes(), newest.expires, identity).to_bytes()

    async def _answer(self, ticket: str, asker: str, sealed: bytes) -> None:
        """Answer one question: numbers, the denial, or bytes that nobody opens."""
        loop = asyncio.get_running_loop()
        leaves_at = loop.time() + ANSWER_SECONDS
        try:
            answer = await self._sealed_answer(asker, sealed)
            await asyncio.sleep(leaves_at - loop.time())
            await self._connection.answer(ticket, answer)
        except Exception as error:
            # What it held stays out of the log: it may be a person's.
            log.error("not_answered", silo=asker, code=getattr(error, "code", type(error).__name__))

    async def _sealed_answer(self, asker: str, sealed: bytes) -> bytes:
        try:
            opening = self._opened(asker, sealed)
            member = self._site.charter.member(asker)
            if member is None:
                raise NotAnsweredError("policy")
            question = Question.read(
                opening.content, transcript=opening.transcript, asker=member.identity_key
            )
        except ArchipelError as error:
            log.warning("question_refused", silo=asker, code=error.code)
            return no_answer()
        answer = await self._judged(asker, question)
        return opening.answer(answer.to_bytes(), question.job)

    def _opened(self, asker: str, sealed: bytes) -> Opening:
        for key, _ in self._keys:
            if key.public_bytes() == offered_key(sealed):
                return Opening.of(key, Direction(asker, self._site.name), sealed)
        raise QuestionSealError("a question to a key that is over, or never was")

    async def _judged(self, asker: str, question: Question) -> FeatureAnswer:
        """The answer; what it came to is logged and counted here, without the person."""
        now, outcome = self._site.now(), "failed"
        try:
            policy = policy_in_force(self._site)
            with ConsentBook(self._site.directory / CONSENT_FILE, limits_of(policy)) as book:
                try:
                    answer = await self._features(book, policy, asker, question, now)
                    outcome = "answered"
                except (ConsentError, NotAnsweredError) as error:
                    answer, outcome = withhold_features(), error.reason
                finally:
                    book.count(asker, outcome, now)
        except Exception as error:
            # A bug or a broken disk must look like any other denial; what it held may be a person's.
            log.error("not_answered", silo=asker, code=getattr(error, "code", type(error).__name__))
            return withhold_features()
        log.info("question_answered", silo=asker, job=question.job, outcome=outcome)
        return answer

    async def _features(
        self, book: ConsentBook, policy: SiloPolicy | None, asker: str, question: Question, now: datetime
    ) -> FeatureAnswer:
        """One person's numbers; all else is checked before the token is spent, and it before rows are read.

        Raises:
            NotAnsweredError: this silo does not answer that.
            ConsentError: the token is worth no answer.
        """
        purpose = self._purpose_of(policy, asker, question.job)
        redemption = book.redeem(question.token, by=asker, purpose=purpose, now=now)
        task = ProjectTask(self._site.directory, question.job, redemption.user_id)
        return release_features(
            await self._worker.run(project, task), redemption, silo=asker, purpose=purpose
        )

    def _purpose_of(self, policy: SiloPolicy | None, asker: str, job: str) -> str:
        """The purpose of a finished job whose label silo asks, if the policy in force answers it for that.

        Raises:
            NotAnsweredError: it does not.
        """
        if policy is None:
            raise NotAnsweredError("held")
        plan = plan_served(self._site, policy, label=asker, job=job)
        if not policy.serving.answers_to(asker, plan.purpose):
            raise NotAnsweredError("policy")
        return plan.purpose

    def _say(self, error: Exception) -> None:
        """Say what is wrong, once as long as it is the same; of a bug its kind, not what it held."""
        is_explained = isinstance(error, ArchipelError | OSError)
        what = str(error) if is_explained else type(error).__name__
        if self._trouble != what:
            self._trouble = what
            log.warning("not_listening", code=getattr(error, "code", "host"), what=what)
