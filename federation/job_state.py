"""What is known about a job: a frozen value that :mod:`federation.rounds` makes from signed posts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from federation.messages import Envelope, Place, PostKind, Proposal
from policies.plan import Plan
from policies.price import RoundShape
from privacy.errors import ProtocolError


class Phase(StrEnum):
    """Where a job is."""

    PROPOSED = "proposed"
    STARTING = "starting"
    KEYING = "keying"
    FINGERPRINTING = "fingerprinting"
    EXCHANGING = "exchanging"
    COLLECTING = "collecting"
    RECEIVING = "receiving"
    OPENING = "opening"
    CLOSING = "closing"
    WITNESSING = "witnessing"
    ENDED = "ended"


@dataclass(frozen=True)
class SumStreams:
    """Add the roster's streams of this attempt, once all are stored, and post the sum's manifest."""

    round: int
    attempt: int


@dataclass(frozen=True)
class Close:
    """Post the end of the job."""

    outcome: str
    reason: str


IN_ROUND = (Phase.EXCHANGING, Phase.COLLECTING, Phase.RECEIVING, Phase.OPENING)
KINDS_OF_PHASE: Mapping[Phase, tuple[PostKind, ...]] = {
    Phase.PROPOSED: (PostKind.ACCEPTANCE, PostKind.DENIAL),
    Phase.STARTING: (PostKind.EPHEMERAL,),
    Phase.KEYING: (PostKind.KEYS,),
    Phase.FINGERPRINTING: (PostKind.FINGERPRINT,),
    Phase.EXCHANGING: (PostKind.EPHEMERAL,),
    Phase.COLLECTING: (PostKind.STREAM, PostKind.SUM),
    Phase.RECEIVING: (PostKind.RECEIVED,),
    Phase.OPENING: (PostKind.OPENED, PostKind.FAILED),
    Phase.CLOSING: (PostKind.HEAD,),
    Phase.WITNESSING: (PostKind.RECEIPTS,),
    Phase.ENDED: (),
}


@dataclass(frozen=True)
class JobState:
    """Everything known about a job; made by :func:`propose` and :func:`advance` only."""

    job: str
    proposer: str
    coordinator: str
    plan: Plan
    plan_sha256: str
    shapes: tuple[RoundShape, ...]
    phase: Phase = Phase.PROPOSED
    round: int = 0
    attempt: int = 0
    burned: int = 0
    failed_opens: int = 0
    posts: Mapping[Place, Envelope] = field(default_factory=lambda: MappingProxyType({}))
    close: Close | None = None
    outcome: str | None = None
    reason: str = ""

    @property
    def roster(self) -> tuple[str, ...]:
        """The silos of the plan, in its order; the first is the leader."""
        return self.plan.silos

    @property
    def num_rounds(self) -> int:
        """Secure sums of the job: those of the training, then the metrics' if any."""
        return len(self.shapes)

    @property
    def proposal(self) -> Proposal:
        """What the job began with."""
        return self.posts[Place(PostKind.PROPOSAL, 0, 0, self.proposer)].content(Proposal)

    @property
    def leader(self) -> str:
        """The silo that makes the job's keys."""
        return self.plan.silos[0]

    def post(self, kind: PostKind, sender: str, *, round: int = 0, attempt: int = 0) -> Envelope | None:
        """The post at a place, if it is there."""
        return self.posts.get(Place(kind, round, attempt, sender))

    def roster_posts(self, kind: PostKind, *, round: int = 0, attempt: int = 0) -> tuple[Envelope, ...]:
        """The posts of one kind by the roster's silos, in roster order, those that are there."""
        found = (self.post(kind, silo, round=round, attempt=attempt) for silo in self.roster)
        return tuple(envelope for envelope in found if envelope is not None)

    def opened_attempt(self, round: int) -> int | None:
        """The attempt of ``round`` that the whole roster opened; None while there is none."""
        opened = [place for place in self.posts if place.kind is PostKind.OPENED and place.round == round]
        for attempt in sorted({place.attempt for place in opened}, reverse=True):
            if len(self.roster_posts(PostKind.OPENED, round=round, attempt=attempt)) == len(self.roster):
                return attempt
        return None

    @property
    def job_id(self) -> bytes:
        """SHA-256(plan, all signed job-start ephemerals): binds every key and digest of the job.

        Raises:
            ProtocolError: the job has not started.
        """
        starts = self.roster_posts(PostKind.EPHEMERAL)
        if len(starts) != len(self.roster):
            raise ProtocolError("the job has no identity before every silo has started")
        hashed = hashlib.sha256(bytes.fromhex(self.plan_sha256))
        for envelope in starts:
            hashed.update(hashlib.sha256(envelope.to_bytes()).digest())
        return hashed.digest()

    def transcript(self, round: int, attempt: int) -> bytes:
        """SHA-256 over plan, place and every signed ephemeral of (round, attempt): salt of its pair keys."""
        hashed = hashlib.sha256(bytes.fromhex(self.plan_sha256) + round.to_bytes(4, "big"))
        hashed.update(attempt.to_bytes(4, "big"))
        for envelope in self.roster_posts(PostKind.EPHEMERAL, round=round, attempt=attempt):
            hashed.update(hashlib.sha256(envelope.to_bytes()).digest())
        return hashed.digest()
