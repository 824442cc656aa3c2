"""Whatever order, repetition or malice posts arrive with, a job is never corrupted."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.job_state import JobState, Phase
from federation.messages import Envelope, Place, PostKind, Stream
from federation.rounds import advance, duty, fold, pending
from privacy.errors import EquivocationError, ProtocolError
from tests.contracts.board_scene import HUB, NAMES, Scene, scene_plan

SCENE = Scene(scene_plan(max_burned_rounds=2))
OTHER = Scene(scene_plan(max_burned_rounds=2))
ORDER = list(Phase)
RNGS = st.integers(0, 2**32).map(random.Random)


def attempt_to_post(state: JobState, envelope: Envelope) -> JobState:
    """What a coordinator does: a refusal leaves the state as it was."""
    before = (state.phase, state.round, state.attempt, dict(state.posts))
    try:
        return advance(state, envelope)
    except (ProtocolError, EquivocationError):
        assert (state.phase, state.round, state.attempt, dict(state.posts)) == before
        return state


def mischief(state: JobState, rng: random.Random) -> Envelope:
    """Something that may or may not be allowed now."""
    silo = rng.choice(NAMES)
    places = list(state.posts.values())
    choices = [
        lambda: rng.choice(places),
        lambda: SCENE.burn(state, silo),
        lambda: SCENE.failed(state, silo),
        lambda: SCENE.denial(silo),
        lambda: SCENE.sealed(Stream(sha256="9" * 64, num_bytes=5, num_frames=1), silo, at=(1, 1)),
        lambda: SCENE.sealed(SCENE.ephemeral(), silo, at=(rng.randint(0, 2), rng.randint(0, 3))),
        lambda: SCENE.ended(rng.choice(["completed", "denied", "cancelled"])),
        lambda: SCENE.sealed(SCENE.ephemeral(), "stranger"),
        lambda: OTHER.denial(silo),
        lambda: SCENE.proposal,
    ]
    return rng.choice(choices)()


@settings(max_examples=60, deadline=None)
@given(RNGS, st.floats(0.0, 0.6))
def test_any_interleaving_ends_with_a_reason_and_replays_to_the_same_state(
    rng: random.Random, malice: float
) -> None:
    state = SCENE.start
    for _ in range(400):
        if state.phase is Phase.ENDED:
            break
        due = SCENE.due(state)
        assert due, "nobody has anything to do and the job has not ended"
        post = mischief(state, rng) if rng.random() < malice else rng.choice(due)
        state = attempt_to_post(state, post)
    assert state.phase is Phase.ENDED
    assert state.outcome is not None
    assert state.reason
    posts = list(state.posts.values())
    assert fold(posts, HUB) == state
    assert all(advance(state, post) is state for post in posts[1:])
    assert pending(state) is None
    assert state.outcome != "completed" or state.opened_attempt(1) is not None


@settings(max_examples=40, deadline=None)
@given(RNGS)
def test_every_place_holds_one_post_and_attempts_never_come_back(rng: random.Random) -> None:
    state, reached = SCENE.start, (0, 0)
    while state.phase is not Phase.ENDED:
        post = mischief(state, rng) if rng.random() < 0.3 else rng.choice(SCENE.due(state))
        after = attempt_to_post(state, post)
        for place, envelope in state.posts.items():
            assert after.posts[place] == envelope
        assert (after.round, after.attempt) >= reached
        assert after.burned <= state.plan.training.max_burned_rounds + 1
        state, reached = after, (after.round, after.attempt)
    keys = [e.body["public_key"] for place, e in state.posts.items() if place.kind is PostKind.EPHEMERAL]
    assert len(set(keys)) == len(keys)


@settings(max_examples=40, deadline=None)
@given(RNGS)
def test_the_order_within_a_phase_does_not_matter(rng: random.Random) -> None:
    state = SCENE.start
    while state.phase is not Phase.ENDED:
        posts = [post for post in SCENE.due(state) if post.kind not in {PostKind.SUM, PostKind.ENDED}]
        posts = posts or SCENE.due(state)
        shuffled = rng.sample(posts, len(posts))
        one, two = state, state
        for post in posts:
            one = advance(one, post)
        for post in shuffled:
            two = advance(two, post)
        assert dict(one.posts) == dict(two.posts)
        assert (one.phase, one.round, one.attempt) == (two.phase, two.round, two.attempt)
        assert [duty(one, name) for name in NAMES] == [duty(two, name) for name in NAMES]
        if one.phase is not Phase.PROPOSED and one.roster_posts(PostKind.EPHEMERAL)[2:]:
            assert one.job_id == two.job_id
        state = one


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ORDER[:-1]), st.sampled_from(NAMES), st.integers(0, 3), st.integers(0, 3))
def test_a_post_for_a_place_that_the_job_is_not_at_changes_nothing(
    phase: Phase, silo: str, round: int, attempt: int
) -> None:
    state = SCENE.until(SCENE.start, phase)
    post = SCENE.sealed(SCENE.ephemeral(), silo, at=(round, attempt))
    here = {
        Phase.STARTING: (0, 0),
        Phase.EXCHANGING: (1, 1),
    }.get(phase)
    after = attempt_to_post(state, post)
    is_new = Place(PostKind.EPHEMERAL, round, attempt, silo) not in state.posts
    assert (after is not state) == (here == (round, attempt) and is_new)
