"""Rounds that go on without some silos: absence, return, repair, pause, resume."""

from __future__ import annotations

import pytest

from federation.messages import PostKind
from federation.rounds import (
    Close,
    Duty,
    JobState,
    Phase,
    SumStreams,
    advance,
    duty,
    fold,
    owing,
    pending,
)
from tests.contracts.board_scene import FIVE, FOUR, HUB, Scene, patient_plan, scene_plan

REST = ("a", "b", "c")
IN_ROUND = [Phase.EXCHANGING, Phase.COLLECTING, Phase.RECEIVING, Phase.OPENING]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(patient_plan())


def gone(scene: Scene, state: JobState, *silos: str) -> JobState:
    return advance(state, scene.absence(state, *silos))


@pytest.mark.parametrize("phase", IN_ROUND)
def test_an_absence_burns_the_attempt_and_the_rest_begin_another(scene: Scene, phase: Phase) -> None:
    state = scene.until(scene.start, phase, round=2)
    state = gone(scene, state, "d")
    assert (state.phase, state.round, state.attempt, state.burned) == (Phase.EXCHANGING, 2, 2, 1)
    assert (state.contributors, state.absent) == (REST, frozenset({"d"}))
    assert [state.contributors_of(2, attempt) for attempt in (1, 2, 3)] == [FOUR, REST, ()]
    assert [duty(state, silo) for silo in FOUR] == [Duty.CONTRIBUTE] * 3 + [Duty.RETURN]
    assert owing(state) == REST
    ended = scene.until(state, Phase.ENDED, without=("d",))
    assert (ended.outcome, ended.opened) == ("completed", (1, 2, 1))
    assert all(place.sender != "d" for place in ended.posts if place.round > 2 or place.kind is PostKind.HEAD)
    assert fold(list(ended.posts.values()), HUB) == ended


def test_a_sum_of_the_rest_is_owed_once_their_streams_are_announced(scene: Scene) -> None:
    state = gone(scene, scene.until(scene.start, Phase.COLLECTING), "b")
    state = scene.until(state, Phase.COLLECTING, without=("b",))
    for silo in ("a", "c", "d"):
        assert pending(state) is None
        state = advance(state, scene.sealed(scene.stream(state), silo, at=(1, 2)))
    assert pending(state) == SumStreams(1, 2)
    assert set(scene.sum_of(state).body["streams"]) == {"a", "c", "d"}


def test_a_silo_that_returned_takes_part_from_the_next_round_on(scene: Scene) -> None:
    state = gone(scene, scene.until(scene.start, Phase.EXCHANGING), "d")
    state = advance(state, scene.back(state, "d"))
    assert (state.absent, state.contributors, duty(state, "d")) == (frozenset(), REST, None)
    state = scene.until(state, Phase.EXCHANGING, round=2)
    assert state.contributors == FOUR
    assert scene.until(state, Phase.ENDED).outcome == "completed"


def test_a_silo_that_returned_takes_part_from_the_next_attempt_on(scene: Scene) -> None:
    state = gone(scene, scene.until(scene.start, Phase.EXCHANGING), "d")
    state = advance(state, scene.back(state, "d"))
    state = advance(state, scene.burn(state, "a"))
    assert (state.attempt, state.contributors) == (3, FOUR)


def test_absences_burn_no_more_attempts_than_the_plan_pays_for() -> None:
    scene = Scene(patient_plan(FIVE, max_burned_rounds=1))
    state = gone(scene, scene.until(scene.start, Phase.EXCHANGING, round=2), "e")
    state = gone(scene, scene.until(state, Phase.OPENING, without=("e",)), "d")
    assert pending(state) == Close("failed", "without d, and the plan pays for 1 burned rounds")
    assert state.opened == (1,)


def test_a_noised_popularity_is_repeated_once_and_no_more() -> None:
    scene = Scene(patient_plan(FIVE, popularity=True, max_burned_rounds=3))
    state = gone(scene, scene.until(scene.start, Phase.COLLECTING), "e")
    assert (state.round, state.attempt, state.close) == (1, 2, None)
    failed = gone(scene, scene.until(state, Phase.RECEIVING, without=("e",)), "d")
    assert failed.close == Close("failed", "without d, and the plan pays for the popularity twice at most")
    state = scene.until(state, Phase.COLLECTING, round=2, without=("e",))
    for silo in ("d", "b"):
        state = advance(state, scene.burn(state, silo))
        state = scene.until(state, Phase.COLLECTING, without=("e",))
    assert (state.round, state.attempt, state.burned) == (2, 3, 3)


def test_an_absence_in_the_metrics_round_closes_the_job_without_metrics() -> None:
    scene = Scene(patient_plan(metrics=True, max_burned_rounds=0))
    state = gone(scene, scene.until(scene.start, Phase.RECEIVING, round=4), "b")
    assert (state.phase, state.close, state.opened_attempt(4)) == (Phase.CLOSING, None, None)
    assert owing(state) == ("a", "c", "d")
    assert scene.until(state, Phase.ENDED, without=("b",)).outcome == "completed"


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.WITNESSING])
def test_an_absence_at_the_end_only_takes_the_silo_out_of_who_must_post(scene: Scene, phase: Phase) -> None:
    state = scene.until(scene.start, phase)
    for silo in REST:
        what = duty(state, silo)
        post = scene.say(state, silo, what) if what else None
        assert post is not None
        state = advance(state, post)
    state = gone(scene, state, "d")
    assert state.burned == 0
    heads = [post.sender for post in state.roster_posts(PostKind.HEAD)]
    if phase is Phase.CLOSING:
        assert (state.phase, heads) == (Phase.WITNESSING, list(REST))
        assert [receipt.silo for receipt in scene.receipts(state, "a").receipts] == ["b", "c"]
    else:
        assert (heads, pending(state)) == (list(FOUR), state.close)
    assert scene.until(state, Phase.ENDED, without=("d",)).outcome == "completed"


