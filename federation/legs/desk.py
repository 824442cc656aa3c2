"""What the coordinator does in the legs of vertical jobs: says that all is here, and matches once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from federation.blobs import Blobs
from federation.bulletin import Bulletin
from federation.job_state import Close, JobState, Match, Relay
from federation.legs.legs import origin
from federation.legs.matching import TOO_FEW, Matching, MatchingError, run_match
from federation.legs.matching import Match as MatchFunction
from federation.messages import MAX_REASON_CHARS, BlobKind, BlobRef, Body, Matched, PostKind, Relayed
from federation.rounds import pending
from federation.steps import Step, durable
from policies.plans.vertical.price import gate_terms
from privacy.errors import ArchipelError, HostError

log = structlog.get_logger("coordinator")

MAX_MATCH_TRIALS = 5
MATCH_PAUSE_SECONDS = 5.0


class Say(Protocol):
    """Post in the coordinator's name."""

    async def __call__(self, job: str, body: Body, round: int = 0, attempt: int = 0) -> None:
        """Sign ``body`` and put it on the board."""
        ...


class LegDesk:
    """The legs of one coordinator's vertical jobs.

    Args:
        board: the jobs.
        blobs: their bulk bytes.
        say: puts a post of the coordinator on the board.
        close: ends a job.
        match: finds the people in common; without it no vertical job is taken.
    """

    def __init__(
        self,
        board: Bulletin,
        blobs: Blobs,
        say: Say,
        close: Callable[[str, Close], Awaitable[None]],
        match: MatchFunction | None,
    ) -> None:
        self._board = board
        self._blobs = blobs
        self._say = say
        self._close = close
        self._match = match
        self._busy: set[tuple[str, int]] = set()

    @property
    def can_match(self) -> bool:
        """Whether vertical jobs can be run here."""
        return self._match is not None

    def is_ready(self, state: JobState, action: Relay | Match) -> bool:
        """Whether everything announced is here and nobody has taken the action up."""
        is_free = (state.job, action.round) not in self._busy
        return is_free and self._blobs.are_complete(self._blobs.streams(state))

    async def take_up(self, state: JobState, action: Relay | Match) -> None:
        """Post RELAYED, or match and post MATCHED or the end."""
        place = (state.job, action.round)
        if place in self._busy:
            return
        self._busy.add(place)
        try:
            if isinstance(action, Relay):
                with durable(Step.RELAYED_POSTED):
                    await self._say_here(state, action, Relayed(streams=_streams(state)))
            else:
                await self._find(state, action)
        finally:
            self._busy.discard(place)

    async def _find(self, state: JobState, action: Match) -> None:
        """A machine that fails is tried again; whoever matches has to give the same answer again."""
        reason = "the coordinator's machine could not match the lists; its log says why"
        for trial in range(1, MAX_MATCH_TRIALS + 1):
            if not self._owes(state, action):
                return
            try:
                with durable(Step.SLOTS_WRITTEN):
                    found = await self._run(state)
                if found is None:
                    reason = TOO_FEW
                    break
                body = Matched(streams=_streams(state), spine_slots=found.spine_slots, slots=found.slots)
                with durable(Step.MATCHED_POSTED):
                    await self._say_here(state, action, body)
                return
            except (HostError, OSError) as error:
                log.error("match_failed", job=state.job, attempts=trial, what=str(error))
                await asyncio.sleep(trial * MATCH_PAUSE_SECONDS)
            except ArchipelError as error:
                self._board.refused(state.coordinator, error)
                reason = f"the lists could not be matched: {error.message}"
                break
        if self._owes(state, action):
            await self._close(state.job, Close("failed", reason[:MAX_REASON_CHARS]))

    async def _run(self, state: JobState) -> Matching | None:
        if self._match is None:
            raise MatchingError("this coordinator cannot find people in common")
        lists = {origin(state.plan, state.leg, ref.sender): ref for ref in self._blobs.streams(state)}
        paths = {silo: self._blobs.path(lists[silo]) for silo in state.roster}
        return await run_match(self._match, paths, gate_terms(state.plan), self._slot_paths(state))

    def _slot_paths(self, state: JobState) -> Mapping[str, Path]:
        ref = BlobRef(
            job=state.job, kind=BlobKind.SLOTS, round=state.round + 1, attempt=1, sender=state.leader
        )
        return {silo: self._blobs.path(ref.model_copy(update={"sender": silo})) for silo in state.roster}

    async def _say_here(self, state: JobState, action: Relay | Match, body: Body) -> None:
        if self._owes(state, action):
            await self._say(state.job, body, state.round, state.attempt)

    def _owes(self, state: JobState, action: Relay | Match) -> bool:
        return pending(self._board.jobs[state.job]) == action


def _streams(state: JobState) -> dict[str, str]:
    posts = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
    return {post.sender: str(post.body["sha256"]) for post in posts}
