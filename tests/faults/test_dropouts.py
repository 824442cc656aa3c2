"""What a coordinator, or a member, makes of absences, returns, repairs and pauses, and why it gains nothing.

Every party folds the same posts with the same rules, so what is refused here is refused by every silo.
"""

from __future__ import annotations

import pytest

from federation.admission import MAX_PAUSES
from federation.messages import Absence, Envelope, Ephemeral, PostKind, Repaired, Resume, Return
from federation.rounds import Close, JobState, Phase, StalePostError, advance, duty, fold, owing, pending
from privacy.errors import ArchipelError, EquivocationError, ProtocolError
from tests.contracts.board_scene import FIVE, FOUR, HUB, Scene, patient_plan, scene_plan

FORGED = "e" * 64
Refused = type[ArchipelError]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(patient_plan())


@pytest.fixture(scope="module")
def five() -> Scene:
    return Scene(patient_plan(FIVE, colluding_silos=2, min_silos=2))


def refused(state: JobState, envelope: Envelope, match: str, error: Refused = ProtocolError) -> None:
    with pytest.raises(error, match=match):
        advance(state, envelope)


def say(scene: Scene, state: JobState, silo: str) -> JobState:
    """The state after ``silo`` has done what is due."""
    due = duty(state, silo)
    post = scene.say(state, silo, due) if due else None
    assert post is not None
    return advance(state, post)


# ── a coordinator that declares absences ─────────────────────────────────────────────────────────────────


def test_a_coordinator_shrinks_the_sum_to_its_colluders(five: Scene) -> None:
    """n = 5, c = 2: with two colluders it needs all but one of the others gone; four must stay."""
    state = five.until(five.start, Phase.EXCHANGING, round=2)
    shrunk = advance(state, five.absence(state, "e"))
    assert shrunk.contributors == FOUR
    for silos in (("d",), ("c", "d")):
        over = advance(shrunk, five.absence(shrunk, *silos))
        assert over.close is not None
        assert over.close.outcome == "failed"
        assert "4 are needed" in over.close.reason
        assert [duty(over, silo) for silo in FIVE] == [None] * 5
        refused(over, five.sealed(five.ephemeral(("a", "b")), "a", at=(2, 3)), "being closed")
    at_once = advance(state, five.absence(state, "c", "d", "e"))
    assert at_once.close is not None


def test_a_coordinator_declares_everybody_absent(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.COLLECTING)
    over = advance(state, scene.absence(state, *FOUR))
    assert over.close == Close("failed", "0 silos are left where 3 are needed; absent: a, b, c, d")
    assert scene.until(over, Phase.ENDED, without=FOUR).outcome == "failed"


def test_a_coordinator_calls_a_job_completed_whose_end_it_kept_to_itself(scene: Scene) -> None:
    """It declares absent at the closing whoever would have been a witness."""
    state = say(scene, scene.until(scene.start, Phase.CLOSING), "a")
    over = advance(state, scene.absence(state, "b", "c", "d"))
    refused(over, scene.ended("completed"), "calls it completed")
    assert over.close is not None
    assert over.close.outcome == "failed"


@pytest.mark.parametrize(
    "phase",
    [Phase.EXCHANGING, Phase.RECEIVING, Phase.OPENING, Phase.CLOSING, Phase.WITNESSING],
)
def test_a_silo_is_declared_absent_that_has_done_its_part(scene: Scene, phase: Phase) -> None:
    state = say(scene, scene.until(scene.start, phase), "b")
    assert owing(state) == ("a", "c", "d")
    refused(state, scene.absence(state, "b"), "b, who did all that was due")
    refused(state, scene.absence(state, "b", "d"), "b, who did all that was due")
    assert "d" in advance(state, scene.absence(state, "d")).absent


@pytest.mark.parametrize(
    "phase", [Phase.PROPOSED, Phase.STARTING, Phase.KEYING, Phase.FINGERPRINTING, Phase.PAUSED]
)
def test_an_absence_outside_a_round_takes_nobody_out(scene: Scene, phase: Phase) -> None:
    """Keys are between all silos of the roster: a job does not start without one of them."""
    start = advance(scene.start, scene.pause(scene.start, "a")) if phase is Phase.PAUSED else scene.start
    state = scene.until(start, phase)
    for at in ((0, 0), (0, 1), (state.round, state.attempt), (1, 1)):
        refused(state, scene.sealed(Absence(silos=("d",)), HUB, at=at), "while the job is", StalePostError)


