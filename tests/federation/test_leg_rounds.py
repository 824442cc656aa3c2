"""The legs of a vertical job as a fold of posts: its course, and what may not be said where."""

from __future__ import annotations

import pytest

from federation.job_state import Close, Match, Phase, Relay
from federation.job_view import describe, milestone_line, outcome_error, progress_line, table
from federation.messages import Absence, Approval, Burn, Received, Return, SlotFile
from federation.rounds import Duty, JobState, StalePostError, advance, duty, fold, owing, pending
from privacy.errors import EquivocationError, ProtocolError
from tests.contracts.board_scene import HEX, HUB
from tests.contracts.leg_scene import LegScene, leg_plan

BLINDED, SLOTS, KEY, BLOCK, MOMENTS = 3, 4, 5, 6, 9


@pytest.fixture
def scene() -> LegScene:
    return LegScene(leg_plan())


def say(scene: LegScene, state: JobState, silo: str) -> JobState:
    due = duty(state, silo)
    assert due is not None
    post = scene.say(state, silo, due)
    assert post is not None
    return advance(state, post)


def test_a_vertical_job_goes_through_its_legs_to_the_end(scene: LegScene) -> None:
    state = scene.until(scene.start, Phase.ENDED)
    assert state.outcome == "completed"
    assert state.opened == (1,) * 9
    assert fold(list(state.posts.values()), HUB) == state


def test_the_course_of_one_leg(scene: LegScene) -> None:
    state = scene.at_leg(1)
    assert [duty(state, silo) for silo in "abc"] == [Duty.SEND] * 3
    state = say(scene, state, "b")
    assert duty(state, "b") is Duty.UPLOAD
    assert pending(state) is None
    state = say(scene, say(scene, state, "a"), "c")
    assert pending(state) == Relay(1)
    assert owing(state) == ("a", "b", "c")
    state = advance(state, scene.relayed(state))
    assert [duty(state, silo) for silo in "abc"] == [Duty.FETCH] * 3
    state = say(scene, say(scene, state, "a"), "b")
    assert owing(state) == ("c",)
    assert (say(scene, state, "c").round, say(scene, state, "c").phase) == (2, Phase.SENDING)


def test_only_the_label_silo_sends_a_block_and_only_the_others_fetch_it(scene: LegScene) -> None:
    state = scene.at_leg(BLOCK)
    assert [duty(state, silo) for silo in "abc"] == [Duty.SEND, None, None]
    state = scene.at_leg(BLOCK, Phase.FETCHING)
    assert [duty(state, silo) for silo in "abc"] == [None, Duty.FETCH, Duty.FETCH]
    state = scene.at_leg(MOMENTS)
    assert [duty(state, silo) for silo in "abc"] == [None, Duty.SEND, Duty.SEND]


def test_blinded_lists_are_matched_and_all_approve_before_slots_are_fetched(scene: LegScene) -> None:
    state = scene.at_leg(BLINDED)
    for silo in "abc":
        state = say(scene, state, silo)
    assert pending(state) == Match(BLINDED)
    state = advance(state, scene.matched(state))
    assert (state.round, state.phase, state.spine_slots) == (SLOTS, Phase.APPROVING, 450)
    assert [duty(state, silo) for silo in "abc"] == [Duty.APPROVE] * 3
    for silo in "cab":
        assert state.phase is Phase.APPROVING
        state = say(scene, state, silo)
    assert (state.round, state.phase) == (SLOTS, Phase.FETCHING)
    assert [duty(state, silo) for silo in "abc"] == [Duty.FETCH] * 3


def test_one_that_does_not_approve_ends_the_job_with_words(scene: LegScene) -> None:
    state = say(scene, scene.at_leg(SLOTS, Phase.APPROVING), "a")
    state = advance(state, scene.here(state, Approval(approved=False), "b"))
    assert state.close == Close("denied", "b does not approve the alignment")
    assert [duty(state, silo) for silo in "abc"] == [None] * 3
    with pytest.raises(StalePostError, match="being closed"):
        advance(state, scene.here(state, Approval(approved=True), "c"))
    state = advance(state, scene.ended("denied", "b does not approve the alignment"))
    assert "b does not approve that people are aligned" in str(outcome_error(state))