def test_a_silo_absent_from_the_rounds_returns_to_the_closing_and_posts_its_head(scene: Scene) -> None:
    state = gone(scene, scene.until(scene.start, Phase.EXCHANGING, round=3), "d")
    state = scene.until(state, Phase.CLOSING, without=("d",))
    assert duty(state, "d") is Duty.RETURN
    state = advance(state, scene.back(state, "d"))
    assert duty(state, "d") is Duty.HEAD
    for silo in REST:
        post = scene.say(state, silo, Duty.HEAD)
        assert post is not None
        state = advance(state, post)
    assert owing(state) == ("d",)
    out = gone(scene, state, "d")
    assert (out.phase, duty(out, "d")) == (Phase.WITNESSING, None)
    assert scene.until(state, Phase.ENDED).outcome == "completed"


def test_a_second_absence_at_the_end_has_a_place_of_its_own() -> None:
    scene = Scene(patient_plan(FIVE))
    state = gone(scene, scene.until(scene.start, Phase.CLOSING), "d")
    assert state.absence_place == (0, 2)
    state = gone(scene, scene.until(state, Phase.WITNESSING, without=("d",)), "e")
    assert (state.absent, state.absence_place) == (frozenset({"d", "e"}), (0, 3))


def test_the_one_silo_that_opened_other_integers_repairs_itself_and_the_round_goes_on(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.OPENING)
    for silo, digit in zip(FOUR, "1121", strict=True):
        state = advance(state, scene.opened(state, silo, digit * 64))
    assert (state.odd_one, owing(state)) == ("c", ("c",))
    assert [duty(state, silo) for silo in FOUR] == [None, None, Duty.REPAIR, None]
    repaired = scene.say(state, "c", Duty.REPAIR)
    assert repaired is not None
    after = advance(state, repaired)
    assert (after.round, after.opened, after.agreed_digest(1)) == (2, (1,), "1" * 64)
    assert fold(list(after.posts.values()), HUB) == after
    missing = gone(scene, state, "c")
    assert (missing.round, missing.attempt, missing.opened) == (1, 2, ())


def test_a_repair_is_asked_for_only_once_everybody_has_opened(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.OPENING)
    for silo, digit in zip("abc", "112", strict=True):
        state = advance(state, scene.opened(state, silo, digit * 64))
    assert (state.odd_one, duty(state, "c"), owing(state)) == (None, None, ("d",))
    rejected = advance(state, scene.failed(state, "d"))
    assert (rejected.attempt, rejected.failed_opens) == (2, 1)


def test_a_pause_lets_the_round_end_and_holds_the_next_until_it_is_lifted(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.COLLECTING, round=2)
    state = advance(state, scene.pause(state, "b"))
    assert (state.phase, state.is_paused) == (Phase.COLLECTING, True)
    state = advance(state, scene.burn(state, "c"))
    assert (state.phase, state.attempt) == (Phase.EXCHANGING, 2)
    state = scene.until(state, Phase.PAUSED)
    assert (state.round, state.attempt, state.contributors_of(3, 1)) == (3, 1, ())
    assert [duty(state, silo) for silo in FOUR] == [None] * 4
    assert (owing(state), pending(state)) == ((), None)
    state = advance(state, scene.resume(state, HUB))
    assert (state.phase, state.round, state.contributors) == (Phase.EXCHANGING, 3, FOUR)
    assert scene.until(state, Phase.ENDED).outcome == "completed"
    assert fold(list(state.posts.values()), HUB) == state


def test_a_pause_before_the_first_round_and_one_lifted_in_time(scene: Scene) -> None:
    state = advance(scene.start, scene.pause(scene.start, "a"))
    held = scene.until(state, Phase.PAUSED)
    assert (held.round, held.attempts) == (1, {})
    state = advance(state, scene.resume(state, "d"))
    assert scene.until(state, Phase.ENDED).outcome == "completed"


def test_a_silo_returns_while_the_job_is_paused(scene: Scene) -> None:
    state = gone(scene, scene.until(scene.start, Phase.EXCHANGING), "d")
    state = advance(state, scene.pause(state, "a"))
    state = scene.until(state, Phase.PAUSED, without=("d",))
    assert duty(state, "d") is Duty.RETURN
    state = advance(state, scene.back(state, "d"))
    state = advance(state, scene.resume(state, "a"))
    assert state.contributors_of(2, 1) == FOUR


def test_a_paused_job_can_be_cancelled(scene: Scene) -> None:
    state = advance(scene.start, scene.pause(scene.start, "a"))
    state = scene.until(state, Phase.PAUSED)
    state = advance(state, scene.cancel("c"))
    assert scene.until(state, Phase.ENDED).outcome == "cancelled"


def test_a_job_of_one_sum_pauses_before_it(scene: Scene) -> None:
    single = Scene(scene_plan())
    state = advance(single.start, single.pause(single.start, HUB))
    assert single.until(state, Phase.PAUSED).round == 1
