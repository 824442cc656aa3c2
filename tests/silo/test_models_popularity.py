from __future__ import annotations

from typing import ClassVar

import numpy as np

from policies.plans.price import RoundShape
from silo.models.base import Family
from silo.models.popularity import Popularity
from tests.contracts.family_contract import (
    NUM_ITEMS,
    FamilyContract,
    make_catalogue,
    make_interactions,
    make_plan,
    random_histories,
)


class TestPopularity(FamilyContract):
    model: ClassVar = {"family": "popularity"}

    def test_the_sum_is_each_users_weight_on_their_items(self, family: Family, shape: RoundShape) -> None:
        vector = self.contribution(family, shape, [[0], [0, 1], [0, 1, 2, 3]])
        assert shape.grid == 1024
        assert vector[:5].tolist() == [1024 + 724 + 512, 724 + 512, 512, 512, 0]

    def test_without_noise_the_counts_come_back(self, family: Family, shape: RoundShape) -> None:
        exact = Popularity(family.plan, family.catalogue, noise_std=0.0)
        sums = self.contribution(family, shape, random_histories(0))
        model = exact.finish(exact.absorb({}, sums, 0, shape, 4))
        np.testing.assert_allclose(model.popularity, sums / shape.grid, rtol=1e-6)

    def test_everybody_gets_the_same_list_and_it_is_no_fallback(
        self, family: Family, shape: RoundShape
    ) -> None:
        model = self.finished(family)
        histories = make_interactions(random_histories(1), family.catalogue).matrix()
        scores = model.scores(histories)
        assert not model.falls_back(histories).any()
        np.testing.assert_array_equal(scores, np.tile(model.popularity, (len(scores), 1)))

    def test_noise_is_shrunk_not_reported(self, family: Family, shape: RoundShape) -> None:
        rng = np.random.default_rng(5)
        noise = np.rint(rng.standard_normal(NUM_ITEMS) * family.total_noise_std(shape, 4))
        model = family.finish(family.absorb({}, noise.astype(np.int64), 0, shape, 4))
        assert model.popularity.max() < np.abs(noise).max() / shape.grid


def test_the_noise_of_an_aggregate_is_all_shares_together() -> None:
    from policies.plans.price import schedule

    catalogue = make_catalogue()
    plan = make_plan(catalogue, {"family": "popularity"})
    (shape,) = schedule(plan)
    family = Popularity(plan, catalogue)
    # Four shares of variance σ²/3 each: √(4/3) σ.
    np.testing.assert_allclose(family.total_noise_std(shape, 4), 1.2 * 1024 * np.sqrt(4 / 3))
