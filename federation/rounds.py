"""The life of a job as a pure function of its signed posts.

``advance(state, envelope)`` accepts a post or raises; ``pending(state)`` says what the coordinator has to do
next and ``duty(state, silo)`` what a silo has to do next; both read the state alone, so a restart finds them.
Coordinator, agents and clients fold the same posts through the same function, so nobody has to believe
anybody's summary. No clock, no file, no network here.

::

    PROPOSED ─ all accept ─> STARTING ─ ephemerals ─> KEYING ─ wrapped secret ─> FINGERPRINTING
      └> a round: EXCHANGING ─ ephemerals ─> COLLECTING ─ streams, sum ─> RECEIVING ─ keyed hashes ─> OPENING
           ├─ all opened alike ─> next round, after the last CLOSING ─ heads ─> WITNESSING ─ receipts ─> ENDED
           │    └─ one of three or more differs ─> it repairs itself, then as if all had opened alike
           └─ one failed, burned or absent ─> EXCHANGING with the next attempt, or the end

    of a vertical plan, instead of rounds, each leg (:mod:`federation.legs.legs`):
      └> SENDING ─ streams, then RELAYED ─> FETCHING ─ keyed hashes ─> next leg, after the last CLOSING
           └─ the blinded lists, then MATCHED ─> APPROVING ─ all say yes ─> FETCHING the slots
                └─ the end: too few in common        └─ the end: one says no

A round is between contributors: the silos that were present when its attempt began. An absence burns the
attempt; the next one begins without the absent silos, and with those that have returned, never with fewer
than the plan's fewest contributors. A pause that somebody asked for takes effect between two rounds.

A metrics round that is burned is not repeated: its noise was paid for once. The job closes without metrics.
The popularity that a trained model starts from is repeated once at most, for the same reason.
A leg knows neither attempts nor absences: every role is needed, so whoever leaves stops the job there.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from federation.admission import StalePostError, check_post
from federation.duties import Duty, duty, owing
from federation.job_state import IN_ROUND, Close, JobState, Match, Phase, Relay, SumStreams
from federation.legs.legs import LegPurpose
from federation.messages import (
    MAX_REASON_CHARS,
    Absence,
    Approval,
    Ended,
    Envelope,
    Matched,
    PostKind,
    plan_of,
    proposal_id,
)
from federation.posts import Posts
from policies.canonical import digest
from policies.plans.price import schedule
from privacy.errors import EquivocationError, ProtocolError

__all__ = [
    "Close",
    "Duty",
    "JobState",
    "Match",
    "Phase",
    "Relay",
    "StalePostError",
    "SumStreams",
    "advance",
    "duty",
    "fold",
    "owing",
    "pending",
    "propose",
    "without",
]

Action = SumStreams | Relay | Match | Close


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
        posts=Posts().adding(proposal),
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
    posted = replace(state, posts=state.posts.adding(envelope))
    return _transition(posted, envelope)


def pending(state: JobState) -> Action | None:
    """What the coordinator owes: a sum or a step of a leg once all streams are announced, or the end."""
    if state.phase is Phase.ENDED:
        return None
    if state.close is not None:
        return state.close
    at = {"round": state.round, "attempt": state.attempt}
    if state.phase is Phase.COLLECTING and len(state.roster_posts(PostKind.STREAM, **at)) == len(
        state.contributors
    ):
        return SumStreams(**at)
    if state.phase is Phase.SENDING and len(state.roster_posts(PostKind.STREAM, **at)) == len(
        state.leg.senders
    ):
        return (Match if state.leg.purpose is LegPurpose.BLINDED else Relay)(state.round)
    return None


def fold(posts: list[Envelope], coordinator: str) -> JobState:
    """The state after a job's posts, proposal first."""
    state = propose(posts[0], coordinator)
    for envelope in posts[1:]:
        state = advance(state, envelope)
    return state


def without(state: JobState, silos: tuple[str, ...]) -> JobState:
    """What becomes of a job whose coordinator declares silos absent that it waits for.

    It goes on while enough are left; in a round that burns the attempt.
    """
    rest = replace(state, absent=state.absent | set(silos))
    who, fewest = ", ".join(silos), state.plan.fewest_contributors
    if len(rest.present) < fewest:
        reason = f"{len(rest.present)} silos are left where {fewest} are needed; absent: {who}"
        return replace(rest, close=Close("failed", _cut(reason)))
    if state.phase in IN_ROUND:
        return _burn(rest, f"without {who}")
    return _when_complete(rest)