def test_an_approval_is_said_once_by_the_roster_and_in_its_place(scene: LegScene) -> None:
    state = scene.at_leg(SLOTS, Phase.APPROVING)
    approved = advance(state, scene.here(state, Approval(approved=True), "b"))
    with pytest.raises(EquivocationError):
        advance(approved, scene.here(approved, Approval(approved=False), "b"))
    with pytest.raises(ProtocolError, match="may not post"):
        advance(state, scene.here(state, Approval(approved=True), HUB))
    before, after = scene.at_leg(BLINDED), scene.at_leg(KEY)
    for elsewhere in (before, after):
        with pytest.raises(StalePostError):
            advance(elsewhere, scene.here(elsewhere, Approval(approved=True), "b"))
    with pytest.raises(StalePostError):
        advance(state, scene.here(state, Received(mac="0" * 64), "a"))


def test_a_silo_leaves_while_others_decide(scene: LegScene) -> None:
    state = advance(scene.at_leg(SLOTS, Phase.APPROVING), scene.cancel("c"))
    assert state.close == Close("cancelled", "cancelled by c")


def test_a_revealed_spine_is_as_long_as_the_coordinator_matched() -> None:
    scene = LegScene(leg_plan(reveal="both"))
    state = scene.at_leg(BLINDED)
    assert state.num_rounds == SLOTS
    for silo in "abc":
        state = say(scene, state, silo)
    state = advance(state, scene.matched(state, spine_slots=30))
    assert state.num_rounds == SLOTS + 1 + 1 + 1
    assert scene.until(state, Phase.ENDED).outcome == "completed"


def test_a_pause_takes_effect_between_two_legs(scene: LegScene) -> None:
    state = scene.at_leg(2)
    state = advance(state, scene.pause(state, "b"))
    state = scene.until(state, Phase.PAUSED)
    assert (state.round, [duty(state, silo) for silo in "abc"]) == (BLINDED, [None] * 3)
    state = advance(state, scene.resume(state, "b"))
    assert (state.round, state.phase) == (BLINDED, Phase.SENDING)


def test_anybody_of_the_roster_cancels_in_a_leg(scene: LegScene) -> None:
    state = advance(scene.at_leg(2, Phase.FETCHING), scene.cancel("c"))
    assert state.close is not None
    assert [duty(state, silo) for silo in "abc"] == [None] * 3
    state = advance(state, scene.ended("cancelled", "cancelled by c"))
    assert "keep the model" not in str(outcome_error(state))


def test_in_words(scene: LegScene) -> None:
    assert progress_line(scene.at_leg(2)) == "hop 2 of 2 (leg 2 of 9): silos send"
    assert "whom they have in common" in progress_line(scene.at_leg(BLINDED))
    state = scene.at_leg(BLOCK, Phase.FETCHING)
    assert progress_line(state) == "block 1 of 3 (leg 6 of 9): silos fetch what is for them"
    assert milestone_line(state, 90.0).endswith("contributed; about 2 min left")
    assert (describe(state)["leg"], describe(state)["rounds_opened"]) == ("block 1 of 3", 5)
    assert table(state) is not None
    both = LegScene(leg_plan(reveal="both"))
    assert progress_line(both.at_leg(1)).startswith("hop 1 of 2 (leg 1 of as yet unknown)")


def test_epsilon_is_spent_as_legs_are_sent(scene: LegScene) -> None:
    spent = [
        describe(scene.at_leg(leg, phase))["epsilon_spent"]
        for leg, phase in (
            (1, Phase.SENDING), (1, Phase.FETCHING), (KEY, Phase.SENDING), (KEY, Phase.FETCHING),
            (MOMENTS, Phase.SENDING), (MOMENTS, Phase.FETCHING),
        )
    ]  # fmt: skip
    assert spent[0] == 0
    assert 0 < spent[1] == spent[2] < spent[3] == spent[4] < spent[5] <= 4.0


# ── what may not be said ──────────────────────────────────────────────────────────────────────────────────


def test_relayed_before_everything_is_announced_is_refused(scene: LegScene) -> None:
    state = say(scene, scene.at_leg(1), "a")
    with pytest.raises(ProtocolError, match="before every sender"):
        advance(state, scene.relayed(state))


def test_relayed_over_other_bytes_than_the_signed_ones_is_refused(scene: LegScene) -> None:
    state = scene.at_leg(KEY)
    state = say(scene, state, "a")
    forged = scene.relayed(state).body | {"streams": {"a": HEX}}
    with pytest.raises(ProtocolError, match="other bytes"):
        advance(state, scene.relayed(state).model_copy(update={"body": forged}))


def test_a_silo_neither_relays_nor_matches(scene: LegScene) -> None:
    state = scene.at_leg(BLINDED)
    for silo in "abc":
        state = say(scene, state, silo)
    for post in (scene.matched(state, "a"), scene.relayed(state, "b")):
        with pytest.raises(ProtocolError, match="may not post"):
            advance(state, post)


