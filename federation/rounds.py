"""The life of a job as a pure function of its signed posts.

``advance(state, envelope)`` accepts a post or raises; ``pending(state)`` says what the coordinator has to do
next and ``duty(state, silo)`` what a silo has to do next; both read the state alone, so a restart finds them.
Coordinator, agents and clients fold the same posts through the same function, so nobody has to believe
anybody's summary. No clock, no file, no network here.

::

    PROPOSED ─ all accept ─> STARTING ─ ephemerals ─> KEYING ─ wrapped secret ─> FINGERPRINTING
      └> a round: EXCHANGING ─ ephemerals ─> COLLECTING ─ streams, sum ─> RECEIVING ─ keyed hashes ─> OPENING
           ├─ all opened alike ─> next round, after the last CLOSING ─ heads ─> WITNESSING ─ receipts ─> ENDED
           └─ one failed, or burned ─> EXCHANGING with the next attempt, or the end

A metrics round that is burned is not repeated: its noise was paid for once. The job closes without metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType

from federation.admission import StalePostError, check_post
from federation.job_state import IN_ROUND, KINDS_OF_PHASE, Close, JobState, Phase, SumStreams
from federation.messages import MAX_REASON_CHARS, Ended, Envelope, PostKind, plan_of, proposal_id
from policies.canonical import digest
from policies.price import schedule
from privacy.errors import EquivocationError, ProtocolError

__all__ = [
    "Close",
    "Duty",
    "JobState",
    "Phase",
    "StalePostError",
    "SumStreams",
    "advance",
    "duty",
    "fold",
    "pending",
    "propose",
]

Action = SumStreams | Close


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
        shapes=schedule(plan),
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
    check_post(state, envelope)
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
    at = {"round": state.round, "attempt": state.attempt} if state.phase in IN_ROUND else {}
    kinds = [kind for kind in KINDS_OF_PHASE[state.phase] if kind is not PostKind.SUM]
    posted = [e for kind in kinds for e in state.roster_posts(kind, **at)]
    if len(posted) < len(state.roster):
        return state
    match state.phase:
        case Phase.PROPOSED:
            denials = [e.sender for e in posted if e.kind is PostKind.DENIAL]
            if denials:
                return replace(state, close=Close("denied", _cut(f"refused by {', '.join(denials)}")))
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
    if state.round == len(state.shapes):
        return replace(state, phase=Phase.CLOSING)
    return replace(state, phase=Phase.EXCHANGING, round=state.round + 1, attempt=1)


def _burn(state: JobState, reason: str) -> JobState:
    burned = replace(state, burned=state.burned + 1)
    if state.shapes[state.round - 1].purpose == "metrics":
        return replace(burned, phase=Phase.CLOSING)
    allowed = state.plan.training.max_burned_rounds
    if burned.burned > allowed:
        return replace(
            burned, close=Close("failed", f"{reason}, and the plan pays for {allowed} burned rounds")
        )
    return replace(burned, phase=Phase.EXCHANGING, attempt=state.attempt + 1)


def _cut(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_CHARS else reason[: MAX_REASON_CHARS - 1] + "…"


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
    at = {"round": state.round, "attempt": state.attempt} if state.phase in IN_ROUND else {}
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
