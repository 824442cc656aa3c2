from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.messages import Envelope, Ephemeral, Place, PostKind
from federation.posts import Posts
from federation.rounds import Phase
from tests.contracts.board_scene import Scene, scene_plan

SCENE = Scene(scene_plan())
ENVELOPES = list(SCENE.until(SCENE.start, Phase.ENDED).posts.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from(ENVELOPES)), max_size=40))
def test_growing_any_earlier_value_is_as_good_as_copying_it(steps: list[tuple[int, Envelope]]) -> None:
    """``steps``: which of the values so far grows, and by what."""
    values: list[tuple[Posts, dict[Place, Envelope]]] = [(Posts(), {})]
    for which, envelope in steps:
        posts, model = values[which % len(values)]
        if envelope.place not in posts:
            values.append((posts.adding(envelope), {**model, envelope.place: envelope}))
    for posts, model in values:
        assert (len(posts), dict(posts), list(posts)) == (len(model), model, list(model))
        for envelope in ENVELOPES:
            assert posts.get(envelope.place) == model.get(envelope.place)
            if envelope.kind is PostKind.EPHEMERAL:
                key = envelope.content(Ephemeral).public_key
                assert posts.has_public_key(key) == (envelope.place in model)


def test_a_value_grown_twice_by_the_same_post_shares_it_and_by_another_does_not() -> None:
    first, second, third = ENVELOPES[:3]
    base = Posts().adding(first)
    assert base.adding(second) == base.adding(second)
    left, right = base.adding(second), base.adding(third)
    assert (list(left), list(right)) == ([first.place, second.place], [first.place, third.place])
    assert len(base) == 1
    with pytest.raises(KeyError):
        _ = base[second.place]


def test_a_job_of_many_posts_is_not_copied_at_every_step() -> None:
    grown = [Posts()]
    for envelope in ENVELOPES:
        grown.append(grown[-1].adding(envelope))
    assert all(before._log is after._log for before, after in pairwise(grown))
