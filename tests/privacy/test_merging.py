"""A person's scores from masked parts: exact, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.merging import MAX_FEATURE, MergeError, MergeMasks, key_of_merge, merged_scores

KEY = bytes(range(32))


def made(seed: int, scale: float, items: int = 40, features: int = 5):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(items, features)) * scale,
        rng.normal(size=items) * scale,
        rng.uniform(-1, 1, size=features),
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-60, 60), key=st.binary(min_size=32, max_size=32))
def test_the_merged_scores_are_those_of_the_model(seed: int, exponent: int, key: bytes) -> None:
    loadings, offset, features = made(seed, 2.0**exponent)
    masks = MergeMasks.draw(key, *loadings.shape)
    scores = merged_scores(masks.mask(loadings, offset), masks.unmask(features))
    largest = max(np.abs(loadings).max(), np.abs(offset).max())
    assert np.abs(scores - (loadings @ features + offset)).max() <= 1e-6 * largest


def test_the_widest_model_and_features_do_not_overflow() -> None:
    loadings, offset = np.full((3, 64), 1.999), np.full(3, 4095.0)
    masks = MergeMasks.draw(KEY, 3, 64)
    scores = merged_scores(masks.mask(loadings, offset), masks.unmask(np.full(64, MAX_FEATURE)))
    assert scores == pytest.approx(64 * MAX_FEATURE * 1.999 + 4095.0, rel=1e-6)


def test_a_model_of_zeros_is_masked_like_any_other() -> None:
    masks = MergeMasks.draw(KEY, 30, 4)
    model = masks.mask(np.zeros((30, 4)), np.zeros(30))
    assert np.array_equal(model.loadings, masks.of_loadings)
    assert np.array_equal(merged_scores(model, masks.unmask(np.ones(4))), np.zeros(30))


def test_masked_words_are_uniform_to_whoever_lacks_the_key() -> None:
    loadings, offset, _ = made(1, 1.0, items=4_000, features=16)
    model = MergeMasks.draw(KEY, *loadings.shape).mask(loadings, offset)
    bits = np.unpackbits(model.loadings.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 6 * 0.5 / np.sqrt(model.loadings.size)
    again = MergeMasks.draw(key_of_merge(KEY, bytes(32)), *loadings.shape).mask(loadings, offset)
    assert np.count_nonzero(model.loadings == again.loadings) == 0


def test_other_features_than_the_unmasked_ones_give_noise() -> None:
    loadings, offset, features = made(2, 1.0)
    masks = MergeMasks.draw(KEY, *loadings.shape)
    given_to_person = masks.unmask(features)
    chosen = given_to_person.features.copy()
    chosen[0] += 1
    model = masks.mask(loadings, offset)
    probed = merged_scores(model, given_to_person._replace(features=chosen))
    true = loadings @ features + offset
    assert np.median(np.abs(probed - true)) > 1e3 * np.abs(true).max()


def test_keys_of_two_tickets_are_two_keys() -> None:
    keys = {key_of_merge(KEY, ticket) for ticket in (bytes(32), bytes(31) + b"\1")}
    assert len(keys | {KEY}) == 3


@pytest.mark.parametrize("features", [[33.0, 0.0], [np.nan, 0.0], [np.inf, 0.0], [0.0]])
def test_features_that_do_not_fit_are_refused(features: list[float]) -> None:
    with pytest.raises(MergeError):
        MergeMasks.draw(KEY, 3, 2).unmask(np.array(features))


def test_what_does_not_belong_together_is_refused() -> None:
    masks = MergeMasks.draw(KEY, 3, 2)
    with pytest.raises(MergeError, match="no numbers"):
        masks.mask(np.full((3, 2), np.nan), np.zeros(3))
    with pytest.raises(MergeError, match="shape"):
        masks.mask(np.zeros((4, 2)), np.zeros(4))
    with pytest.raises(MergeError, match="same ticket"):
        merged_scores(
            masks.mask(np.zeros((3, 2)), np.zeros(3)), MergeMasks.draw(KEY, 4, 2).unmask(np.zeros(2))
        )
    with pytest.raises(MergeError, match="64"):
        MergeMasks.draw(KEY, 3, 65)
