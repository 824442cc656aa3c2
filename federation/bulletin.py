"""The coordinator's board: every job's posts, durable, in one order, and noted in the trail."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime

import structlog

from federation.job_state import JobState, Phase
from federation.messages import Envelope
from federation.quotas import CoordinatorLimits, OverQuotaError, RefusalMeter, check_proposal
from federation.rounds import advance, propose
from federation.steps import Step, durable
from federation.store import Store, StoredPost
from federation.trail import Trail
from privacy.errors import ArchipelError, HostError

log = structlog.get_logger("coordinator")


class Bulletin:
    """All posts of one coordinator and the states that they fold to.

    Args:
        store: where posts are durable.
        trail: where they are noted.
        coordinator: its name.
        clock: current time.
        meter: which refusals are noted.

    Attributes:
        jobs: state of every job by its id, oldest first.
    """

    def __init__(
        self,
        store: Store,
        trail: Trail,
        coordinator: str,
        clock: Callable[[], datetime],
        *,
        meter: RefusalMeter,
    ) -> None:
        self.jobs: dict[str, JobState] = {}
        self._store = store
        self._trail = trail
        self._coordinator = coordinator
        self._clock = clock
        self._meter = meter
        self._begun: dict[str, datetime] = {}
        self._posts: list[StoredPost] = []
        self._noted = 0

    def load(self) -> None:
        """Fold what is stored, and note what a crash kept from the trail."""
        self._noted = self._trail.last_post()
        for post in self._store.posts():
            self._admit(post)
        self._note()

    def publish(self, job: str, envelope: Envelope) -> tuple[int, bool]:
        """Make a post durable that its job admits; returns its number and whether it is new.

        Raises:
            EquivocationError: other bytes are stored at its place.
            HostError: the disk is full; nothing was changed.
        """
        known = self.jobs.get(job)
        if known is not None and known.posts.get(envelope.place) == envelope:
            return self._store.append(job, envelope, self._clock()).seq, False
        with durable(Step.POST_STORED):
            post = self._store.append(job, envelope, self._clock())
        self._admit(post)
        self._note()
        return post.seq, True

    def refused(self, party: str, error: ArchipelError) -> None:
        """Log and note a request that changed nothing."""
        log.warning("refused", party=party, code=error.code, what=error.message)
        is_noted, left_out = self._meter.see(party, self._clock())
        try:
            if left_out:
                text = f"{left_out} more refusals of an earlier hour were not noted"
                self._trail.refused(party, OverQuotaError.code, text)
            if is_noted:
                self._trail.refused(party, error.code, error.message)
        except HostError as full:
            log.error("not_noted", code=full.code, what=full.message)

    def check_quota(self, state: JobState, limits: CoordinatorLimits) -> None:
        """Accept one more job of its proposer.

        Raises:
            OverQuotaError: it has had, or has, as many as one party may.
        """
        check_proposal(
            state.proposer, state.proposal, self.jobs, self._begun, limits=limits, now=self._clock()
        )

    def belongs(self, party: str, job: str) -> bool:
        """Whether ``party`` may know of ``job``: its roster, its proposer and the coordinator may."""
        state = self.jobs.get(job)
        return state is not None and party in (*state.roster, state.proposer, self._coordinator)

    def has_ended(self, job: str) -> bool:
        """Whether the job's end is on the board."""
        return self.jobs[job].phase is Phase.ENDED

    def begun_at(self, job: str) -> datetime:
        """When the proposal came, by the coordinator's own clock."""
        return self._begun[job]

    def posts_for(self, party: str, after: int) -> list[tuple[int, bytes]]:
        """Posts numbered above ``after`` in jobs that ``party`` belongs to, in order."""
        return [
            (post.seq, post.envelope.to_bytes())
            for post in self._posts[self._index_after(after) :]
            if self.belongs(party, post.job)
        ]

    def _admit(self, post: StoredPost) -> None:
        known = self.jobs.get(post.job)
        if known is None:
            self.jobs[post.job] = propose(post.envelope, self._coordinator)
            self._begun[post.job] = post.at
        else:
            self.jobs[post.job] = advance(known, post.envelope)
        self._posts.append(post)

    def _note(self) -> None:
        """Bring the trail up to the board: after a crash or a full disk it lags behind."""
        try:
            for post in self._posts[self._index_after(self._noted) :]:
                self._trail.accepted(post.job, post.seq, post.envelope)
                self._noted = post.seq
        except HostError as error:
            log.error("not_noted", code=error.code, what=error.message)

    def _index_after(self, seq: int) -> int:
        return bisect_right(self._posts, seq, key=lambda post: post.seq)
