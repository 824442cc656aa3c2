"""How much of a coordinator one party may take: a member that fills it would stop all others.

What is over a quota changes nothing and is refused with the limit's name; what others do does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from federation.job_state import JobState, Phase
from federation.messages import Proposal
from privacy.errors import ProtocolError

MAX_CATALOGUE_BYTES = 1024 * 1024 * 1024
_REFUSALS_WINDOW = timedelta(hours=1)
_PROPOSALS_WINDOW = timedelta(days=1)

_Count = Annotated[int, Field(ge=1)]


class OverQuotaError(ProtocolError):
    """A party asks for more of the coordinator than one party may have."""

    code = "over_quota"


class CoordinatorLimits(BaseModel):
    """What bounds jobs and parties; the table ``[limits]`` of a coordinator's ``agent.toml``.

    Attributes:
        max_job_hours: a job that has not ended by then is closed as expired.
        max_open_jobs_per_party: proposed by one party and not ended.
        max_proposals_per_day_per_party: posts stay for ever, so their number is bounded in time as well.
        max_catalogue_bytes_per_party: of the open jobs that one party proposed, together.
        max_waiting_calls_per_party: calls that wait for a post; an agent and each ``job watch`` has one.
        max_waiting_questions_per_party: calls that wait for another silo's answer about a person in session.
        max_questions_per_hour_per_party: such questions, answered or not.
        max_noted_refusals_per_hour_per_party: further ones are counted in the trail, not listed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_job_hours: Annotated[float, Field(gt=0)] = 72.0
    max_open_jobs_per_party: _Count = 16
    max_proposals_per_day_per_party: _Count = 200
    max_catalogue_bytes_per_party: _Count = 2 * MAX_CATALOGUE_BYTES
    max_waiting_calls_per_party: _Count = 16
    max_waiting_questions_per_party: _Count = 16
    max_questions_per_hour_per_party: _Count = 7_200
    max_noted_refusals_per_hour_per_party: _Count = 200


def check_proposal(
    proposer: str,
    proposal: Proposal,
    jobs: Mapping[str, JobState],
    begun: Mapping[str, datetime],
    *,
    limits: CoordinatorLimits,
    now: datetime,
) -> None:
    """Accept one more proposal of a party.

    Args:
        proposer: the party.
        proposal: what it proposes.
        jobs: every job of the coordinator.
        begun: when each was proposed, by the coordinator's clock.
        limits: what one party may have.
        now: the coordinator's time.

    Raises:
        OverQuotaError: it has too many open jobs, has proposed too many, or their catalogues are too large.
    """
    mine = {job: state for job, state in jobs.items() if state.proposer == proposer}
    open_jobs = [state for state in mine.values() if state.phase is not Phase.ENDED]
    recent = sum(now - begun[job] < _PROPOSALS_WINDOW for job in mine)
    num_bytes = proposal.catalogue_bytes + sum(state.proposal.catalogue_bytes for state in open_jobs)
    wait = "wait until a job has ended, or cancel one: archipel job list, job cancel"
    if len(open_jobs) >= limits.max_open_jobs_per_party:
        raise OverQuotaError(
            f"{proposer} has {len(open_jobs)} open jobs; at most {limits.max_open_jobs_per_party} "
            "(max_open_jobs_per_party)",
            remedy=wait,
        )
    if recent >= limits.max_proposals_per_day_per_party:
        raise OverQuotaError(
            f"{proposer} has proposed {recent} plans within a day; at most "
            f"{limits.max_proposals_per_day_per_party} (max_proposals_per_day_per_party)",
            remedy="propose it tomorrow",
        )
    if num_bytes > limits.max_catalogue_bytes_per_party:
        raise OverQuotaError(
            f"the catalogues of {proposer}'s open jobs would be {num_bytes} bytes; at most "
            f"{limits.max_catalogue_bytes_per_party} (max_catalogue_bytes_per_party)",
            remedy=wait,
        )


class WaitingCalls:
    """How many calls of each party wait for something.

    Args:
        most: of one party.
        limit: the limit's name.
        remedy: what a party that reached it can do.
    """

    def __init__(self, most: int, limit: str, remedy: str) -> None:
        self._most = most
        self._limit = limit
        self._remedy = remedy
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def one_of(self, party: str) -> Iterator[None]:
        """Count one call of a party while it waits.

        Raises:
            OverQuotaError: too many of its calls wait already.
        """
        if self._waiting[party] >= self._most:
            raise OverQuotaError(
                f"{self._most} calls of {party} wait already ({self._limit})", remedy=self._remedy
            )
        self._waiting[party] += 1
        try:
            yield
        finally:
            self._waiting[party] -= 1


@dataclass
class _Noted:
    since: datetime
    noted: int = 0
    left_out: int = 0


class RefusalMeter:
    """Which refusals are noted one by one: a party cannot grow the trail without end."""

    def __init__(self, limits: CoordinatorLimits) -> None:
        self._most = limits.max_noted_refusals_per_hour_per_party
        self._of: dict[str, _Noted] = {}

    def see(self, party: str, now: datetime) -> tuple[bool, int]:
        """Count one refusal of a party.

        Returns:
            Whether it is noted, and how many of the hour before were not and are to be noted as a number.
        """
        known = self._of.get(party)
        left_out = 0
        if known is None or not timedelta(0) <= now - known.since < _REFUSALS_WINDOW:
            left_out = known.left_out if known else 0
            known = self._of[party] = _Noted(now)
        if known.noted < self._most:
            known.noted += 1
            return True, left_out
        known.left_out += 1
        return False, left_out
