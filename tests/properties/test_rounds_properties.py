"""Whatever order, repetition or malice posts arrive with, a job is never corrupted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.job_state import IN_LEG, IN_ROUND, JobState, Phase
from federation.messages import Envelope, Ephemeral, Place, PostKind, Stream
from federation.rounds import advance, duty, fold, owing, pending
from privacy.errors import EquivocationError, ProtocolError
from tests.contracts.board_scene import FIVE, HUB, NAMES, Scene, patient_plan, scene_plan

Look = Callable[[JobState, JobState], None]
ONE_SUM = scene_plan(max_burned_rounds=2)
TRAINING = patient_plan(FIVE, rounds=2, max_burned_rounds=3, popularity=True, metrics=True)
SCENES = [Scene(ONE_SUM), Scene(TRAINING)]
OTHERS = {id(scene): Scene(scene.plan) for scene in SCENES}
OF_THEIR_OWN_TIME = {PostKind.SUM, PostKind.ENDED, PostKind.RETURN}
RNGS = st.integers(0, 2**32).map(random.Random)
anywhere = pytest.mark.parametrize("scene", SCENES, ids=["one sum", "training"])


def attempt_to_post(state: JobState, envelope: Envelope) -> JobState:
    """What a coordinator does: a refusal leaves the state as it was."""
    before = (state.phase, state.round, state.attempt, dict(state.posts))
    try:
        return advance(state, envelope)
    except (ProtocolError, EquivocationError):
        assert (state.phase, state.round, state.attempt, dict(state.posts)) == before
        return state


def mischief(scene: Scene, state: JobState, rng: random.Random) -> Envelope:
    """Something that may or may not be allowed now."""
    silo = rng.choice(state.roster)
    some = tuple(name for name in state.roster if rng.random() < 0.4) or (silo,)
    at = (rng.randint(0, 2), rng.randint(0, 3))
    choices: list[Callable[[], Envelope]] = [
        lambda: rng.choice(list(state.posts.values())),
        lambda: scene.burn(state, silo),
        lambda: scene.failed(state, silo),
        lambda: scene.opened(state, silo, rng.choice("12") * 64),
        lambda: scene.denial(silo),
        lambda: scene.sealed(Stream(sha256="9" * 64, num_bytes=5, num_frames=1), silo, at=(1, 1)),
        lambda: scene.sealed(scene.ephemeral(some), silo, at=at),
        lambda: scene.ended(rng.choice(["completed", "denied", "cancelled"])),
        lambda: scene.sealed(scene.ephemeral(), "stranger"),
        lambda: OTHERS[id(scene)].denial(silo),
        lambda: scene.proposal,
        *[lambda: scene.absence(state, silo)] * 2,
        lambda: scene.absence(state, *some),
        lambda: scene.back(state, silo),
        lambda: scene.sealed(scene.head(silo), silo),
        lambda: scene.pause(state, rng.choice((silo, HUB))),
        *[lambda: scene.resume(state, rng.choice((silo, HUB)))] * 2,
    ]
    return rng.choice(choices)()


def honest(scene: Scene, state: JobState, rng: random.Random) -> Envelope | None:
    """What somebody owes now; nothing where everybody waits for the end of a pause."""
    due = scene.due(state)
    if not due and state.phase is Phase.PAUSED:
        return scene.resume(state, HUB)
    return rng.choice(due) if due else None


def play(
    scene: Scene, rng: random.Random, malice: float, look: Callable[[JobState, JobState], None]
) -> JobState:
    """A job of parties who do their duty, but for one post in so many; ``look`` sees every step."""
    state = scene.start
    for _ in range(2_000):
        if state.phase is Phase.ENDED:
            return state
        post = mischief(scene, state, rng) if rng.random() < malice else honest(scene, state, rng)
        assert post is not None, "nobody has anything to do and the job has not ended"
        after = attempt_to_post(state, post)
        look(state, after)
        state = after
    raise AssertionError(f"the job has not ended: {state.phase}, round {state.round}, {state.attempt}")


def look_nowhere(_before: JobState, _after: JobState) -> None:
    pass


@anywhere
@settings(max_examples=40, deadline=None)
@given(rng=RNGS, malice=st.floats(0.0, 0.6))
def test_any_interleaving_ends_with_a_reason_and_replays_to_the_same_state(
    scene: Scene, rng: random.Random, malice: float
) -> None:
    state = play(scene, rng, malice, look_nowhere)
    assert state.outcome is not None
    assert state.reason
    posts = list(state.posts.values())
    assert fold(posts, HUB) == state
    assert all(advance(state, post) is state for post in posts[1:])
    assert (pending(state), owing(state)) == (None, ())
    if state.outcome == "completed":
        trained = [shape for shape in state.shapes if shape.purpose != "metrics"]
        assert len(state.opened) >= len(trained)
        heads = {place.sender for place in state.posts if place.kind is PostKind.HEAD}
        assert len(heads) >= state.plan.fewest_contributors


def never_few(state: JobState) -> None:
    """Every attempt has one set of contributors, large enough, that all of them signed."""
    for (round_, attempt), silos in state.attempts.items():
        assert len(silos) >= state.plan.fewest_contributors
        assert silos == tuple(silo for silo in state.roster if silo in silos)
        for post in state.roster_posts(PostKind.EPHEMERAL, round=round_, attempt=attempt):
            assert post.content(Ephemeral).roster == silos
    in_attempts = [
        place for place in state.posts if place.round > 0 and place.sender in state.roster
        and place.kind is not PostKind.RETURN
    ]  # fmt: skip
    assert all(place.sender in state.contributors_of(place.round, place.attempt) for place in in_attempts)


def never_unpaid(state: JobState) -> None:
    """No more attempts begin than a silo reserves."""
    begun = Counter(state.shapes[round_ - 1].purpose for round_, _ in state.attempts)
    training = state.plan.training
    planned = Counter(shape.purpose for shape in state.shapes)
    assert begun["metrics"] <= planned["metrics"]
    assert begun["popularity"] <= planned["popularity"] * (1 + min(1, training.max_burned_rounds))
    assert begun["training"] <= planned["training"] + training.max_burned_rounds
    assert begun["training"] + begun["popularity"] <= training.max_burned_rounds + (
        planned["training"] + planned["popularity"]
    )


@anywhere
@settings(max_examples=40, deadline=None)
@given(rng=RNGS, malice=st.floats(0.1, 0.6))
def test_what_must_hold_at_every_step(scene: Scene, rng: random.Random, malice: float) -> None:
    reached = [(0, 0)]

    def look(before: JobState, after: JobState) -> None:
        for place, envelope in before.posts.items():
            assert after.posts[place] == envelope
        assert before.attempts.items() <= after.attempts.items()
        assert after.opened[: len(before.opened)] == before.opened
        assert (after.round, after.attempt) >= reached[-1]
        reached.append((after.round, after.attempt))
        never_few(after)
        never_unpaid(after)
        assert set(owing(after)) <= set(after.contributors)
        assert after.phase not in IN_ROUND or after.contributors == after.attempts[after.round, after.attempt]
        assert not after.absent & {silo for silo in after.contributors if after.phase not in IN_ROUND}

    state = play(scene, rng, malice, look)
    keys = [e.body["public_key"] for place, e in state.posts.items() if place.kind is PostKind.EPHEMERAL]
    assert len(set(keys)) == len(keys)
    for number, attempt in enumerate(state.opened, start=1):
        digests = state.opened_digests(number, attempt)
        assert set(digests) == set(state.contributors_of(number, attempt))
        assert set(digests.values()) == {state.agreed_digest(number)}


@anywhere
@settings(max_examples=25, deadline=None)
@given(rng=RNGS)
def test_the_order_within_a_phase_does_not_matter(scene: Scene, rng: random.Random) -> None:
    state = scene.start
    while state.phase is not Phase.ENDED:
        posts = [post for post in scene.due(state) if post.kind not in OF_THEIR_OWN_TIME]
        posts = posts or scene.due(state)
        shuffled = rng.sample(posts, len(posts))
        one, two = state, state
        for post in posts:
            one = advance(one, post)
        for post in shuffled:
            two = advance(two, post)
        assert dict(one.posts) == dict(two.posts)
        assert (one.phase, one.round, one.attempt) == (two.phase, two.round, two.attempt)
        assert [duty(one, name) for name in one.roster] == [duty(two, name) for name in two.roster]
        if one.phase is not Phase.PROPOSED and len(one.roster_posts(PostKind.EPHEMERAL)) == len(one.roster):
            assert one.job_id == two.job_id
        state = one
        if rng.random() < 0.2 and owing(state) and state.phase in IN_ROUND and scene.plan is TRAINING:
            away = rng.choice(owing(state))
            state = attempt_to_post(state, scene.absence(state, away))
            assert away in state.absent


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([phase for phase in Phase if phase not in (Phase.ENDED, Phase.PAUSED, *IN_LEG)]),
    st.sampled_from(NAMES),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_a_post_for_a_place_that_the_job_is_not_at_changes_nothing(
    phase: Phase, silo: str, round: int, attempt: int
) -> None:
    scene = SCENES[0]
    state = scene.until(scene.start, phase)
    post = scene.sealed(scene.ephemeral(), silo, at=(round, attempt))
    here = {Phase.STARTING: (0, 0), Phase.EXCHANGING: (1, 1)}.get(phase)
    after = attempt_to_post(state, post)
    is_new = Place(PostKind.EPHEMERAL, round, attempt, silo) not in state.posts
    assert (after is not state) == (here == (round, attempt) and is_new)
