"""The life of a job as a pure function of its signed posts.

``advance(state, envelope)`` accepts a post or raises; ``pending(state)`` says what the coordinator has to do
next and ``duty(state, silo)`` what a silo has to do next; both read the state alone, so a restart finds them. Coordinator, agents and clients fold the same posts
through the same function, so nobody has to believe anybody's summary. No clock, no file, no network here.

::

    PROPOSED ─ all accept ─> STARTING ─ ephemerals ─> KEYING ─ wrapped secret ─> FINGERPRINTING
      └> a round: EXCHANGING ─ ephemerals ─> COLLECTING ─ streams, sum ─> RECEIVING ─ keyed hashes ─> OPENING
           ├─ all opened alike ─> next round, after the last CLOSING ─ heads ─> WITNESSING ─ receipts ─> ENDED
           └─ one failed, or burned ─> EXCHANGING with the next attempt, or the end
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from federation.messages import (
    Acceptance,
    Ended,
    Envelope,
    Ephemeral,
    Place,
    PostKind,
    Stream,
    Sum,
    plan_of,
    proposal_id,
)
from policies.canonical import digest
from policies.plan import Plan
from policies.price import schedule
from privacy.errors import EquivocationError, ProtocolError

MAX_FRAME_BYTES = 70_000
"""Upper bound of one framed ciphertext, for either size of frame (privacy/encryption/frames.py)."""


class StalePostError(ProtocolError):
    """A post for a place that the job has left; its sender fetches the board and goes on from there."""

    code = "stale_post"


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


class Duty(StrEnum):
    """What a silo has to do next."""

    ANSWER = "answer"
    START = "start"
    WRAP = "wrap"
    FINGERPRINT = "fingerprint"
    CONTRIBUTE = "contribute"
    PROTECT = "protect"
    UPLOAD = "upload"
    RECEIVE = "receive"
    OPEN = "open"
    HEAD = "head"
    RECEIPTS = "receipts"
    FINISH = "finish"


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


Action = SumStreams | Close

_IN_ROUND = (Phase.EXCHANGING, Phase.COLLECTING, Phase.RECEIVING, Phase.OPENING)
_OF_PHASE: Mapping[Phase, tuple[PostKind, ...]] = {
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
    num_rounds: int
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
    def leader(self) -> str:
        """The silo that makes the job's keys."""
        return self.plan.silos[0]

    def post(self, kind: PostKind, sender: str, *, round: int = 0, attempt: int = 0) -> Envelope | None:  # noqa: A002
        """The post at a place, if it is there."""
        return self.posts.get(Place(kind, round, attempt, sender))

    def roster_posts(self, kind: PostKind, *, round: int = 0, attempt: int = 0) -> tuple[Envelope, ...]:  # noqa: A002
        """The posts of one kind by the roster's silos, in roster order, those that are there."""
        found = (self.post(kind, silo, round=round, attempt=attempt) for silo in self.roster)
        return tuple(envelope for envelope in found if envelope is not None)

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

    def transcript(self, round: int, attempt: int) -> bytes:  # noqa: A002
        """SHA-256 over plan, place and every signed ephemeral of (round, attempt): salt of its pair keys."""
        hashed = hashlib.sha256(bytes.fromhex(self.plan_sha256) + round.to_bytes(4, "big"))
        hashed.update(attempt.to_bytes(4, "big"))
        for envelope in self.roster_posts(PostKind.EPHEMERAL, round=round, attempt=attempt):
            hashed.update(hashlib.sha256(envelope.to_bytes()).digest())
        return hashed.digest()


def propose(proposal: Envelope, coordinator: str) -> JobState:
    """A new job from its signed proposal.

    Raises:
        ProtocolError: not a proposal, or its plan is invalid.
    """
    if proposal.kind is not PostKind.PROPOSAL or proposal.job or proposal.round or proposal.attempt:
        raise ProtocolError("a job begins with a proposal")
    plan = plan_of(proposal)
    return JobState(
        job=proposal_id(proposal),
        proposer=proposal.sender,
        coordinator=coordinator,
        plan=plan,
        plan_sha256=digest(plan),
        num_rounds=len(schedule(plan)),
        posts=MappingProxyType({proposal.place: proposal}),
    )


def advance(state: JobState, envelope: Envelope) -> JobState:
    """Accept one post whose signature has been verified.

    Raises:
        EquivocationError: the place holds other bytes.
        StalePostError: the job has left that place.
        ProtocolError: the sender may not say this here.
    """
    if envelope.job != state.job:
        raise ProtocolError("a post of another job", remedy="it was replayed; nothing was changed")
    known = state.posts.get(envelope.place)
    if known is not None:
        if known != envelope:
            raise EquivocationError(f"{envelope.sender} has already said another {envelope.kind} here")
        return state
    _check_sender(state, envelope)
    _check_place(state, envelope)
    _check_alternative(state, envelope)
    _check_content(state, envelope)
    posted = replace(state, posts=MappingProxyType({**state.posts, envelope.place: envelope}))
    return _transition(posted, envelope)


