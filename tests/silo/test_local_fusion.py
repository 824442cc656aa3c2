from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from silo.data.interactions import Interactions
from silo.evaluation import NothingToEvaluateError, aligned_rows, per_user_metrics, rank
from silo.local import fusion
from silo.local.fusion import METRIC, Blend, choose_weights, halves, standardised
from silo.models.recommender import Recommender
from tests.contracts.family_contract import make_catalogue, make_interactions

NUM_ITEMS = 60
LAST = NUM_ITEMS - 1  # ties go to the first
CATALOGUE = make_catalogue(NUM_ITEMS)


def world(seed: int = 0, num_users: int = 200) -> tuple[Interactions, Interactions]:
    """Items come in pairs (2n, 2n+1); people hold out the partners of what they have, and the last item."""
    rng = np.random.default_rng(seed)
    evens = [sorted(rng.choice(np.arange(0, LAST - 1, 2), 3, replace=False)) for _ in range(num_users)]
    train = make_interactions([[int(item) for item in items] for items in evens], CATALOGUE)
    held = make_interactions([[*(int(item) + 1 for item in items[:2]), LAST] for items in evens], CATALOGUE)
    return train, held


def model_of(left: np.ndarray) -> Recommender:
    zeros = np.zeros(NUM_ITEMS, np.float32)
    return Recommender(left.astype(np.float32), None, zeros, zeros)


def partners() -> Recommender:
    left = np.random.default_rng(0).uniform(0, 2e5, (NUM_ITEMS, NUM_ITEMS))
    left[np.arange(0, NUM_ITEMS, 2), np.arange(1, NUM_ITEMS, 2)] = 1e6  # the scale must not count
    return model_of(left)


def last_first() -> Recommender:
    left = np.zeros((NUM_ITEMS, NUM_ITEMS))
    left[:, LAST] = 1e-3
    return model_of(left)


def noise(seed: int = 1) -> Recommender:
    return model_of(np.random.default_rng(seed).standard_normal((NUM_ITEMS, NUM_ITEMS)))


def test_scores_are_standardised_over_unseen_items_of_one_user() -> None:
    scores = np.array([[100.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 9.0]])
    seen = sp.csr_matrix(np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
    found = standardised(scores, seen)
    np.testing.assert_allclose(found[0, 1:], [-np.sqrt(1.5), 0, np.sqrt(1.5)])
    assert not found[1].any()


def test_one_users_standardised_scores_depend_on_nobody_else() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 9))
    seen = sp.csr_matrix((5, 9))
    np.testing.assert_array_equal(standardised(scores, seen)[3:4], standardised(scores[3:4], seen[3:4]))


def test_equal_scores_of_float32_are_no_opinion() -> None:
    scores = np.full((1, 999), 0.1, np.float32)
    assert not standardised(scores, sp.csr_matrix((1, 999))).any()


def test_whoever_has_seen_everything_is_no_error() -> None:
    assert standardised(np.ones((1, 3)), sp.csr_matrix(np.ones((1, 3)))).shape == (1, 3)


def test_a_blend_is_the_weighted_sum_whatever_the_scales() -> None:
    train, _ = world()
    seen = train.matrix()
    blend = Blend({"a": partners(), "b": last_first()}, {"a": 0.25, "b": 0.75})
    expected = 0.25 * standardised(partners().scores(seen), seen)
    expected += 0.75 * standardised(last_first().scores(seen), seen)
    np.testing.assert_allclose(blend.scores(seen), expected)
    assert blend.num_items == NUM_ITEMS


def test_halves_are_disjoint_and_a_persons_half_is_their_own() -> None:
    _, held = world()
    validation, test = halves(held)
    assert not set(validation.user_ids) & set(test.user_ids)
    assert sorted((*validation.user_ids, *test.user_ids)) == sorted(held.user_ids)
    assert 70 < validation.num_users < 130
    fewer, _ = halves(held.select(range(0, 200, 3)))
    assert set(fewer.user_ids) == set(validation.user_ids) & set(held.user_ids[::3])


def test_users_without_held_out_rows_are_in_no_half() -> None:
    held = make_interactions([[1] if user % 2 else [] for user in range(60)], CATALOGUE)
    assert {int(name[1:]) % 2 for half in halves(held) for name in half.user_ids} == {1}


def test_no_more_validation_users_than_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, held = world()
    whole, others = halves(held)
    monkeypatch.setattr(fusion, "MAX_VALIDATION_USERS", 10)
    some, same = halves(held)
    assert some.num_users == 10
    assert set(some.user_ids) < set(whole.user_ids)
    assert same.user_ids == others.user_ids


@pytest.mark.parametrize("num_users", [0, 1])
def test_too_few_users_make_no_halves(num_users: int) -> None:
    with pytest.raises(NothingToEvaluateError, match="halves"):
        halves(make_interactions([[1]] * num_users, CATALOGUE))


def test_two_models_that_know_different_things_are_both_used_and_noise_is_not() -> None:
    train, held = world()
    validation, test = halves(held)
    known = {"noise": noise(), "partners": partners(), "last": last_first()}
    weights = choose_weights(known, train, validation)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert min(weights["partners"], weights["last"]) > 0
    assert weights["noise"] == 0

    def quality(model: Recommender | Blend) -> float:
        return float(np.mean(per_user_metrics(rank(model, train, test))[METRIC]))

    assert quality(Blend(known, weights)) > max(map(quality, known.values())) + 0.1


def test_on_its_users_the_blend_is_never_worse_than_the_best_single_model() -> None:
    for seed in (0, 21, 59):  # of 21 and 59 the last sum is worse than the best model alone
        train, held = world(seed, num_users=6)
        known = {str(draw): noise(100 * seed + draw) for draw in range(4)}
        weights = choose_weights(known, train, held)

        def quality(
            model: Recommender | Blend, rows: tuple[Interactions, Interactions] = (train, held)
        ) -> float:
            return float(np.mean(per_user_metrics(rank(model, *rows))[METRIC]))

        assert quality(Blend(known, weights)) >= max(map(quality, known.values())) - 1e-12


def test_equal_models_are_settled_by_order() -> None:
    train, held = world()
    assert choose_weights({"a": partners(), "b": partners()}, train, held) == {"a": 1.0, "b": 0.0}


def test_rows_are_matched_by_the_users_names() -> None:
    train, held = world(num_users=5)
    seen, relevant = aligned_rows(train, held.select([4, 2]))
    np.testing.assert_array_equal(seen.toarray(), train.matrix()[[4, 2]].toarray())
    np.testing.assert_array_equal(relevant.toarray(), held.matrix()[[4, 2]].toarray())
