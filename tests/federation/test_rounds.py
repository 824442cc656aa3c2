from __future__ import annotations

import pytest

from federation.job_state import IN_LEG
from federation.messages import Ephemeral, Keys, PostKind, Receipts
from federation.rounds import (
    Close,
    Duty,
    JobState,
    Phase,
    StalePostError,
    SumStreams,
    advance,
    duty,
    fold,
    pending,
    propose,
)
from privacy.errors import EquivocationError, ProtocolError
from tests.contracts.board_scene import FOUR, HUB, NAMES, Scene, scene_plan


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(scene_plan())


def outcome(state: JobState, scene: Scene) -> str | None:
    return scene.until(state, Phase.ENDED).outcome


def test_a_job_of_honest_parties_goes_through_every_phase_once(scene: Scene) -> None:
    seen, state = [scene.start.phase], scene.start
    while state.phase is not Phase.ENDED:
        state = advance(state, scene.due(state)[0])
        if state.phase is not seen[-1]:
            seen.append(state.phase)
    assert seen == [phase for phase in Phase if phase not in (Phase.PAUSED, *IN_LEG)]
    assert (state.outcome, state.burned, state.failed_opens) == ("completed", 0, 0)
    assert fold(list(state.posts.values()), HUB) == state


def test_the_state_keeps_nothing_that_its_posts_do_not_say(scene: Scene) -> None:
    state = scene.start
    while state.phase is not Phase.ENDED:
        assert fold(list(state.posts.values()), HUB) == state
        state = advance(state, scene.due(state)[0])


def test_duties_follow_the_phases_and_end_with_the_own_post(scene: Scene) -> None:
    assert [duty(scene.start, name) for name in NAMES] == [Duty.ANSWER] * 3
    keying = scene.until(scene.start, Phase.KEYING)
    assert [duty(keying, name) for name in NAMES] == [Duty.WRAP, None, None]
    collecting = scene.until(scene.start, Phase.COLLECTING)
    assert duty(collecting, "b") is Duty.PROTECT
    sent = advance(collecting, scene.sealed(scene.stream(collecting), "b", at=(1, 1)))
    assert duty(sent, "b") is Duty.UPLOAD
    assert duty(sent, "stranger") is None
    ended = scene.until(scene.start, Phase.ENDED)
    assert [duty(ended, name) for name in NAMES] == [Duty.FINISH] * 3


def test_the_sum_is_owed_once_every_stream_is_announced(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.COLLECTING)
    for name in NAMES:
        assert pending(state) is None
        state = advance(state, scene.sealed(scene.stream(state), name, at=(1, 1)))
    assert pending(state) == SumStreams(1, 1)


def test_one_denial_ends_the_job_after_everybody_has_answered(scene: Scene) -> None:
    state = advance(scene.start, scene.denial("b"))
    assert pending(state) is None
    for name in ("a", "c"):
        answer = scene.say(state, name, Duty.ANSWER)
        assert answer is not None
        state = advance(state, answer)
    assert pending(state) == Close("denied", "refused by b")
    assert outcome(state, scene) == "denied"


def test_a_denial_by_a_large_roster_still_fits_the_last_post() -> None:
    names = tuple(f"{'x' * 50}{number:02d}" for number in range(64))
    scene = Scene(scene_plan(names))
    state = scene.start
    for name in names:
        state = advance(state, scene.denial(name))
    assert outcome(state, scene) == "denied"


@pytest.mark.parametrize("who", [*NAMES, HUB])
def test_every_party_of_a_job_may_cancel_it(scene: Scene, who: str) -> None:
    state = advance(scene.until(scene.start, Phase.RECEIVING), scene.cancel(who))
    assert pending(state) == Close("cancelled", f"cancelled by {who}")
    assert duty(state, "a") is None
    with pytest.raises(StalePostError, match="being closed"):
        advance(state, scene.burn(state, "b"))
    ended = scene.until(state, Phase.ENDED)
    with pytest.raises(StalePostError, match="has ended"):
        advance(ended, scene.burn(state, "b"))


def test_a_burn_costs_an_attempt_and_then_the_job() -> None:
    scene = Scene(scene_plan(max_burned_rounds=1))
    state = scene.until(scene.start, Phase.RECEIVING)
    state = advance(state, scene.burn(state, "c"))
    assert (state.phase, state.round, state.attempt, state.burned) == (Phase.EXCHANGING, 1, 2, 1)
    again = scene.until(state, Phase.OPENING)
    assert outcome(again, scene) == "completed"
    ended = scene.until(advance(again, scene.burn(again, "a")), Phase.ENDED)
    assert ended.outcome == "failed"
    assert "pays for 1 burned rounds" in ended.reason


def test_a_failed_open_burns_for_all_and_the_second_one_ends_the_job() -> None:
    scene = Scene(scene_plan(max_burned_rounds=5))
    state = scene.until(scene.start, Phase.OPENING)
    for attempt in (1, 2):
        assert (state.round, state.attempt) == (1, attempt)
        state = advance(state, scene.failed(state, "b"))
        assert state.phase is Phase.OPENING
        for name in ("a", "c"):
            post = scene.say(state, name, Duty.OPEN)
            assert post is not None
            state = advance(state, post)
        if attempt == 1:
            assert state.phase is Phase.EXCHANGING
            state = scene.until(state, Phase.OPENING)
    assert pending(state) == Close("failed", "a sum was rejected too often")