def pending(state: JobState) -> Action | None:
    """What the coordinator owes the job: the sum once every stream is announced, or the end."""
    if state.phase is Phase.ENDED:
        return None
    if state.close is not None:
        return state.close
    at = {"round": state.round, "attempt": state.attempt}
    if state.phase is Phase.COLLECTING and len(state.roster_posts(PostKind.STREAM, **at)) == len(
        state.roster
    ):
        return SumStreams(**at)
    return None


def fold(posts: list[Envelope], coordinator: str) -> JobState:
    """The state after a job's posts, proposal first."""
    state = propose(posts[0], coordinator)
    for envelope in posts[1:]:
        state = advance(state, envelope)
    return state


def _check_sender(state: JobState, envelope: Envelope) -> None:
    kind, sender = envelope.kind, envelope.sender
    if kind in (PostKind.SUM, PostKind.ENDED):
        allowed = sender == state.coordinator
    elif kind is PostKind.CANCEL:
        allowed = sender in state.roster or sender in (state.proposer, state.coordinator)
    elif kind is PostKind.KEYS:
        allowed = sender == state.leader
    else:
        allowed = sender in state.roster
    if not allowed:
        raise ProtocolError(f"{sender} may not post a {kind} in this job")


def _check_place(state: JobState, envelope: Envelope) -> None:
    kind = envelope.kind
    if state.close is not None and kind is not PostKind.ENDED:
        raise StalePostError(f"the job is being closed ({state.close.outcome}); a {kind} changes nothing")
    if state.phase is Phase.ENDED:
        raise StalePostError(f"the job has ended ({state.outcome}); a {kind} changes nothing")
    if kind in (PostKind.CANCEL, PostKind.ENDED):
        here = envelope.round == 0 and envelope.attempt == 0
    elif kind is PostKind.BURN:
        here = state.phase in _IN_ROUND and (envelope.round, envelope.attempt) == (state.round, state.attempt)
    else:
        due = (state.round, state.attempt) if state.phase in _IN_ROUND else (0, 0)
        here = kind in _OF_PHASE[state.phase] and (envelope.round, envelope.attempt) == due
    if not here:
        raise StalePostError(
            f"a {kind} for round {envelope.round}, attempt {envelope.attempt}, while the job is "
            f"{state.phase} at round {state.round}, attempt {state.attempt}"
        )


_ALTERNATIVE = {
    PostKind.ACCEPTANCE: PostKind.DENIAL,
    PostKind.DENIAL: PostKind.ACCEPTANCE,
    PostKind.OPENED: PostKind.FAILED,
    PostKind.FAILED: PostKind.OPENED,
}


def _check_alternative(state: JobState, envelope: Envelope) -> None:
    other = _ALTERNATIVE.get(envelope.kind)
    if other and state.posts.get(envelope.place._replace(kind=other)):
        raise EquivocationError(f"{envelope.sender} has already posted a {other} here")


def _check_content(state: JobState, envelope: Envelope) -> None:
    """What everybody can check without a key: the post speaks of this plan and this roster."""
    if envelope.kind is PostKind.ACCEPTANCE:
        _same_plan(state, envelope.content(Acceptance).plan_sha256)
    elif envelope.kind is PostKind.EPHEMERAL:
        ephemeral = envelope.content(Ephemeral)
        _same_plan(state, ephemeral.plan_sha256)
        if ephemeral.roster != state.roster:
            raise ProtocolError("an ephemeral key for another roster")
        accepted = state.post(PostKind.ACCEPTANCE, envelope.sender)
        if accepted is None or accepted.content(Acceptance).policy_version != ephemeral.policy_version:
            raise ProtocolError("an ephemeral key under another policy than the acceptance")
    elif envelope.kind is PostKind.STREAM:
        _check_stream(state, envelope.content(Stream))
    elif envelope.kind is PostKind.SUM:
        streams = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
        if envelope.content(Sum).streams != {e.sender: e.body["sha256"] for e in streams}:
            raise ProtocolError("a sum over other streams than the signed ones")
        if len(streams) != len(state.roster):
            raise ProtocolError("a sum before every silo has contributed")


def _check_stream(state: JobState, stream: Stream) -> None:
    num_frames = schedule(state.plan)[state.round - 1].layout.num_frames
    if stream.num_frames != num_frames:
        raise ProtocolError(f"a stream of {stream.num_frames} frames; this round has {num_frames}")
    if stream.num_bytes > num_frames * MAX_FRAME_BYTES:
        raise ProtocolError("a stream larger than its frames can be")


def _same_plan(state: JobState, plan_sha256: str) -> None:
    if plan_sha256 != state.plan_sha256:
        raise ProtocolError("a post for another plan than the proposed one")


