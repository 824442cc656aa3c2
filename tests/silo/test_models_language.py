from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from policies.documents import PolicyFileError
from policies.plans.plan import Plan
from policies.plans.price import schedule
from policies.validation import validate_values
from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.language.space import PlacedCatalogue
from silo.models.base import Family, get_family
from silo.models.features import public_uniform
from silo.models.language import Language
from silo.models.trainer import CheckpointError
from tests.contracts.architecture_contract import ArchitectureContract
from tests.contracts.family_contract import (
    NUM_ITEMS,
    make_catalogue,
    make_interactions,
    make_plan,
    random_histories,
)

DIMENSIONS = 6
SPACE = "ab" * 32
TRAINING: dict[str, Any] = {
    "rounds": 4,
    "expected_batch_size": 120.0,
    "optimizer": "adam",
    "learning_rate": 0.03,
}
PRIVACY = {"contribution_norm": None, "max_grad_norm": 0.5, "grid": 2048, "clipping": "automatic"}


def placed(catalogue: Catalogue, *, seed: int = 1, space: str = SPACE) -> PlacedCatalogue:
    places = public_uniform(seed, len(catalogue) * DIMENSIONS).reshape(-1, DIMENSIONS)
    return PlacedCatalogue(catalogue.items, places / np.linalg.norm(places, axis=1, keepdims=True), space)


def language_plan(catalogue: Catalogue, model: dict[str, Any]) -> Plan:
    """``make_plan`` validates, and a shared catalogue is no catalogue of this family."""
    base = make_plan(catalogue, {"family": "linear", "features": 1}, training=TRAINING, privacy=PRIVACY)
    document = base.model_dump(mode="json", exclude_unset=True) | {"model": model}
    document["catalogue"] |= {"kind": "per_silo", "encoder_sha256": "cd" * 32}
    return validate_values(document, Plan, "plan")


class TestLanguage(ArchitectureContract):
    model: ClassVar = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5}

    @pytest.fixture
    def catalogue(self) -> Catalogue:
        return placed(make_catalogue())

    @pytest.fixture
    def plan(self, catalogue: Catalogue) -> Plan:
        return language_plan(catalogue, self.model)

    def test_popular_items_stand_above_unpopular_ones(self, family: Family) -> None:
        """Nothing says so but the decoder, which four steps do not teach."""

    def test_silos_with_other_items_sum_to_one_model(self, family: Family) -> None:
        """Half the items each: their gradients have one length, and each reads the sum over its own list."""
        halves = [placed(Catalogue(family.catalogue.items[start::2]), seed=start) for start in (0, 1)]
        twins = [get_family(family.plan)(family.plan, half) for half in halves]
        states = [twin.initial_state() for twin in twins]
        histories = random_histories(1, num_items=NUM_ITEMS // 2)
        shape = schedule(family.plan)[0]
        total = sum(
            twin.contribute(make_interactions(histories, half), state, 0, shape)
            for twin, half, state in zip(twins, halves, states, strict=True)
        )
        after = [twin.absorb(state, total, 0, shape, 4) for twin, state in zip(twins, states, strict=True)]
        for name, values in after[0].items():
            assert values.tobytes() == after[1][name].tobytes()
        assert [twin.finish(state).num_items for twin, state in zip(twins, after, strict=True)] == [12, 12]

    def test_weights_serve_a_list_that_no_job_saw(self, family: Family) -> None:
        """Cold start: a list of other items in the same space takes the weights as they are."""
        checkpoint = family.checkpoint(self.trained(family))
        others = placed(Catalogue((*make_catalogue(3).items, CatalogueItem(item_id="new"))), seed=9)
        joiner = get_family(family.plan)(family.plan, others, start=checkpoint)
        scores = joiner.finish(joiner.initial_state()).scores(make_interactions([[0, 1]], others).matrix())
        assert scores.shape == (1, 4)
        assert len(set(scores[0].tolist())) == 4

    def test_weights_of_another_space_are_refused(self, family: Family) -> None:
        checkpoint = family.checkpoint(self.trained(family))
        elsewhere = placed(make_catalogue(), space="ef" * 32)
        with pytest.raises(CheckpointError, match="another catalogue or encoder"):
            get_family(family.plan)(family.plan, elsewhere, start=checkpoint)

    def test_a_list_without_places_is_refused(self, plan: Plan) -> None:
        with pytest.raises(UsageError, match="places"):
            Language(plan, make_catalogue())


def test_a_space_has_fewer_dimensions_than_texts() -> None:
    model = {"family": "language", "hidden": 5}
    assert language_plan(make_catalogue(), model | {"dimensions": NUM_ITEMS - 1})
    with pytest.raises(PolicyFileError, match=rf"model\.dimensions: .* at most {NUM_ITEMS - 1} around"):
        language_plan(make_catalogue(), model | {"dimensions": NUM_ITEMS})
