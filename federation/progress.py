"""How far a job is, what it has cost and how long it will still take: from its posts and a clock."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime

from federation.job_state import IN_ROUND, JobState, Phase
from federation.legs.legs import events_before
from federation.messages import PostKind, Stream, Sum
from policies.plans.plan import Plan
from policies.plans.price import committed_events, spent_epsilon


def epsilon_spent(state: JobState) -> float:
    """Epsilon, by the plan's own filter, of every attempt for which some silo made its contribution.

    A silo that was absent spent less; its own ledger says how much. Of a vertical job: what a feature silo
    has spent on the legs that everybody has sent.
    """
    if state.plan.is_vertical:
        begun = state.round if state.phase is Phase.FETCHING else state.round - 1
        return _epsilon_of_legs(state.plan, begun, state.spine_slots)
    places = {(at.round, at.attempt) for at in state.posts if at.kind is PostKind.EPHEMERAL and at.round}
    return _epsilon_of(state.plan, tuple(sorted(places)))


def stream_bytes(state: JobState, silo: str) -> int:
    """Bytes of all contributions that a silo announced."""
    posts = (e for at, e in state.posts.items() if at.kind is PostKind.STREAM and at.sender == silo)
    return sum(envelope.content(Stream).num_bytes for envelope in posts)


def sum_bytes(state: JobState) -> int:
    """Bytes of all sums; each silo fetches them once."""
    posts = (envelope for at, envelope in state.posts.items() if at.kind is PostKind.SUM)
    return sum(envelope.content(Sum).num_bytes for envelope in posts)


class Pace:
    """Guesses when the rounds will be over, from those seen so far.

    Args:
        clock: current time, aware.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen: list[tuple[int, datetime]] = []

    def see(self, state: JobState) -> float | None:
        """Look at the job as it is now; returns the seconds left, None while nobody can know.

        A round takes as long as those that opened since the first look. Before one has, it takes as long as
        all of them on average since the proposal, which waiting for the silos' answers lengthens.
        """
        now, opened = self._clock(), len(state.opened)
        if not self._seen or opened > self._seen[-1][0]:
            self._seen = [*self._seen[:1], (opened, now)]
        if state.phase not in IN_ROUND or not opened:
            return None
        (first, begun), (_, last) = self._seen[0], self._seen[-1]
        if opened == first:
            first, begun = 0, datetime.fromisoformat(state.proposal.submitted_at)
        seconds_a_round = (last - begun) / (opened - first)
        left = seconds_a_round * (state.num_rounds - opened) - (now - last)
        return max(0.0, left.total_seconds())


@functools.lru_cache(maxsize=64)
def _epsilon_of(plan: Plan, places: tuple[tuple[int, int], ...]) -> float:
    return spent_epsilon(plan, committed_events(plan, places)) if places else 0.0


@functools.lru_cache(maxsize=64)
def _epsilon_of_legs(plan: Plan, number: int, spine_slots: int | None) -> float:
    events = events_before(plan, number, spine_slots)
    return spent_epsilon(plan, events) if events else 0.0
