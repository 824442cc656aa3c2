"""What every model family must keep; a family's own test class inherits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.interactions import Interactions
from silo.models.base import Family, State, get_family
from silo.models.recommender import ModelFileError
from silo.models.shipped import ShippedModel, load_model

NUM_ITEMS = 24
NUM_USERS = 30
SILOS = ("north", "east", "south", "west")
GENRES = ("drama", "comedy", "crime", "war", "noir")


def make_catalogue(num_items: int = NUM_ITEMS) -> Catalogue:
    """Public items with overlapping attributes."""
    return Catalogue.from_items(
        CatalogueItem(
            item_id=f"i{index:04d}",
            title=f"Item {index}",
            attributes=(GENRES[index % 5], GENRES[(index // 5) % 5]),
        )
        for index in range(num_items)
    )


def make_interactions(histories: list[list[int]], catalogue: Catalogue) -> Interactions:
    """Users u0, u1, … with these item indices, in this order."""
    frame = pl.DataFrame(
        {
            "user_index": [user for user, items in enumerate(histories) for _ in items],
            "item_index": [item for items in histories for item in items],
            "timestamp": [at for items in histories for at, _ in enumerate(items)],
        },
        schema={"user_index": pl.Int64, "item_index": pl.Int64, "timestamp": pl.Int64},
    )
    return Interactions(tuple(f"u{user}" for user in range(len(histories))), frame, catalogue)


def random_histories(seed: int, num_users: int = NUM_USERS, num_items: int = NUM_ITEMS) -> list[list[int]]:
    """Two tastes, uneven lengths, popular items first."""
    rng = np.random.default_rng(seed)
    histories = []
    for user in range(num_users):
        liked = np.arange(num_items) % 2 == user % 2
        odds = np.where(liked, 4.0, 1.0) / (1.0 + np.arange(num_items))
        count = int(rng.integers(1, num_items // 2))
        histories.append(sorted(rng.choice(num_items, count, replace=False, p=odds / odds.sum()).tolist()))
    return histories


def make_plan(catalogue: Catalogue, model: dict[str, Any], **sections: dict[str, Any]) -> Plan:
    """A valid plan of four silos; ``sections`` overrides fields of training, privacy, protection."""
    privacy = {
        "unit": "user",
        "neighboring_relation": "add_or_remove_one",
        "target_epsilon": 4.0,
        "target_delta": 1e-5,
        "filter": "zcdp",
        "noise_multiplier": 1.2,
        "contribution_norm": 1.0,
        "grid": 1024,
        "noise_placement": "federation",
        "colluding_silos": 1,
        "max_silos_per_user": 2,
    }
    return Plan.model_validate(
        {
            "kind": "Plan",
            "schema_version": 1,
            "purpose": "tests",
            "partition": "horizontal",
            "silos": SILOS,
            "catalogue": {"kind": "shared", "sha256": catalogue.sha256, "items": len(catalogue)},
            "max_users_per_silo": 200,
            "max_interactions_per_user": 50,
            "holdout": {"kind": "none"},
            "model": model,
            "training": {"rounds": 1} | sections.get("training", {}),
            "privacy": privacy | sections.get("privacy", {}),
            "protection": {"encryption": "bfv", "masks": "pairwise", "min_silos": 4}
            | sections.get("protection", {}),
            "releases": {"model": "members", "metrics": "none"},
        }
    )


class FamilyContract:
    """Inherit, say ``model``, and the family is held to the contract."""

    model: ClassVar[dict[str, Any]]
    sections: ClassVar[dict[str, dict[str, Any]]] = {}

    @pytest.fixture
    def catalogue(self) -> Catalogue:
        return make_catalogue()

    @pytest.fixture
    def plan(self, catalogue: Catalogue) -> Plan:
        return make_plan(catalogue, self.model, **self.sections)

    @pytest.fixture
    def shape(self, plan: Plan) -> RoundShape:
        """Of the training rounds; a popularity round may stand before them."""
        return next(shape for shape in schedule(plan) if shape.purpose == "training")

    @pytest.fixture
    def family(self, plan: Plan, catalogue: Catalogue) -> Family:
        return get_family(plan)(plan, catalogue)

    def untrained(self, family: Family) -> State:
        """The state in which the training rounds begin, whatever is summed before them."""
        first = schedule(family.plan)[0]
        state = family.initial_state()
        if first.purpose != "training":
            state = family.absorb(state, self.noised_sum(family, first, state, 0), 0, first, len(SILOS))
        return state

    def noised_sum(
        self, family: Family, shape: RoundShape, state: State, round_index: int, seed: int = 0
    ) -> NDArray[np.int64]:
        """Four silos' contributions and their noise; the noise is fixed, the rest is the real path."""
        sums = np.zeros(shape.values, dtype=np.int64)
        for silo in range(len(SILOS)):
            rows = make_interactions(random_histories(10 * seed + silo), family.catalogue)
            sums += family.contribute(rows, state, round_index, shape)
        rng = np.random.default_rng([seed, round_index])
        noise = rng.standard_normal(shape.values) * family.total_noise_std(shape, len(SILOS))
        sums += np.rint(noise).astype(np.int64)
        return sums

    def trained(self, family: Family, seed: int = 0) -> State:
        """The state after all rounds of ``noised_sum``."""
        state = family.initial_state()
        for round_index, shape in enumerate(schedule(family.plan)):
            sums = self.noised_sum(family, shape, state, round_index, seed)
            state = family.absorb(state, sums, round_index, shape, len(SILOS))
        return state

    def finished(self, family: Family, seed: int = 0) -> ShippedModel:
        return family.finish(self.trained(family, seed))

    def contribution(
        self, family: Family, shape: RoundShape, histories: list[list[int]]
    ) -> NDArray[np.int64]:
        interactions = make_interactions(histories, family.catalogue)
        round_index = schedule(family.plan).index(shape)
        return family.contribute(interactions, self.untrained(family), round_index, shape)

    # ── contribute ───────────────────────────────────────────────────────────────────────────────────────

    def test_contribution_has_the_rounds_shape_and_type(self, family: Family, shape: RoundShape) -> None:
        vector = self.contribution(family, shape, random_histories(0))
        assert vector.dtype == np.int64
        assert vector.shape == (shape.values,)
        assert vector.any()

    def test_contribution_is_deterministic(self, family: Family, shape: RoundShape) -> None:
        first = self.contribution(family, shape, random_histories(1))
        second = self.contribution(family, shape, random_histories(1))
        np.testing.assert_array_equal(first, second)

    def test_what_each_user_adds_sums_to_the_contribution(self, family: Family, shape: RoundShape) -> None:
        histories = random_histories(2)
        interactions = make_interactions(histories, family.catalogue)
        round_index, state = schedule(family.plan).index(shape), self.untrained(family)
        each = family.contribute_each(interactions, state, round_index, shape)
        assert each.shape == (len(histories), shape.values)
        np.testing.assert_allclose(
            each.sum(axis=0), self.contribution(family, shape, histories), atol=0.5 + 1e-6 * shape.grid
        )
        norms = np.sqrt(each.multiply(each).sum(axis=1))
        assert norms.max() <= family.plan.privacy.max_silos_per_user * shape.grid * (1 + 1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_one_random_user_moves_the_sum_within_the_sensitivity(
        self, family: Family, shape: RoundShape, seed: int
    ) -> None:
        histories = random_histories(seed)
        whole = self.contribution(family, shape, histories)
        for user in (0, seed, NUM_USERS - 1):
            without = self.contribution(family, shape, histories[:user] + histories[user + 1 :])
            self._assert_within_sensitivity(whole - without, family, shape)

    @pytest.mark.parametrize(
        "adversary",
        [
            pytest.param([], id="no-items"),
            pytest.param([NUM_ITEMS - 1], id="one-rare-item"),
            pytest.param([0], id="one-popular-item"),
            pytest.param(list(range(NUM_ITEMS)), id="every-item"),
            pytest.param(list(range(0, NUM_ITEMS, 2)), id="half-of-the-items"),
            pytest.param([0, 1], id="a-pair"),
        ],
    )
    def test_an_adversarial_user_moves_the_sum_within_the_sensitivity(
        self, family: Family, shape: RoundShape, adversary: list[int]
    ) -> None:
        crowds = ([], random_histories(3), [adversary] * 3, [[NUM_ITEMS - 1]] * 20)
        for crowd in crowds:
            difference = self.contribution(family, shape, [*crowd, adversary]) - self.contribution(
                family, shape, list(crowd)
            )
            self._assert_within_sensitivity(difference, family, shape)
            if not adversary:
                assert not difference.any()

    def test_a_silo_without_users_contributes_zero(self, family: Family, shape: RoundShape) -> None:
        assert not self.contribution(family, shape, []).any()

    @staticmethod
    def _assert_within_sensitivity(difference: NDArray[np.int64], family: Family, shape: RoundShape) -> None:
        single = shape.sensitivity / family.plan.privacy.max_silos_per_user
        squared = sum(int(value) ** 2 for value in difference)
        assert squared <= single**2

    # ── absorb, finish ───────────────────────────────────────────────────────────────────────────────────

    def test_an_aggregate_becomes_the_same_model_everywhere(self, family: Family, tmp_path: Path) -> None:
        files = [tmp_path / "one", tmp_path / "two"]
        for file in files:
            twin = type(family)(family.plan, family.catalogue)
            self.finished(twin).save(file, {"family": family.name})
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_a_model_scores_every_item_with_finite_numbers(self, family: Family) -> None:
        model = self.finished(family)
        histories = make_interactions([*random_histories(7), []], family.catalogue).matrix()
        scores = model.scores(histories)
        assert scores.shape == (NUM_USERS + 1, NUM_ITEMS)
        assert np.isfinite(scores).all()
        assert (model.popularity >= 0).all()
        np.testing.assert_array_equal(scores[-1], model.popularity)
        assert model.falls_back(histories)[-1]

    def test_popular_items_stand_above_unpopular_ones(self, family: Family) -> None:
        popularity = self.finished(family).popularity
        assert popularity[:4].mean() > popularity[-4:].mean()

    def test_absorb_leaves_the_old_state_alone(self, family: Family, shape: RoundShape) -> None:
        state = self.untrained(family)
        before = {name: table.copy() for name, table in state.items()}
        round_index = schedule(family.plan).index(shape)
        family.absorb(state, np.full(shape.values, 7, dtype=np.int64), round_index, shape, len(SILOS))
        assert state.keys() == before.keys()
        for name, table in before.items():
            np.testing.assert_array_equal(state[name], table)

    def test_an_aggregate_of_the_wrong_length_is_refused(self, family: Family) -> None:
        for round_index, shape in enumerate(schedule(family.plan)):
            sums = np.zeros(shape.values + 1, dtype=np.int64)
            with pytest.raises(DataError, match="aggregate"):
                family.absorb(self.untrained(family), sums, round_index, shape, len(SILOS))

    def test_a_model_between_two_rounds_can_be_used(self, family: Family) -> None:
        state = family.initial_state() if not family.plan.is_statistics else self.trained(family)
        histories = make_interactions(random_histories(7), family.catalogue).matrix()
        assert np.isfinite(family.finish(state).scores(histories)).all()

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────────

    def test_a_saved_model_scores_alike(self, family: Family, tmp_path: Path) -> None:
        model = self.finished(family)
        model.save(tmp_path / "model", {"plan": "p1"})
        loaded = load_model(tmp_path / "model")
        histories = make_interactions(random_histories(8), family.catalogue).matrix()
        np.testing.assert_array_equal(loaded.scores(histories), model.scores(histories))
        assert loaded.is_fallback == model.is_fallback
        assert loaded.metadata == {**model.metadata, "plan": "p1"}

    def test_a_corrupted_file_is_refused(self, family: Family, tmp_path: Path) -> None:
        path = tmp_path / "model"
        self.finished(family).save(path)
        sound = path.read_bytes()
        for broken in (b"", sound[:7], sound[:40], sound[:-1], sound + b"\0", b"\xff" * 8 + sound[8:]):
            path.write_bytes(broken)
            with pytest.raises(ModelFileError):
                load_model(path)