def test_an_absence_in_a_job_whose_plan_waits_for_every_silo() -> None:
    waiting = Scene(scene_plan(FOUR, max_burned_rounds=3))
    for phase in (Phase.EXCHANGING, Phase.OPENING, Phase.CLOSING):
        state = waiting.until(waiting.start, phase)
        refused(state, waiting.absence(state, "d"), "waits for every silo")


def test_a_member_declares_another_absent(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    for sender in ("a", "d", "stranger"):
        refused(state, scene.sealed(Absence(silos=("d",)), sender, at=(1, 1)), "may not post")


@pytest.mark.parametrize("silos", [("d", "b"), ("d", "d"), ("x",), ("a", "b", "c", "d", "e")])
def test_one_absence_has_one_form(scene: Scene, silos: tuple[str, ...]) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    refused(state, scene.absence(state, *silos), "roster's order")


def test_an_absence_is_replayed_at_another_place(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    recorded = scene.absence(state, "d")
    gone = advance(state, recorded)
    assert advance(gone, recorded) is gone
    back = advance(gone, scene.back(gone, "d"))
    later = scene.until(back, Phase.EXCHANGING, round=2)
    assert advance(later, recorded) is later
    for moved in ({"attempt": 2}, {"round": 2}):
        forged = recorded.model_copy(update=moved)
        assert forged.signed_part() != recorded.signed_part()
    refused(later, scene.sealed(Absence(silos=("d",)), HUB, at=(2, 2)), "round 2, attempt 2", StalePostError)
    ended = scene.until(later, Phase.CLOSING)
    refused(ended, scene.sealed(Absence(silos=("d",)), HUB, at=(3, 1)), "round 3", StalePostError)


def test_the_coordinator_adds_the_stream_of_a_silo_it_declared_absent(scene: Scene) -> None:
    """Sums of two sets of silos over one contribution would differ by that contribution."""
    state = scene.until(scene.start, Phase.COLLECTING)
    for silo in "abd":
        state = say(scene, state, silo)
    first = {
        post.sender: post.body["sha256"] for post in state.roster_posts(PostKind.STREAM, round=1, attempt=1)
    }
    state = scene.until(advance(state, scene.absence(state, "c")), Phase.COLLECTING, without=("c",))
    for silo in "abd":
        refused(state, scene.sum_of(state), "before every silo has contributed")
        state = say(scene, state, silo)
    honest = scene.sum_of(state)
    signed = honest.body["streams"]
    assert set(signed.values()).isdisjoint(first.values())
    for streams in (first, signed | {"a": first["a"]}, signed | {"c": FORGED}, {"a": signed["a"]}):
        forged = honest.model_copy(update={"body": {**honest.body, "streams": streams}})
        refused(state, forged, "other streams than the signed ones")
    refused(state, scene.sealed(scene.stream(state), "c", at=(1, 2)), "does not take part", StalePostError)


def test_a_silo_outside_an_attempt_says_something_in_it(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = advance(state, scene.absence(state, "d"))
    posts = [
        scene.sealed(scene.ephemeral(FOUR), "d", at=(1, 2)),
        scene.sealed(scene.ephemeral(("a", "b", "c")), "d", at=(1, 2)),
        scene.burn(state, "d"),
    ]
    for post in posts:
        refused(state, post, "d does not take part in round 1, attempt 2", StalePostError)
    closing = scene.until(state, Phase.CLOSING, without=("d",))
    head = scene.sealed(scene.head("d"), "d")
    refused(closing, head, "an absent silo returns first|does not take part", StalePostError)


# ── two views of one job ─────────────────────────────────────────────────────────────────────────────────


def test_two_silos_are_shown_different_absences(five: Scene) -> None:
    """Each signs for whom it masks, so neither accepts the other's key and no sum of that attempt opens."""
    state = five.until(five.start, Phase.EXCHANGING)
    without_d = advance(state, five.absence(state, "d"))
    without_e = advance(state, five.absence(state, "e"))
    assert (without_d.round, without_d.attempt) == (without_e.round, without_e.attempt)
    of_a = five.sealed(five.ephemeral(without_d.contributors), "a", at=(1, 2))
    of_b = five.sealed(five.ephemeral(without_e.contributors), "b", at=(1, 2))
    refused(without_d, of_b, "another roster")
    refused(without_e, of_a, "another roster")
    left = five.until(without_d, Phase.COLLECTING, without=("d",))
    right = five.until(without_e, Phase.COLLECTING, without=("e",))
    assert left.transcript(1, 2) != right.transcript(1, 2)


def test_an_ephemeral_key_for_the_full_roster_is_used_in_an_attempt_of_few(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = advance(state, scene.absence(state, "d"))
    for roster in (FOUR, ("a", "b"), ("c", "b", "a")):
        refused(state, scene.sealed(scene.ephemeral(roster), "a", at=(1, 2)), "another roster")
    old = scene.until(scene.start, Phase.COLLECTING)
    used = old.roster_posts(PostKind.EPHEMERAL, round=1, attempt=1)[0].content(Ephemeral)
    state = advance(old, scene.absence(old, "d"))
    again = used.model_copy(update={"roster": ("a", "b", "c")})
    refused(state, scene.sealed(again, "a", at=(1, 2)), "seen before")


def test_a_coordinator_that_hides_a_return_gains_what_a_slow_network_gains(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = advance(state, scene.absence(state, "d"))
    seen_by_d = advance(state, scene.back(state, "d"))
    hidden = scene.until(state, Phase.COLLECTING, round=2, without=("d",))
    assert hidden.contributors == ("a", "b", "c")
    shown = scene.until(seen_by_d, Phase.EXCHANGING, round=2)
    key_of_a = hidden.roster_posts(PostKind.EPHEMERAL, round=2, attempt=1)[0]
    refused(shown, key_of_a, "another roster")
    over = advance(hidden, scene.absence(hidden, "c"))
    assert over.close is not None
    assert "2 silos are left where 3 are needed" in over.close.reason


# ── returns ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silo_returns_that_was_not_absent(scene: Scene) -> None:
    for phase in (Phase.EXCHANGING, Phase.OPENING, Phase.CLOSING):
        state = scene.until(scene.start, phase)
        refused(state, scene.back(state, "b"), "b is not absent")


def test_somebody_else_returns_in_an_absent_silos_place(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = advance(state, scene.absence(state, "d"))
    refused(state, scene.back(state, "b"), "b is not absent")
    refused(state, scene.sealed(Return(), HUB, at=(1, 2)), "hub may not post")


def test_an_old_return_brings_nobody_back(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = advance(state, scene.absence(state, "d"))
    recorded = scene.back(state, "d")
    state = scene.until(advance(state, recorded), Phase.EXCHANGING, round=2)
    state = advance(state, scene.absence(state, "d"))
    assert advance(state, recorded) is state
    refused(state, scene.sealed(Return(), "d", at=(2, 1)), "round 2, attempt 1", StalePostError)
    assert "d" in state.absent


def test_a_silo_that_comes_and_goes_burns_no_more_than_the_plan_pays_for() -> None:
    scene = Scene(patient_plan(rounds=9, max_burned_rounds=3))
    state, begun = scene.start, 0
    while state.close is None:
        state = scene.until(state, Phase.EXCHANGING, round=begun + 1)
        begun = state.round
        state = advance(state, scene.absence(state, "d"))
        if state.close is None:
            state = advance(state, scene.back(state, "d"))
    assert (begun, len(state.attempts), state.opened) == (4, 7, (2, 2, 2))
    assert state.close.reason == "without d, and the plan pays for 3 burned rounds"


def test_a_silo_that_missed_the_closing_cannot_hold_it_up_again(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING, round=3)
    state = advance(state, scene.absence(state, "d"))
    state = scene.until(state, Phase.CLOSING, without=("d",))
    state = advance(state, scene.back(state, "d"))
    state = advance(state, scene.absence(state, "d"))
    assert duty(state, "d") is None
    before = state
    assert advance(state, scene.back(state, "d")) is before
    refused(state, scene.sealed(scene.head("d"), "d"), "does not take part", StalePostError)
    witnessing = scene.until(state, Phase.WITNESSING, without=("d",))
    refused(witnessing, scene.sealed(Return(), "d", at=(9, 9)), "while the job is", StalePostError)


def test_a_late_head_changes_no_receipt(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.CLOSING)
    for silo in "abc":
        state = say(scene, state, silo)
    state = advance(state, scene.absence(state, "d"))
    refused(state, scene.sealed(scene.head("d"), "d"), "while the job is witnessing", StalePostError)
    for_d = scene.receipt_of("d")
    honest = scene.receipts(state, "a")
    invented = honest.model_copy(update={"receipts": (*honest.receipts, for_d)})
    refused(state, scene.sealed(invented, "a"), "other ledger heads than the posted ones")
    fewer = honest.model_copy(update={"receipts": honest.receipts[:1]})
    refused(state, scene.sealed(fewer, "a"), "other ledger heads than the posted ones")
    assert scene.until(state, Phase.ENDED, without=("d",)).outcome == "completed"


# ── repairs ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repair_nobody_asked_for_or_with_other_integers(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.OPENING)
    refused(state, scene.sealed(Repaired(digest="1" * 64), "c", at=(1, 1)), "nothing to repair")
    for silo, digit in zip(FOUR, "1121", strict=True):
        state = advance(state, scene.opened(state, silo, digit * 64))
    for sender in "abd":
        refused(state, scene.sealed(Repaired(digest="2" * 64), sender, at=(1, 1)), "nothing to repair")
    refused(state, scene.sealed(Repaired(digest="2" * 64), "c", at=(1, 1)), "other integers")
    refused(state, scene.sealed(Repaired(digest="3" * 64), "c", at=(1, 1)), "other integers")


def test_colluders_cannot_talk_an_honest_silo_into_their_integers(scene: Scene) -> None:
    """They can only say that it differs; it opens again, and gives the job up rather than repeat theirs."""
    state = scene.until(scene.start, Phase.OPENING)
    for silo, digit in zip(FOUR, "1112", strict=True):
        state = advance(state, scene.opened(state, silo, digit * 64))
    refused(state, scene.opened(state, "d", "1" * 64), "already said another", EquivocationError)
    assert state.opened_attempt(1) is None
    assert advance(state, scene.cancel("d")).close == Close("cancelled", "cancelled by d")
    burned = advance(state, scene.burn(state, "d"))
    assert (burned.round, burned.attempt, burned.opened) == (1, 2, ())


def test_a_silo_that_differs_and_stays_away_does_not_hold_the_others(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.OPENING)
    for silo, digit in zip(FOUR, "2111", strict=True):
        state = advance(state, scene.opened(state, silo, digit * 64))
    refused(state, scene.absence(state, "b"), "did all that was due")
    state = advance(state, scene.absence(state, "a"))
    assert (state.attempt, state.contributors) == (2, ("b", "c", "d"))


# ── pauses ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_pauses_again_and_again(scene: Scene) -> None:
    state = scene.start
    for _ in range(MAX_PAUSES):
        state = advance(state, scene.pause(state, "c"))
        refused(state, scene.pause(state, "b"), "paused already")
        state = advance(state, scene.resume(state, "a"))
    refused(state, scene.pause(state, "c"), f"paused this job {MAX_PAUSES} times")
    assert advance(state, scene.pause(state, "b")).is_paused
    assert scene.until(state, Phase.ENDED).outcome == "completed"


def test_a_pause_or_resume_is_replayed(scene: Scene) -> None:
    paused = scene.pause(scene.start, "b")
    state = advance(scene.start, paused)
    resumed = scene.resume(state, "b")
    state = advance(state, resumed)
    assert advance(state, paused) is state
    again = advance(state, scene.pause(state, "c"))
    assert advance(again, resumed) is again
    assert again.is_paused
    for at in ((0, 0), (0, 2), (0, 5), (1, 4)):
        refused(again, scene.sealed(Resume(), "a", at=at), "while the job is", StalePostError)


def test_a_resume_of_a_job_that_is_not_paused(scene: Scene) -> None:
    refused(scene.start, scene.resume(scene.start, "a"), "not paused")


def test_a_stranger_pauses_a_job(scene: Scene) -> None:
    refused(scene.start, scene.pause(scene.start, "stranger"), "may not post")
    state = advance(scene.start, scene.pause(scene.start, "b"))
    refused(state, scene.resume(state, "stranger"), "may not post")


def test_a_pause_that_could_hold_nothing_but_the_end(scene: Scene) -> None:
    for phase in (Phase.COLLECTING, Phase.CLOSING, Phase.WITNESSING):
        state = scene.until(scene.start, phase, round=3)
        refused(state, scene.pause(state, "a"), "last round has begun")
    ended = scene.until(scene.start, Phase.ENDED)
    refused(ended, scene.pause(ended, "a"), "has ended", StalePostError)


def test_a_paused_job_is_neither_kept_from_its_end_nor_ended_by_what_nobody_did(scene: Scene) -> None:
    state = advance(scene.start, scene.pause(scene.start, "a"))
    state = scene.until(state, Phase.PAUSED)
    refused(state, scene.sealed(scene.ephemeral(), "a", at=(1, 1)), "while the job is paused", StalePostError)
    refused(state, scene.burn(state, "a"), "while the job is paused", StalePostError)
    assert advance(state, scene.ended("expired", "too long")).outcome == "expired"
    cancelled = advance(state, scene.cancel("d"))
    assert pending(cancelled) == Close("cancelled", "cancelled by d")
    assert fold(list(cancelled.posts.values()), HUB) == cancelled
