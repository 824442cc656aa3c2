"""What is known about a job: a frozen value that :mod:`federation.rounds` makes from signed posts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from federation.legs.legs import Leg, leg_at, num_legs
from federation.messages import Absence, Envelope, Place, PostKind, Proposal
from federation.posts import Posts
from policies.plans.plan import Plan
from policies.plans.price import RoundShape
from privacy.errors import ProtocolError


class Phase(StrEnum):
    """Where a job is."""

    PROPOSED = "proposed"
    STARTING = "starting"
    KEYING = "keying"
    FINGERPRINTING = "fingerprinting"
    PAUSED = "paused"
    EXCHANGING = "exchanging"
    COLLECTING = "collecting"
    RECEIVING = "receiving"
    OPENING = "opening"
    SENDING = "sending"
    APPROVING = "approving"
    FETCHING = "fetching"
    CLOSING = "closing"
    WITNESSING = "witnessing"
    ENDED = "ended"


@dataclass(frozen=True)
class SumStreams:
    """Add the contributors' streams of this attempt, once all are stored, and post the sum's manifest."""

    round: int
    attempt: int


@dataclass(frozen=True)
class Relay:
    """Post that everything announced in this leg is here, once it is."""

    round: int


@dataclass(frozen=True)
class Match:
    """Find the people in common once all blinded lists are here, and post the slots or the end."""

    round: int


@dataclass(frozen=True)
class Close:
    """Post the end of the job."""

    outcome: str
    reason: str


IN_LEG = (Phase.SENDING, Phase.APPROVING, Phase.FETCHING)
IN_ROUND = (Phase.EXCHANGING, Phase.COLLECTING, Phase.RECEIVING, Phase.OPENING, *IN_LEG)
ENDING = (Phase.CLOSING, Phase.WITNESSING)
KINDS_OF_PHASE: Mapping[Phase, tuple[PostKind, ...]] = {
    Phase.PROPOSED: (PostKind.ACCEPTANCE, PostKind.DENIAL),
    Phase.STARTING: (PostKind.EPHEMERAL,),
    Phase.KEYING: (PostKind.KEYS,),
    Phase.FINGERPRINTING: (PostKind.FINGERPRINT,),
    Phase.PAUSED: (),
    Phase.EXCHANGING: (PostKind.EPHEMERAL,),
    Phase.COLLECTING: (PostKind.STREAM, PostKind.SUM),
    Phase.RECEIVING: (PostKind.RECEIVED,),
    Phase.OPENING: (PostKind.OPENED, PostKind.FAILED, PostKind.REPAIRED),
    Phase.SENDING: (PostKind.STREAM, PostKind.RELAYED, PostKind.MATCHED),
    Phase.APPROVING: (PostKind.APPROVAL,),
    Phase.FETCHING: (PostKind.RECEIVED,),
    Phase.CLOSING: (PostKind.HEAD,),
    Phase.WITNESSING: (PostKind.RECEIPTS,),
    Phase.ENDED: (),
}


@dataclass(frozen=True)
class JobState:
    """Everything known about a job; made by :func:`propose` and :func:`advance` only.

    Attributes:
        job: its public handle.
        proposer: who put the plan forward.
        coordinator: whose sums, absences and end count.
        plan: what every silo accepts unchanged or denies.
        plan_sha256: its digest.
        shapes: one for each round; none in a vertical job.
        phase: where the job is.
        round: counted from 1; 0 before the first. While paused, the round that comes next. In a vertical job
            the number of the leg.
        attempt: of that round, counted from 1.
        burned: attempts given up so far.
        failed_opens: sums that were rejected so far.
        absent: silos that were declared absent and have not returned.
        attempts: contributors of every attempt begun, in roster order.
        opened: for each round opened so far, the attempt whose sum all contributors opened alike; for each
            leg that is over, 1.
        spine_slots: slots of a vertical job's spine, once the coordinator has matched.
        pauses: pause and resume posts accepted; they alternate.
        posts: every post by its place, in the order in which they were accepted.
        close: how the coordinator has to end the job, once its posts have decided that.
        outcome: how it ended.
        reason: why.
    """

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
    absent: frozenset[str] = frozenset()
    attempts: Mapping[tuple[int, int], tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    opened: tuple[int, ...] = ()
    spine_slots: int | None = None
    pauses: int = 0
    posts: Posts = field(default_factory=Posts)
    close: Close | None = None
    outcome: str | None = None
    reason: str = ""

    @property
    def roster(self) -> tuple[str, ...]:
        """The silos of the plan, in its order; the first is the leader."""
        return self.plan.silos

    @property
    def num_rounds(self) -> int:
        """Secure sums of the job: the popularity's if any, the training's, the metrics' if any.

        Of a vertical job its legs, as far as they are known.
        """
        return num_legs(self.plan, self.spine_slots) if self.plan.is_vertical else len(self.shapes)

    @property
    def leg(self) -> Leg:
        """The current leg of a vertical job.

        Raises:
            ProtocolError: none has begun, or the job has no legs.
        """
        if not self.plan.is_vertical:
            raise ProtocolError("a job without legs")
        return leg_at(self.plan, self.round, self.spine_slots)

    @property
    def proposal(self) -> Proposal:
        """What the job began with."""
        return self.posts[Place(PostKind.PROPOSAL, 0, 0, self.proposer)].content(Proposal)

    @property
    def leader(self) -> str:
        """The silo that makes the job's keys."""
        return self.plan.silos[0]

    @property
    def present(self) -> tuple[str, ...]:
        """The silos that are not absent: who contributes to an attempt that begins now."""
        return tuple(silo for silo in self.roster if silo not in self.absent)

    @property
    def contributors(self) -> tuple[str, ...]:
        """The silos of the current attempt; outside a round those that are present."""
        return self.contributors_of(self.round, self.attempt) if self.phase in IN_ROUND else self.present

    @property
    def is_paused(self) -> bool:
        """Whether somebody asked for a pause that nobody has lifted: no further round begins."""
        return self.pauses % 2 == 1

    @property
    def absence_place(self) -> tuple[int, int]:
        """(round, attempt) of an absence declared now; at the job's end they are numbered by themselves."""
        if self.phase in IN_ROUND:
            return self.round, self.attempt
        return 0, 1 + sum(place.kind is PostKind.ABSENCE and place.round == 0 for place in self.posts)

    @property
    def pause_place(self) -> tuple[int, int]:
        """(round, attempt) of the next pause or resume: they are numbered, so none can be replayed."""
        return 0, self.pauses + 1

    def may_return(self, silo: str) -> bool:
        """Whether an absent silo may come back here; not once it was absent when the job was being closed."""
        has_been_here = self.post(PostKind.RETURN, silo, round=self.round, attempt=self.attempt)
        is_open = self.phase in (*IN_ROUND, Phase.PAUSED, Phase.CLOSING)
        return is_open and silo in self.absent and has_been_here is None

    def contributors_of(self, round: int, attempt: int) -> tuple[str, ...]:
        """The silos of one attempt, fixed when it began; none if it has not. Round 0 has the whole roster."""
        return self.roster if round == 0 else self.attempts.get((round, attempt), ())

    def post(self, kind: PostKind, sender: str, *, round: int = 0, attempt: int = 0) -> Envelope | None:
        """The post at a place, if it is there."""
        return self.posts.get(Place(kind, round, attempt, sender))

    def roster_posts(self, kind: PostKind, *, round: int = 0, attempt: int = 0) -> tuple[Envelope, ...]:
        """The posts of one kind by the silos of an attempt, in roster order, those that are there."""
        silos = self.contributors_of(round, attempt)
        found = (self.post(kind, silo, round=round, attempt=attempt) for silo in silos)
        return tuple(envelope for envelope in found if envelope is not None)

    def opened_attempt(self, round: int) -> int | None:
        """The attempt of ``round`` that all its contributors opened alike; None while there is none."""
        return self.opened[round - 1] if 0 < round <= len(self.opened) else None

    def opened_digests(self, round: int, attempt: int) -> dict[str, str]:
        """What each contributor signed for the integers it opened, its repair instead where there is one."""
        at = {"round": round, "attempt": attempt}
        posts = (*self.roster_posts(PostKind.OPENED, **at), *self.roster_posts(PostKind.REPAIRED, **at))
        return {post.sender: str(post.body["digest"]) for post in posts}

    def agreed_digest(self, round: int) -> str | None:
        """The one digest of an opened round, signed by all its contributors; None while there is none."""
        attempt = self.opened_attempt(round)
        return None if attempt is None else next(iter(self.opened_digests(round, attempt).values()))

    @property
    def given_up_by(self) -> dict[str, int]:
        """How many attempts each silo ended: it burned them, rejected their sum, or let them wait too long.

        What they cost is spent in every silo; who makes a habit of it spends the others' budgets.
        """
        count: Counter[str] = Counter()
        for place in self.posts:
            if place.kind in (PostKind.BURN, PostKind.FAILED):
                count[place.sender] += 1
            elif place.kind is PostKind.ABSENCE and place.round:
                count.update(self.posts[place].content(Absence).silos)
        return {silo: count[silo] for silo in self.roster if count[silo]}

    @property
    def odd_one(self) -> str | None:
        """The one of three or more contributors that opened other integers than all the others, who agree."""
        digests = self.opened_digests(self.round, self.attempt) if self.phase is Phase.OPENING else {}
        count = Counter(digests.values())
        if not 3 <= len(self.contributors) == len(digests) or sorted(count.values())[:-1] != [1]:
            return None
        return next(silo for silo, digest in digests.items() if count[digest] == 1)

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
