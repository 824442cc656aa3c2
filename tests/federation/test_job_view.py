"""What people and machines are told about a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from federation.job_view import (
    DUTIES_IN_WORDS,
    IN_WORDS,
    JobFailedError,
    describe,
    milestone,
    milestone_line,
    outcome_error,
    progress_line,
    table,
)
from federation.progress import Pace, epsilon_spent
from federation.rounds import Duty, JobState, Phase, advance
from policies.plans.price import plan_epsilon
from tests.contracts.board_scene import FOUR, HUB, Scene, patient_plan

ROUNDS = 6


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(patient_plan(rounds=ROUNDS, max_burned_rounds=2, popularity=True))


def printed(state: JobState, seconds_left: float | None = None) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(table(state, seconds_left))
    return capture.get()


def test_every_phase_and_every_duty_has_its_words() -> None:
    assert (set(IN_WORDS), set(DUTIES_IN_WORDS)) == (set(Phase), set(Duty))


def test_a_job_of_many_rounds_is_shown_with_what_it_cost_and_who_is_away(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.COLLECTING, round=3)
    state = advance(state, scene.absence(state, "d"))
    state = scene.until(state, Phase.COLLECTING, round=4, without=("d",))
    state = advance(state, scene.pause(state, "b"))
    about = json.loads(json.dumps(describe(state, seconds_left=90.5)))
    assert (about["round"], about["num_rounds"], about["rounds_opened"]) == (4, 1 + ROUNDS, 3)
    assert (about["burned"], about["max_burned_rounds"], about["paused"]) == (1, 2, True)
    assert about["absent"] == ["d"]
    assert about["absences"] == [{"round": 3, "attempt": 1, "silos": ["d"]}]
    assert (about["stream_bytes"], about["sum_bytes"], about["seconds_left"]) == (11_000, 6_000, 90.5)
    assert 0 < about["epsilon_spent"] < about["target_epsilon"] == 4.0
    silo = about["silos"]["d"]
    assert (silo["contributions"], silo["absent"], silo["duty"]) == (2, True, "return")
    text = printed(state, 90.5)
    for words in (
        "round 4 of 7, attempt 1: silos contribute",
        "absent, catches up",
        "masks and encrypts",
        f"epsilon {about['epsilon_spent']:.3g} of 4 (delta 1e-06)",
        "11.0 kB contributed, 6.0 kB of sums",
        "burned 1 (d 1), 2 are paid for",
        "absent: d",
        "will pause before the next round",
        "about 2 min left",
    ):
        assert words in text
    held = scene.until(state, Phase.PAUSED, without=("d",))
    assert progress_line(held) == "before round 5 of 7: paused; archipel job resume lets it go on"


def test_a_repair_is_recorded_where_everybody_sees_it(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.OPENING, round=2)
    for silo, digit in zip(FOUR, "1211", strict=True):
        state = advance(state, scene.opened(state, silo, digit * 64))
    assert "opens the sum again: it differs from all others" in printed(state)
    state = scene.until(state, Phase.EXCHANGING, round=3)
    assert describe(state)["repairs"] == [{"round": 2, "attempt": 1, "silo": "b"}]
    assert "opened other integers first, then the same: b in round 2" in printed(state)


def test_epsilon_counts_every_attempt_once_and_ends_below_what_was_promised(scene: Scene) -> None:
    assert epsilon_spent(scene.until(scene.start, Phase.FINGERPRINTING)) == 0.0
    seen = []
    state = scene.start
    for number in range(1, ROUNDS + 1):
        state = scene.until(state, Phase.RECEIVING, round=number)
        seen.append(epsilon_spent(state))
    assert seen == sorted(set(seen))
    burned = advance(state, scene.burn(state, "a"))
    assert epsilon_spent(burned) == seen[-1]
    again = scene.until(burned, Phase.RECEIVING)
    assert epsilon_spent(again) > seen[-1]
    ended = scene.until(scene.start, Phase.ENDED)
    assert epsilon_spent(ended) < plan_epsilon(scene.plan) <= 4.0


def test_a_log_has_one_line_an_attempt_and_one_for_each_thing_that_happens(scene: Scene) -> None:
    state, lines = scene.start, list[str]()
    marks: list[object] = []
    while state.phase is not Phase.ENDED:
        if milestone(state) not in marks:
            marks.append(milestone(state))
            lines.append(milestone_line(state, 30.0))
        state = advance(state, scene.due(state)[0])
    rounds = [line for line in lines if line.startswith("round")]
    assert len(rounds) == 1 + ROUNDS
    assert rounds[2].startswith("round 3 of 7; epsilon ")
    assert rounds[2].endswith("; about 30 s left")
    assert lines[-1].startswith("silos countersign")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)  # ten minutes after the scene's proposal

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_the_time_left_is_that_of_the_rounds_seen(scene: Scene) -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.see(scene.start) is None
    state = scene.until(scene.start, Phase.EXCHANGING)
    assert pace.see(state) is None
    for number in (2, 3):
        clock.pass_seconds(20)
        state = scene.until(state, Phase.EXCHANGING, round=number)
        left = pace.see(state)
    assert left == 20 * (1 + ROUNDS - 2)
    clock.pass_seconds(5)
    assert pace.see(state) == left - 5
    clock.pass_seconds(1000)
    assert pace.see(state) == 0.0
    assert pace.see(scene.until(state, Phase.CLOSING)) is None


def test_before_a_round_was_seen_the_time_left_is_the_average_since_the_proposal(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.COLLECTING, round=3)
    assert Pace(Clock()).see(state) == 600 / 2 * (1 + ROUNDS - 2)
    paused = scene.until(advance(state, scene.pause(state, HUB)), Phase.PAUSED)
    assert Pace(Clock()).see(paused) is None


def test_a_job_that_ended_early_says_what_the_silos_keep(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING, round=3)
    ended = scene.until(advance(state, scene.cancel("a")), Phase.ENDED)
    error = outcome_error(ended)
    assert isinstance(error, JobFailedError)
    assert "cancelled by a" in error.message
    assert error.remedy == "silos keep the model after 2 of 7 rounds; submit the plan again"
    early = outcome_error(scene.until(advance(scene.start, scene.cancel("a")), Phase.ENDED))
    assert early is not None
    assert early.remedy == "submit the plan again"