@pytest.mark.parametrize("digests", ["12", "123", "112", "1122"])
def test_silos_that_opened_different_integers_end_the_job_unless_all_but_one_agree(digests: str) -> None:
    scene = Scene(scene_plan(FOUR[: len(digests)]))
    state = scene.until(scene.start, Phase.OPENING)
    for name, digit in zip(state.roster, digests, strict=True):
        state = advance(state, scene.opened(state, name, digit * 64))
    alone = "c" if digests == "112" else None
    assert (state.odd_one, [duty(state, name) for name in state.roster].count(Duty.REPAIR)) == (
        alone,
        1 if alone else 0,
    )
    if alone is None:
        assert pending(state) == Close("failed", "the silos opened different sums")


def test_rounds_follow_each_other_with_fresh_attempts() -> None:
    scene = Scene(scene_plan(rounds=3, max_burned_rounds=1))
    state = scene.until(scene.start, Phase.EXCHANGING, round=2)
    state = advance(state, scene.burn(state, "a"))
    assert (state.round, state.attempt) == (2, 2)
    state = scene.until(state, Phase.EXCHANGING, round=3)
    assert state.attempt == 1
    assert [state.opened_attempt(number) for number in (0, 1, 2, 3)] == [None, 1, 2, None]
    assert outcome(state, scene) == "completed"


def test_a_burned_metrics_round_is_not_repeated() -> None:
    scene = Scene(scene_plan(metrics=True, max_burned_rounds=3))
    state = scene.until(scene.start, Phase.COLLECTING, round=2)
    state = advance(state, scene.burn(state, "a"))
    assert state.phase is Phase.CLOSING
    assert state.opened_attempt(2) is None
    assert outcome(state, scene) == "completed"


def test_the_job_id_and_transcripts_bind_every_ephemeral(scene: Scene) -> None:
    with pytest.raises(ProtocolError, match="before every silo has started"):
        _ = scene.start.job_id
    first, second = (scene.until(scene.start, Phase.COLLECTING) for _ in range(2))
    assert first.job_id != second.job_id
    assert first.transcript(1, 1) != second.transcript(1, 1)


def test_a_proposal_is_the_first_post_and_no_other(scene: Scene) -> None:
    with pytest.raises(ProtocolError, match="begins with a proposal"):
        propose(scene.cancel("a"), HUB)
    with pytest.raises(ProtocolError, match="another job"):
        advance(scene.start, scene.proposal)


def test_an_ephemeral_key_is_taken_once(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    used = state.roster_posts(PostKind.EPHEMERAL)[0].content(Ephemeral)
    with pytest.raises(ProtocolError, match="seen before"):
        advance(state, scene.sealed(used, "b", at=(1, 1)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"roster": ("a", "b")}, "another roster"),
        ({"policy_version": 4}, "another policy"),
        ({"plan_sha256": "1" * 64}, "another plan"),
    ],
)
def test_an_ephemeral_speaks_of_this_plan_roster_and_policy(
    scene: Scene, change: dict[str, object], match: str
) -> None:
    state = scene.until(scene.start, Phase.STARTING)
    with pytest.raises(ProtocolError, match=match):
        advance(state, scene.sealed(scene.ephemeral().model_copy(update=change), "a"))


@pytest.mark.parametrize(
    "wrapped", [{"b": "AAAA"}, {"b": "AAAA", "c": "AAAA", "a": "AAAA"}, {"b": "AA", "c": "*"}]
)
def test_keys_go_to_each_other_silo_as_base64(scene: Scene, wrapped: dict[str, str]) -> None:
    state = scene.until(scene.start, Phase.KEYING)
    with pytest.raises(ProtocolError):
        advance(state, scene.sealed(Keys(wrapped=wrapped), "a"))


def test_receipts_are_for_the_posted_heads(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.WITNESSING)
    honest = scene.receipts(state, "a")
    altered = honest.receipts[0].model_copy(update={"seq": 99})
    for receipts in ((), honest.receipts[:1], (altered, honest.receipts[1])):
        with pytest.raises(ProtocolError):
            advance(state, scene.sealed(Receipts(receipts=receipts), "a"))


def test_the_coordinator_can_give_up_but_decide_nothing(scene: Scene) -> None:
    for claimed in ("completed", "denied", "cancelled"):
        with pytest.raises(ProtocolError, match="nobody has decided"):
            advance(scene.start, scene.ended(claimed))
    assert advance(scene.start, scene.ended("expired", "too long")).outcome == "expired"
    cancelled = advance(scene.start, scene.cancel("a"))
    with pytest.raises(ProtocolError, match="calls it failed"):
        advance(cancelled, scene.ended("failed", "no"))


@pytest.mark.parametrize(
    "phase", [Phase.PROPOSED, Phase.KEYING, Phase.COLLECTING, Phase.OPENING, Phase.CLOSING]
)
def test_the_opposite_answer_is_an_equivocation(scene: Scene, phase: Phase) -> None:
    state = scene.until(scene.start, phase)
    if phase is Phase.PROPOSED:
        answer = scene.say(state, "a", Duty.ANSWER)
        assert answer is not None
        with pytest.raises(EquivocationError):
            advance(advance(state, answer), scene.denial("a"))
    elif phase is Phase.OPENING:
        opened = scene.say(state, "a", Duty.OPEN)
        assert opened is not None
        with pytest.raises(EquivocationError):
            advance(advance(state, opened), scene.failed(state, "a"))
    else:
        with pytest.raises(StalePostError):
            advance(state, scene.failed(state, "a"))