def _transition(state: JobState, envelope: Envelope) -> JobState:
    match envelope.kind:
        case PostKind.ENDED:
            ended = envelope.content(Ended)
            return replace(state, phase=Phase.ENDED, outcome=ended.outcome, reason=ended.reason)
        case PostKind.CANCEL:
            return replace(state, close=Close("cancelled", f"cancelled by {envelope.sender}"))
        case PostKind.PAUSE:
            return replace(state, pauses=state.pauses + 1)
        case PostKind.RESUME:
            resumed = replace(state, pauses=state.pauses + 1)
            return _begin(resumed, state.round, 1) if state.phase is Phase.PAUSED else resumed
        case PostKind.ABSENCE:
            return without(state, envelope.content(Absence).silos)
        case PostKind.RETURN:
            return replace(state, absent=state.absent - {envelope.sender})
        case PostKind.BURN:
            return _burn(state, f"{envelope.sender} could not finish the attempt")
        case PostKind.KEYS:
            return replace(state, phase=Phase.FINGERPRINTING)
        case PostKind.SUM:
            return replace(state, phase=Phase.RECEIVING)
        case PostKind.RELAYED:
            return replace(state, phase=Phase.FETCHING)
        case PostKind.MATCHED:
            return _matched(state, envelope.content(Matched))
        case PostKind.APPROVAL if not envelope.content(Approval).approved:
            return replace(state, close=Close("denied", f"{envelope.sender} does not approve the alignment"))
    return _when_complete(state)


def _when_complete(state: JobState) -> JobState:
    """Move on when everybody whom the phase waits for has posted what it asks for."""
    if owing(state):
        return state
    match state.phase:
        case Phase.PROPOSED:
            denials = [envelope.sender for envelope in state.roster_posts(PostKind.DENIAL)]
            if denials:
                return replace(state, close=Close("denied", _cut(f"refused by {', '.join(denials)}")))
            return replace(state, phase=Phase.STARTING)
        case Phase.STARTING:
            return replace(state, phase=Phase.KEYING)
        case Phase.FINGERPRINTING:
            return _begin(state, 1, 1)
        case Phase.EXCHANGING:
            return replace(state, phase=Phase.COLLECTING)
        case Phase.RECEIVING:
            return replace(state, phase=Phase.OPENING)
        case Phase.OPENING:
            return _opened(state)
        case Phase.APPROVING:
            return replace(state, phase=Phase.FETCHING)
        case Phase.FETCHING:
            return _next_round(state, 1)
        case Phase.CLOSING:
            return replace(state, phase=Phase.WITNESSING)
        case _:
            what = "leg was received" if state.plan.is_vertical else "round was opened"
            reason = f"every {what} and every ledger head countersigned"
            return replace(state, close=Close("completed", reason))


def _begin(state: JobState, round: int, attempt: int) -> JobState:
    """Begin an attempt, or a leg, with the silos that are present; before a round a pause takes effect."""
    here = replace(state, round=round, attempt=attempt)
    if state.is_paused and attempt == 1:
        return replace(here, phase=Phase.PAUSED)
    attempts = MappingProxyType({**state.attempts, (round, attempt): state.present})
    first = Phase.SENDING if state.plan.is_vertical else Phase.EXCHANGING
    return replace(here, phase=first, attempts=attempts)


def _opened(state: JobState) -> JobState:
    at = {"round": state.round, "attempt": state.attempt}
    if state.roster_posts(PostKind.FAILED, **at):
        failed = replace(state, failed_opens=state.failed_opens + 1)
        if failed.failed_opens >= state.plan.protection.max_failed_opens:
            return replace(failed, close=Close("failed", "a sum was rejected too often"))
        return _burn(failed, "a sum was rejected")
    if len(set(state.opened_digests(**at).values())) > 1:
        return replace(state, close=Close("failed", "the silos opened different sums"))
    return _next_round(state, state.attempt)


def _next_round(state: JobState, attempt: int) -> JobState:
    """After a round that was opened, or a leg that all its readers have received."""
    opened = replace(state, opened=(*state.opened, attempt))
    if state.round == state.num_rounds:
        return replace(opened, phase=Phase.CLOSING)
    return _begin(opened, state.round + 1, 1)


def _matched(state: JobState, matched: Matched) -> JobState:
    """The slots are here already: all approve, then fetch them; a pause waits until that is over."""
    at = state.round + 1
    return replace(
        state,
        phase=Phase.APPROVING,
        round=at,
        opened=(*state.opened, 1),
        spine_slots=matched.spine_slots,
        attempts=MappingProxyType({**state.attempts, (at, 1): state.present}),
    )


def _burn(state: JobState, reason: str) -> JobState:
    burned = replace(state, burned=state.burned + 1)
    purpose, allowed = state.shapes[state.round - 1].purpose, state.plan.training.max_burned_rounds
    if purpose == "metrics":
        return replace(burned, phase=Phase.CLOSING)
    if burned.burned > allowed:
        reason = f"{reason}, and the plan pays for {allowed} burned rounds"
        return replace(burned, close=Close("failed", _cut(reason)))
    if purpose == "popularity" and state.attempt > 1:
        reason = f"{reason}, and the plan pays for the popularity twice at most"
        return replace(burned, close=Close("failed", _cut(reason)))
    return _begin(burned, state.round, state.attempt + 1)


def _cut(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_CHARS else reason[: MAX_REASON_CHARS - 1] + "…"
