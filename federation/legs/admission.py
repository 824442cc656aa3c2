"""Which posts may stand in a leg of a vertical job; everything that can be checked without a key."""

from __future__ import annotations

from federation.job_state import JobState
from federation.legs.legs import LegPurpose, alignment_of, leg_at
from federation.messages import Envelope, Matched, PostKind, Relayed, Stream
from privacy.errors import ProtocolError


def check_leg_post(state: JobState, envelope: Envelope) -> None:
    """Accept a post of the current leg, whose place and kind fit.

    Raises:
        ProtocolError: the sender may not say this in this leg.
    """
    match envelope.kind:
        case PostKind.STREAM:
            _check_parcel(state, envelope.sender, envelope.content(Stream))
        case PostKind.RELAYED:
            _check_relayed(state, envelope.content(Relayed))
        case PostKind.MATCHED:
            _check_matched(state, envelope.content(Matched))
        case PostKind.RECEIVED if envelope.sender not in state.leg.readers:
            raise ProtocolError(f"{envelope.sender} receives nothing in {state.leg.in_words}")
        case PostKind.RECEIVED | PostKind.APPROVAL | PostKind.CANCEL | PostKind.ENDED:
            pass
        case kind:
            raise ProtocolError(f"a {kind} in a job whose every silo is needed; nobody is absent in it")


def _check_parcel(state: JobState, sender: str, stream: Stream) -> None:
    leg = state.leg
    if sender not in leg.senders:
        raise ProtocolError(f"{sender} sends nothing in {leg.in_words}")
    parcel = leg.parcels[sender]
    if stream.num_frames != parcel.records:
        raise ProtocolError(f"{stream.num_frames} records; {leg.in_words} of {sender} has {parcel.records}")
    if stream.num_bytes > parcel.max_bytes:
        raise ProtocolError(f"{stream.num_bytes} bytes; {leg.in_words} has at most {parcel.max_bytes}")


def _check_relayed(state: JobState, relayed: Relayed) -> None:
    if state.leg.purpose is LegPurpose.BLINDED:
        raise ProtocolError("blinded lists are matched; the coordinator gives them to nobody")
    _check_streams(state, relayed.streams)


def _check_matched(state: JobState, matched: Matched) -> None:
    if state.leg.purpose is not LegPurpose.BLINDED:
        raise ProtocolError(f"people are matched once, not in {state.leg.in_words}")
    _check_streams(state, matched.streams)
    terms = alignment_of(state.plan)
    if terms.reveal == "none" and matched.spine_slots != terms.spine_slots:
        raise ProtocolError(f"a spine of {matched.spine_slots} slots; the plan has {terms.spine_slots}")
    if terms.reveal == "both" and matched.spine_slots > min(terms.capacities.values()):
        raise ProtocolError(f"a spine of {matched.spine_slots} slots for people whom every list holds")
    if set(matched.slots) != set(state.roster):
        raise ProtocolError("slots for other silos than the roster")
    slots = leg_at(state.plan, state.round + 1)
    for silo, file in matched.slots.items():
        limit = slots.parcels[silo].max_bytes
        if file.num_bytes > limit:
            raise ProtocolError(f"a slot file of {file.num_bytes} bytes; {silo}'s has at most {limit}")


def _check_streams(state: JobState, named: dict[str, str]) -> None:
    posts = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
    if len(posts) != len(state.leg.senders):
        raise ProtocolError("the coordinator goes on before every sender has announced its bytes")
    if named != {post.sender: post.body["sha256"] for post in posts}:
        raise ProtocolError("the coordinator names other bytes than the signed ones")
