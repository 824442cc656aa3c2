"""What a silo owes its job next: read off the state, so that a restart finds it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from federation.job_state import IN_LEG, IN_ROUND, JobState, Phase
from federation.messages import PostKind


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
    REPAIR = "repair"
    RETURN = "return"
    SEND = "send"
    APPROVE = "approve"
    FETCH = "fetch"
    HEAD = "head"
    RECEIPTS = "receipts"
    FINISH = "finish"


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
    if state.phase is Phase.ENDED:
        return Duty.FINISH
    if silo in state.absent:
        return Duty.RETURN if state.may_return(silo) else None
    if silo not in state.contributors:
        return None
    at = {"round": state.round, "attempt": state.attempt} if state.phase in IN_ROUND else {}
    match state.phase:
        case Phase.PROPOSED:
            answered = state.post(PostKind.ACCEPTANCE, silo) or state.post(PostKind.DENIAL, silo)
            return None if answered else Duty.ANSWER
        case Phase.KEYING:
            return Duty.WRAP if silo == state.leader else None
        case Phase.PAUSED:
            return None
        case Phase.COLLECTING:
            return Duty.UPLOAD if state.post(PostKind.STREAM, silo, **at) else Duty.PROTECT
        case phase if phase in IN_LEG:
            return _leg_duty(state, silo, **at)
        case Phase.OPENING:
            answered = state.post(PostKind.OPENED, silo, **at) or state.post(PostKind.FAILED, silo, **at)
            if answered:
                return Duty.REPAIR if state.odd_one == silo else None
            return Duty.OPEN
        case phase:
            kind, due = _DUTY[phase]
            return None if state.post(kind, silo, **at) else due


def _leg_duty(state: JobState, silo: str, **at: int) -> Duty | None:
    if state.phase is Phase.APPROVING:
        return None if state.post(PostKind.APPROVAL, silo, **at) else Duty.APPROVE
    if state.phase is Phase.FETCHING:
        is_due = silo in state.leg.readers and state.post(PostKind.RECEIVED, silo, **at) is None
        return Duty.FETCH if is_due else None
    if silo not in state.leg.senders:
        return None
    return Duty.UPLOAD if state.post(PostKind.STREAM, silo, **at) else Duty.SEND


def owing(state: JobState) -> tuple[str, ...]:
    """The silos that the phase waits for, in roster order: who has a duty, absent silos excepted.

    While streams are collected these are all contributors, or all senders of a leg: whether announced bytes
    have come is not on the board, only the coordinator knows it.
    """
    if state.phase is Phase.ENDED:
        return ()
    return tuple(silo for silo in state.contributors if duty(state, silo) is not None)
