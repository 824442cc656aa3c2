"""Which post may stand where: everything that can be checked without a key.

Pure, and the same for coordinator, silos and clients. Signatures are checked before
(:func:`federation.messages.verify_envelope`), keyed proofs by the silos that hold the keys.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from federation.duties import owing
from federation.job_state import ENDING, IN_LEG, IN_ROUND, KINDS_OF_PHASE, JobState, Phase
from federation.legs.admission import check_leg_post
from federation.messages import (
    Absence,
    Acceptance,
    Denial,
    Ended,
    Envelope,
    Ephemeral,
    Fingerprint,
    Keys,
    LedgerHead,
    PostKind,
    Receipts,
    Repaired,
    Stream,
    Sum,
)
from privacy.errors import EquivocationError, ProtocolError

MAX_FRAME_BYTES = 70_000
"""Upper bound of one framed ciphertext, for either size of frame (privacy/encryption/frames.py)."""


MAX_PAUSES = 16
"""Pauses of one job by one party: whoever wants more can cancel it, and the board stays short."""

_OF_COORDINATOR = (PostKind.SUM, PostKind.ABSENCE, PostKind.RELAYED, PostKind.MATCHED, PostKind.ENDED)
_OF_EVERYBODY = (PostKind.CANCEL, PostKind.PAUSE, PostKind.RESUME)


class StalePostError(ProtocolError):
    """A post for a place that the job has left; its sender fetches the board and goes on from there."""

    code = "stale_post"


def check_post(state: JobState, envelope: Envelope) -> None:
    """Accept a post that the job does not have yet.

    Raises:
        EquivocationError: its sender has said the opposite here.
        StalePostError: the job has left that place, or has not come there.
        ProtocolError: the sender may not say this here.
    """
    _check_sender(state, envelope)
    _check_place(state, envelope)
    _check_alternative(state, envelope)
    _check_content(state, envelope)


def _check_sender(state: JobState, envelope: Envelope) -> None:
    kind, sender = envelope.kind, envelope.sender
    if kind in _OF_COORDINATOR:
        allowed = sender == state.coordinator
    elif kind in _OF_EVERYBODY:
        allowed = sender in state.roster or sender in (state.proposer, state.coordinator)
    elif kind is PostKind.KEYS:
        allowed = sender == state.leader
    else:
        allowed = sender in state.roster
    if not allowed:
        raise ProtocolError(f"{sender} may not post a {kind} in this job")


def _check_place(state: JobState, envelope: Envelope) -> None:
    kind = envelope.kind
    if state.phase is Phase.ENDED:
        raise StalePostError(f"the job has ended ({state.outcome}); a {kind} changes nothing")
    if state.close is not None and kind is not PostKind.ENDED:
        raise StalePostError(f"the job is being closed ({state.close.outcome}); a {kind} changes nothing")
    if (envelope.round, envelope.attempt) not in _places(state, kind):
        raise StalePostError(
            f"a {kind} for round {envelope.round}, attempt {envelope.attempt}, while the job is "
            f"{state.phase} at round {state.round}, attempt {state.attempt}"
        )
    takes_part = kind is PostKind.BURN or kind in KINDS_OF_PHASE[state.phase]
    if takes_part and kind not in _OF_COORDINATOR and envelope.sender not in state.contributors:
        raise StalePostError(
            f"{envelope.sender} does not take part in round {state.round}, attempt {state.attempt}",
            remedy="an absent silo returns first, and takes part from the next attempt on",
        )


def _places(state: JobState, kind: PostKind) -> tuple[tuple[int, int], ...]:
    """Where a post of that kind may stand now: at one place, or nowhere."""
    here = (state.round, state.attempt)
    match kind:
        case PostKind.CANCEL | PostKind.ENDED:
            return ((0, 0),)
        case PostKind.PAUSE | PostKind.RESUME:
            return (state.pause_place,)
        case PostKind.ABSENCE:
            return (state.absence_place,) if state.phase in (*IN_ROUND, *ENDING) else ()
        case PostKind.RETURN:
            return (here,) if state.phase in (*IN_ROUND, Phase.PAUSED, Phase.CLOSING) else ()
        case PostKind.BURN:
            return (here,) if state.phase in IN_ROUND and not state.plan.is_vertical else ()
        case _:
            due = here if state.phase in IN_ROUND else (0, 0)
            return (due,) if kind in KINDS_OF_PHASE[state.phase] else ()


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
    """What everybody can check without a key: the post speaks of this plan and these silos."""
    match envelope.kind:
        case PostKind.ACCEPTANCE:
            _same_plan(state, envelope.content(Acceptance).plan_sha256)
        case PostKind.DENIAL:
            _same_plan(state, envelope.content(Denial).plan_sha256)
        case PostKind.KEYS:
            _check_keys(state, envelope.content(Keys))
        case PostKind.FINGERPRINT:
            _check_peers(state, envelope.sender, envelope.content(Fingerprint).macs)
        case PostKind.RECEIPTS:
            _check_receipts(state, envelope)
        case PostKind.ENDED:
            _check_ended(state, envelope.content(Ended))
        case PostKind.PAUSE:
            _check_pause(state, envelope)
        case PostKind.RESUME if not state.is_paused:
            raise ProtocolError("the job is not paused")
        case _ if state.phase in IN_LEG:
            check_leg_post(state, envelope)
        case _:
            _check_round_post(state, envelope)


def _check_round_post(state: JobState, envelope: Envelope) -> None:
    match envelope.kind:
        case PostKind.EPHEMERAL:
            _check_ephemeral(state, envelope)
        case PostKind.STREAM:
            _check_stream(state, envelope.content(Stream))
        case PostKind.SUM:
            _check_sum(state, envelope.content(Sum))
        case PostKind.ABSENCE:
            _check_absence(state, envelope.content(Absence))
        case PostKind.RETURN if not state.may_return(envelope.sender):
            raise ProtocolError(f"{envelope.sender} is not absent, or has been back here before")
        case PostKind.REPAIRED:
            _check_repaired(state, envelope)


def _check_ephemeral(state: JobState, envelope: Envelope) -> None:
    ephemeral = envelope.content(Ephemeral)
    _same_plan(state, ephemeral.plan_sha256)
    if ephemeral.roster != state.contributors:
        raise ProtocolError("an ephemeral key for another roster")
    accepted = state.post(PostKind.ACCEPTANCE, envelope.sender)
    if accepted is None or accepted.content(Acceptance).policy_version != ephemeral.policy_version:
        raise ProtocolError("an ephemeral key under another policy than the acceptance")
    if state.posts.has_public_key(ephemeral.public_key):
        raise ProtocolError("an ephemeral key that this job has seen before: its masks would repeat")


def _check_keys(state: JobState, keys: Keys) -> None:
    _check_peers(state, state.leader, keys.wrapped)
    for wrapped in keys.wrapped.values():
        try:
            base64.b64decode(wrapped, validate=True)
        except binascii.Error as error:
            raise ProtocolError("wrapped keys that are not base64") from error


def _check_peers(state: JobState, sender: str, addressed: Mapping[str, object]) -> None:
    if set(addressed) != set(state.roster) - {sender}:
        raise ProtocolError("a post that does not speak to each other silo of the roster")


def _check_sum(state: JobState, total: Sum) -> None:
    streams = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
    if len(streams) != len(state.contributors):
        raise ProtocolError("a sum before every silo has contributed")
    if total.streams != {envelope.sender: envelope.body["sha256"] for envelope in streams}:
        raise ProtocolError("a sum over other streams than the signed ones")
    _check_stream(state, total)


def _check_absence(state: JobState, absence: Absence) -> None:
    """A coordinator chooses neither the moment nor whom: only silos that the job waits for, by its plan."""
    if state.plan.protection.round_minutes is None:
        raise ProtocolError("an absence in a job that waits for every silo")
    if absence.silos != tuple(silo for silo in state.contributors if silo in absence.silos):
        raise ProtocolError("an absence of silos that do not take part, or not in the roster's order")
    waited_for = owing(state)
    has_done = [silo for silo in absence.silos if silo not in waited_for]
    if has_done:
        raise ProtocolError(f"an absence of {', '.join(has_done)}, who did all that was due")


def _check_repaired(state: JobState, envelope: Envelope) -> None:
    if envelope.sender != state.odd_one:
        raise ProtocolError(f"{envelope.sender} has nothing to repair")
    others = state.opened_digests(state.round, state.attempt).items()
    agreed = next(digest for silo, digest in others if silo != envelope.sender)
    if envelope.content(Repaired).digest != agreed:
        raise ProtocolError("a repair that ends with other integers than everybody else's")


def _check_pause(state: JobState, envelope: Envelope) -> None:
    if state.is_paused:
        raise ProtocolError("the job is paused already")
    if state.round >= state.num_rounds:
        raise ProtocolError("the last round has begun; there is nothing left to pause before")
    mine = sum(place.kind is PostKind.PAUSE and place.sender == envelope.sender for place in state.posts)
    if mine >= MAX_PAUSES:
        raise ProtocolError(
            f"{envelope.sender} has paused this job {MAX_PAUSES} times; that is all",
            remedy="cancel the job, or let it run",
        )


def _check_receipts(state: JobState, envelope: Envelope) -> None:
    """Receipts are for exactly the heads that were posted: a silo absent at the end has none."""
    heads = {post.sender: post.content(LedgerHead) for post in state.roster_posts(PostKind.HEAD)}
    receipts = envelope.content(Receipts).receipts
    others = [silo for silo in state.roster if silo in heads and silo != envelope.sender]
    if sorted(receipt.silo for receipt in receipts) != sorted(others) or any(
        (receipt.seq, receipt.hash) != (heads[receipt.silo].seq, heads[receipt.silo].hash)
        for receipt in receipts
    ):
        raise ProtocolError("receipts for other ledger heads than the posted ones")


def _check_ended(state: JobState, ended: Ended) -> None:
    """Of itself the coordinator can only give up; what the posts decided it can only repeat."""
    if state.close is None:
        if ended.outcome not in {"failed", "expired"}:
            raise ProtocolError(f"the coordinator calls a job {ended.outcome} that nobody has decided")
    elif (ended.outcome, ended.reason) != (state.close.outcome, state.close.reason):
        raise ProtocolError(f"the job is {state.close.outcome}; the coordinator calls it {ended.outcome}")


def _check_stream(state: JobState, stream: Stream) -> None:
    num_frames = state.shapes[state.round - 1].layout.num_frames
    if stream.num_frames != num_frames:
        raise ProtocolError(f"a stream of {stream.num_frames} frames; this round has {num_frames}")
    if stream.num_bytes > num_frames * MAX_FRAME_BYTES:
        raise ProtocolError("a stream larger than its frames can be")


def _same_plan(state: JobState, plan_sha256: str) -> None:
    if plan_sha256 != state.plan_sha256:
        raise ProtocolError("a post for another plan than the proposed one")
