"""How long the coordinator has been waiting for each silo, and whom it stops waiting for.

No clock and no network here: whoever asks says what time it is, in seconds of any monotonic clock. Nothing is
kept over a restart, so a coordinator that was away itself waits anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from federation.duties import Duty, duty, owing
from federation.job_state import ENDING, IN_ROUND, JobState
from federation.rounds import without

GIVE_UP_FACTOR = 6
"""Where an absence would end the job, it is declared only after so many times ``round_minutes``: an outage of
several silos, or of the coordinator's own network, usually ends before that."""

RETRY_SECONDS = 5.0
"""How soon an absence is declared again that could not be stored."""

SHORTEST_WAIT_SECONDS = 0.01
"""Below this, rounding might make a clock that was asked to wait stand still."""


class _Wait(NamedTuple):
    owed: tuple[object, ...]
    bytes_here: int | None
    begun: float
    since: float

    def seen(self, now: _Wait) -> _Wait:
        """This wait as it goes on: arriving bytes start the clock anew, but not that of the whole duty."""
        if self.owed != now.owed:
            return now
        return self if self.bytes_here == now.bytes_here else now._replace(begun=self.begun)

    def late_by(self, now: float, limit: float) -> float:
        """Seconds beyond its time; a duty that always progresses has ``GIVE_UP_FACTOR`` times as much."""
        return max(now - (self.since + limit), now - (self.begun + GIVE_UP_FACTOR * limit))


class Patience:
    """Remembers since when each silo of each job has made no progress in what it owes."""

    def __init__(self) -> None:
        self._waits: dict[str, dict[str, _Wait]] = {}
        self._seconds_left: dict[str, float] = {}

    def judge(self, state: JobState, bytes_here: Mapping[str, int], now: float) -> tuple[str, ...]:
        """The silos that have been waited for too long, in roster order.

        A silo has ``round_minutes`` for what it owes in each phase. Its clock starts with the phase, and anew
        with each sign of life: a post, or bytes of an upload; but a duty that only trickles is late after
        ``GIVE_UP_FACTOR`` times as long. Where going on would end the job, because too
        few would be left or no further burned round is paid for, there is much more time.

        Args:
            state: the job now. To be asked whenever it changes, so that clocks start when phases do.
            bytes_here: uploaded bytes of the streams that are not complete.
            now: seconds.
        """
        minutes = state.plan.protection.round_minutes
        if minutes is None:
            return ()
        late = self._late_by(state, bytes_here, now, minutes * 60)
        overdue = [silo for silo, seconds in late.items() if seconds >= 0]
        if overdue and without(state, tuple(overdue)).close is not None:
            extra = minutes * 60 * (GIVE_UP_FACTOR - 1)
            late |= {silo: late[silo] - extra for silo in overdue}
            overdue = [silo for silo in overdue if late[silo] >= 0]
        self._seconds_left.pop(state.job, None)
        if overdue:
            self._seconds_left[state.job] = RETRY_SECONDS
        elif late:
            self._seconds_left[state.job] = max(-max(late.values()), SHORTEST_WAIT_SECONDS)
        return tuple(overdue)

    def seconds_left(self, job: str) -> float | None:
        """How long after the last look the next one is due; None while the job waits for nobody."""
        return self._seconds_left.get(job)

    def forget(self, job: str) -> None:
        """Drop what is remembered of a job that has ended."""
        self._waits.pop(job, None)
        self._seconds_left.pop(job, None)

    def _late_by(
        self, state: JobState, bytes_here: Mapping[str, int], now: float, limit: float
    ) -> dict[str, float]:
        """Seconds beyond its time of each silo that the job waits for; below zero while it has some left."""
        before = self._waits.get(state.job, {})
        waits: dict[str, _Wait] = {}
        if state.phase in (*IN_ROUND, *ENDING):
            for silo in owing(state):
                due, here = duty(state, silo), bytes_here.get(silo)
                if due is Duty.UPLOAD and here is None:
                    continue
                wait = _Wait((due, state.round, state.attempt), here, now, now)
                waits[silo] = before[silo].seen(wait) if silo in before else wait
        self._waits[state.job] = waits
        return {silo: wait.late_by(now, limit) for silo, wait in waits.items()}