def _transition(state: JobState, envelope: Envelope) -> JobState:
    match envelope.kind:
        case PostKind.ENDED:
            ended = envelope.content(Ended)
            return replace(state, phase=Phase.ENDED, outcome=ended.outcome, reason=ended.reason)
        case PostKind.CANCEL:
            return replace(state, close=Close("cancelled", f"cancelled by {envelope.sender}"))
        case PostKind.BURN:
            return _burn(state, f"{envelope.sender} could not finish the attempt")
        case PostKind.KEYS:
            return replace(state, phase=Phase.FINGERPRINTING)
        case PostKind.SUM:
            return replace(state, phase=Phase.RECEIVING)
    return _when_complete(state)


def _when_complete(state: JobState) -> JobState:
    """Move on when the whole roster has posted what the phase asks for."""
    at = {"round": state.round, "attempt": state.attempt} if state.phase in _IN_ROUND else {}
    kinds = [kind for kind in _OF_PHASE[state.phase] if kind is not PostKind.SUM]
    posted = [e for kind in kinds for e in state.roster_posts(kind, **at)]
    if len(posted) < len(state.roster):
        return state
    match state.phase:
        case Phase.PROPOSED:
            denials = [e.sender for e in posted if e.kind is PostKind.DENIAL]
            if denials:
                return replace(state, close=Close("denied", f"refused by {', '.join(denials)}"))
            return replace(state, phase=Phase.STARTING)
        case Phase.STARTING:
            return replace(state, phase=Phase.KEYING)
        case Phase.FINGERPRINTING:
            return replace(state, phase=Phase.EXCHANGING, round=1, attempt=1)
        case Phase.EXCHANGING:
            return replace(state, phase=Phase.COLLECTING)
        case Phase.COLLECTING:
            return state  # the coordinator's sum moves it on
        case Phase.RECEIVING:
            return replace(state, phase=Phase.OPENING)
        case Phase.OPENING:
            return _opened(state, posted)
        case Phase.CLOSING:
            return replace(state, phase=Phase.WITNESSING)
        case _:
            return replace(
                state, close=Close("completed", "every round was opened and every ledger head countersigned")
            )


def _opened(state: JobState, posted: list[Envelope]) -> JobState:
    if any(envelope.kind is PostKind.FAILED for envelope in posted):
        failed = replace(state, failed_opens=state.failed_opens + 1)
        if failed.failed_opens >= state.plan.protection.max_failed_opens:
            return replace(failed, close=Close("failed", "a sum was rejected too often"))
        return _burn(failed, "a sum was rejected")
    if len({envelope.body["digest"] for envelope in posted}) > 1:
        return replace(state, close=Close("failed", "the silos opened different sums"))
    if state.round == state.num_rounds:
        return replace(state, phase=Phase.CLOSING)
    return replace(state, phase=Phase.EXCHANGING, round=state.round + 1, attempt=1)


def _burn(state: JobState, reason: str) -> JobState:
    burned = replace(state, burned=state.burned + 1)
    allowed = state.plan.training.max_burned_rounds
    if burned.burned > allowed:
        return replace(
            burned, close=Close("failed", f"{reason}, and the plan pays for {allowed} burned rounds")
        )
    return replace(burned, phase=Phase.EXCHANGING, attempt=state.attempt + 1)


_DUTY: Mapping[Phase, tuple[PostKind, Duty]] = {
    Phase.STARTING: (PostKind.EPHEMERAL, Duty.START),
    Phase.FINGERPRINTING: (PostKind.FINGERPRINT, Duty.FINGERPRINT),
    Phase.EXCHANGING: (PostKind.EPHEMERAL, Duty.CONTRIBUTE),
    Phase.RECEIVING: (PostKind.RECEIVED, Duty.RECEIVE),
    Phase.CLOSING: (PostKind.HEAD, Duty.HEAD),
    Phase.WITNESSING: (PostKind.RECEIPTS, Duty.RECEIPTS),
}


def duty(state: JobState, silo: str) -> Duty | None:
    """What ``silo`` has to do now, or nothing."""
    if silo not in state.roster or (state.close is not None and state.phase is not Phase.ENDED):
        return None
    at = {"round": state.round, "attempt": state.attempt} if state.phase in _IN_ROUND else {}
    match state.phase:
        case Phase.ENDED:
            return Duty.FINISH
        case Phase.PROPOSED:
            answered = state.post(PostKind.ACCEPTANCE, silo) or state.post(PostKind.DENIAL, silo)
            return None if answered else Duty.ANSWER
        case Phase.KEYING:
            return Duty.WRAP if silo == state.leader else None
        case Phase.COLLECTING:
            return Duty.UPLOAD if state.post(PostKind.STREAM, silo, **at) else Duty.PROTECT
        case Phase.OPENING:
            answered = state.post(PostKind.OPENED, silo, **at) or state.post(PostKind.FAILED, silo, **at)
            return None if answered else Duty.OPEN
        case phase:
            kind, due = _DUTY[phase]
            return None if state.post(kind, silo, **at) else due
