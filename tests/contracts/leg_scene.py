"""A vertical roster that says whatever its job asks for next, signed, without doing the work behind it."""

from __future__ import annotations

import functools
import os
from typing import Any

from federation.job_state import Match, Phase, Relay
from federation.messages import (
    Approval,
    Body,
    Envelope,
    Matched,
    PostKind,
    Received,
    Relayed,
    SlotFile,
    Stream,
)
from federation.rounds import Duty, JobState, advance, pending
from policies.plans.plan import Plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from tests.contracts.board_scene import HEX, HUB, NAMES, Scene

CAPACITIES = {"a": 200, "b": 150, "c": 100}


def leg_draft(*, reveal: Any = "none", capacities: tuple[int, ...] = (200, 150, 100)) -> VerticalDraft:
    names = NAMES[: len(capacities)]
    return VerticalDraft(
        label=names[0],
        features=dict.fromkeys(names[1:], "user"),
        catalogue_sha256=HEX,
        catalogue_items=20,
        target_epsilon=4.0,
        target_delta=1e-6,
        capacities=dict(zip(names, capacities, strict=True)),
        min_intersection=20,
        reveal=reveal,
    )


@functools.cache
def leg_plan(**changes: Any) -> Plan:
    return complete_vertical_plan(leg_draft(**changes))


@functools.cache
def encoder_plan(**changes: Any) -> Plan:
    return complete_encoder_plan(leg_draft(**changes), EncoderDraft())


class LegScene(Scene):
    def _body_in_round(self, state: JobState, silo: str, due: Duty) -> Body | None:
        match due:
            case Duty.SEND:
                return self.parcel(state, silo)
            case Duty.APPROVE:
                return Approval(approved=True)
            case Duty.FETCH:
                return Received(mac=HEX)
            case _:
                return None

    def parcel(self, state: JobState, silo: str, **changes: Any) -> Stream:
        records = state.leg.parcels[silo].records
        made = {"sha256": os.urandom(32).hex(), "num_bytes": 1000, "num_frames": records}
        return Stream.model_validate({**made, **changes})

    def here(self, state: JobState, body: Body, sender: str) -> Envelope:
        return self.sealed(body, sender, at=(state.round, state.attempt))

    def streams(self, state: JobState) -> dict[str, str]:
        posts = state.roster_posts(PostKind.STREAM, round=state.round, attempt=state.attempt)
        return {post.sender: str(post.body["sha256"]) for post in posts}

    def relayed(self, state: JobState, sender: str = HUB) -> Envelope:
        return self.here(state, Relayed(streams=self.streams(state)), sender)

    def matched(self, state: JobState, sender: str = HUB, **changes: Any) -> Envelope:
        slots = {silo: SlotFile(sha256=HEX, num_bytes=100) for silo in state.roster}
        spine = state.plan.alignment.spine_slots if state.plan.alignment else 1
        made = {"streams": self.streams(state), "spine_slots": spine, "slots": slots}
        return self.here(state, Matched.model_validate({**made, **changes}), sender)

    def due(self, state: JobState, *, without: tuple[str, ...] = ()) -> list[Envelope]:
        match pending(state):
            case Relay():
                return [self.relayed(state)]
            case Match():
                return [self.matched(state)]
            case _:
                return super().due(state, without=without)

    def at_leg(self, number: int, phase: Phase = Phase.SENDING) -> JobState:
        """Honestly up to the first moment of a leg's phase."""
        state = self.start
        while state.round < number or state.phase is not phase:
            state = advance(state, self.due(state)[0])
        return state