def test_blinded_lists_are_given_to_nobody(scene: LegScene) -> None:
    state = scene.at_leg(BLINDED)
    for silo in "abc":
        state = say(scene, state, silo)
    with pytest.raises(ProtocolError, match="to nobody"):
        advance(state, scene.relayed(state))


def test_people_are_matched_once_in_one_leg(scene: LegScene) -> None:
    state = say(scene, scene.at_leg(KEY), "a")
    with pytest.raises(ProtocolError, match="matched once"):
        advance(state, scene.matched(state))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"spine_slots": 449}, "a spine of 449"),
        ({"streams": {"a": HEX, "b": HEX, "c": HEX}}, "other bytes"),
        ({"slots": {"a": SlotFile(sha256=HEX, num_bytes=1)}}, "other silos"),
        ({"slots": {s: SlotFile(sha256=HEX, num_bytes=10**6) for s in "abc"}}, "at most"),
    ],
)
def test_a_match_that_contradicts_the_plan_is_refused(
    scene: LegScene, changes: dict[str, object], match: str
) -> None:
    state = scene.at_leg(BLINDED)
    for silo in "abc":
        state = say(scene, state, silo)
    with pytest.raises(ProtocolError, match=match):
        advance(state, scene.matched(state, **changes))


def test_a_revealed_spine_is_never_longer_than_the_shortest_list() -> None:
    scene = LegScene(leg_plan(reveal="both"))
    state = scene.at_leg(BLINDED)
    for silo in "abc":
        state = say(scene, state, silo)
    with pytest.raises(ProtocolError, match="a spine of 101"):
        advance(state, scene.matched(state, spine_slots=101))


@pytest.mark.parametrize(
    ("changes", "match"), [({"num_bytes": 10**9}, "at most"), ({"num_frames": 7}, "7 records")]
)
def test_an_oversized_or_miscounted_manifest_is_refused(
    scene: LegScene, changes: dict[str, int], match: str
) -> None:
    state = scene.at_leg(1)
    with pytest.raises(ProtocolError, match=match):
        advance(state, scene.here(state, scene.parcel(state, "b", **changes), "b"))


def test_who_sends_nothing_announces_nothing_and_who_reads_nothing_received_nothing(scene: LegScene) -> None:
    state = scene.at_leg(BLOCK)
    with pytest.raises(ProtocolError, match="sends nothing"):
        advance(state, scene.here(state, scene.parcel(state, "a"), "b"))
    state = scene.at_leg(BLOCK, Phase.FETCHING)
    with pytest.raises(ProtocolError, match="receives nothing"):
        advance(state, scene.here(state, Received(mac=HEX), "a"))


def test_a_duplicate_changes_nothing_and_another_announcement_is_an_equivocation(scene: LegScene) -> None:
    state = scene.at_leg(1)
    post = scene.here(state, scene.parcel(state, "a"), "a")
    state = advance(state, post)
    assert advance(state, post) is state
    with pytest.raises(EquivocationError):
        advance(state, scene.here(state, scene.parcel(state, "a"), "a"))


def test_a_received_of_the_leg_before_is_not_taken_for_this_one(scene: LegScene) -> None:
    before = scene.at_leg(1, Phase.FETCHING)
    said = scene.here(before, Received(mac=HEX), "c")
    after = before
    for silo in "abc":
        after = advance(after, said if silo == "c" else scene.here(after, Received(mac=HEX), silo))
    while after.phase is not Phase.FETCHING:
        after = advance(after, scene.due(after)[0])
    assert advance(after, said) is after  # it stands where it stood
    assert duty(after, "c") is Duty.FETCH
    with pytest.raises(StalePostError):
        advance(after, scene.sealed(Received(mac=HEX), "c", at=(3, 1)))


def test_an_announcement_out_of_its_time_is_stale(scene: LegScene) -> None:
    state = scene.at_leg(BLOCK)
    late = scene.here(state, scene.parcel(state, "a"), "a")
    state = scene.at_leg(KEY, Phase.FETCHING)
    with pytest.raises(StalePostError):
        advance(state, late)


def test_nobody_is_absent_returns_or_burns_in_a_leg(scene: LegScene) -> None:
    state = scene.at_leg(1)
    for body, sender in ((Absence(silos=("b",)), HUB), (Return(), "b"), (Burn(reason="record_lost"), "b")):
        with pytest.raises(ProtocolError):
            advance(state, scene.here(state, body, sender))
