from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
from torch import Tensor, nn

from policies.documents import PolicyFileError
from policies.plans.models import LanguageArchitectureName, LanguageModel
from policies.plans.plan import Plan
from policies.plans.price import schedule
from policies.validation import validate_values
from privacy.dpsgd import PerUserGradientError
from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.language.space import PlacedCatalogue
from silo.models.base import Family, get_family
from silo.models.features import public_uniform
from silo.models.language.family import Language
from silo.models.language.network import LanguageNetwork
from silo.models.sequence.network import set_weights
from silo.models.sequence.trunk import NO_ITEM
from silo.models.trainer import CheckpointError
from tests.contracts.architecture_contract import ArchitectureContract, most_of
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


class LanguageContract(ArchitectureContract):
    @pytest.fixture
    def catalogue(self) -> Catalogue:
        return placed(make_catalogue())

    @pytest.fixture
    def plan(self, catalogue: Catalogue) -> Plan:
        return language_plan(catalogue, self.model)

    @pytest.fixture
    def family_over(self, plan: Plan) -> Callable[[int], Family]:
        return lambda num_items: get_family(plan)(plan, placed(make_catalogue(num_items)))

    def test_popular_items_stand_above_unpopular_ones(self, family: Family) -> None:
        """Nothing says so but the way back, which four steps do not teach."""

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
        with pytest.raises(CheckpointError, match="another catalogue, encoder"):
            get_family(family.plan)(family.plan, elsewhere, start=checkpoint)

    def test_a_list_without_places_is_refused(self, plan: Plan) -> None:
        with pytest.raises(UsageError, match="places"):
            Language(plan, make_catalogue())


BOTTLENECK: dict[str, Any] = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5}
NETWORK: dict[str, Any] = {"family": "language", "dimensions": DIMENSIONS, "hidden": 4, "places": 5}


class TestBottleneck(LanguageContract):
    model: ClassVar = BOTTLENECK
    largest: ClassVar = {"hidden": most_of(LanguageModel, "hidden")}


class NetworkContract(LanguageContract):
    largest: ClassVar = {"layers": most_of(LanguageModel, "layers")}


class TestTransformer(NetworkContract):
    model: ClassVar = NETWORK | {"architecture": "transformer", "layers": 2}

    def test_a_history_is_scored_by_its_order(self, family: Family) -> None:
        model = family.finish(self.trained(family))
        one, other = (
            model.scores(make_interactions([items], family.catalogue).histories())
            for items in ([1, 2, 3], [3, 2, 1])
        )
        assert not np.allclose(one, other)


class TestSampledNegatives(NetworkContract):
    model: ClassVar = NETWORK | {"architecture": "transformer", "negatives": {"count": 8, "above": 20}}

    @staticmethod
    def network(family: Family, num_items: int) -> LanguageNetwork:
        items = placed(make_catalogue(num_items))
        made = Language(family.plan, items).make_architecture(None)
        assert isinstance(made, LanguageNetwork)
        return made

    @staticmethod
    def losses(network: LanguageNetwork, step: int | None) -> list[float]:
        rows = make_interactions([[1, 2, 3], [5, 4]], network.catalogue).histories()
        module = network.module()
        set_weights(module, network.initial_weights())
        network.draw(step)
        losses: list[float] = network.loss_per_user(module, *network.batch(rows, rows)).tolist()
        return losses

    def test_a_long_list_is_sampled_by_step_and_a_short_one_competes_as_a_whole(self, family: Family) -> None:
        long, short = (self.network(family, number) for number in (21, 20))
        assert self.losses(long, 0) == self.losses(long, 0)
        assert len({tuple(self.losses(long, step)) for step in (None, 0, 1)}) == 3
        assert long.num_scored == 8
        assert self.losses(short, 0) == self.losses(short, None)
        assert short.num_scored == 20

    def test_a_loss_that_is_shown_is_of_the_whole_list(self, family: Family) -> None:
        rows, state = make_interactions([[1, 2, 3]], family.catalogue), family.initial_state()
        before = family.local_loss(rows, state)
        family.contribute(rows, state, 0, schedule(family.plan)[0])
        assert family.local_loss(rows, state) == before

    def test_negatives_from_other_people_are_caught_before_rows_are_used(self, family: Family) -> None:
        class InBatch(LanguageNetwork):
            def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
                self._drawn = batch[1][batch[1] != NO_ITEM].unique()
                return super().loss_per_user(model, *batch)

        with pytest.raises(PerUserGradientError):
            self.empty_sum(InBatch(family.plan, family.catalogue, None), family)


class TestMasked(NetworkContract):
    model: ClassVar = NETWORK | {"architecture": "masked"}


class TestGru(NetworkContract):
    model: ClassVar = NETWORK | {"architecture": "gru"}


class TestLstm(NetworkContract):
    model: ClassVar = NETWORK | {"architecture": "lstm"}


class TestCnn(NetworkContract):
    model: ClassVar = NETWORK | {"architecture": "cnn"}


@pytest.mark.parametrize("architecture", ["bottleneck", "transformer", "masked", "cnn"])
def test_untrained_items_like_those_of_the_history_score_highest(architecture: str) -> None:
    """As many directions of texts as there are; each person had items of one of them, and gets more."""
    catalogue = make_catalogue()
    places = np.eye(DIMENSIONS)[np.arange(NUM_ITEMS) % DIMENSIONS]
    plan = language_plan(catalogue, BOTTLENECK | {"architecture": architecture, "hidden": 32})
    family = Language(plan, PlacedCatalogue(catalogue.items, places, SPACE))
    people = [[kind, kind + DIMENSIONS] for kind in range(DIMENSIONS)]
    histories = make_interactions(people, catalogue).histories()
    scores = family.finish(family.initial_state()).scores(histories)
    assert (scores.argmax(axis=1) % DIMENSIONS).tolist() == list(range(DIMENSIONS))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": 2}, r"model\.layers: bottleneck adds up a history"),
        ({"places": 9}, r"model\.places: bottleneck adds up a history"),
        ({"negatives": {"count": 9}}, r"model\.negatives: bottleneck scores its list once"),
        (
            {"architecture": "gru", "hidden": 4, "negatives": {"count": 9, "above": 9}},
            r"model\.negatives\.count: 9 of a list of more than 9 items save nothing",
        ),
        ({"architecture": "gru", "input_dropout": 0.2}, r"model\.input_dropout: gru is asked"),
        ({"architecture": "gru", "hidden": 5}, r"model\.hidden: gru has an even width, from 2 to 512"),
        ({"architecture": "cnn", "hidden": 600}, r"model\.hidden: cnn has an even width"),
        ({"architecture": "rnn"}, r"not one of: bottleneck, transformer"),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_the_reason(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyFileError, match=words):
        language_plan(make_catalogue(), BOTTLENECK | change)


@pytest.mark.parametrize("architecture", [None, "bottleneck", "transformer", "gru"])
def test_a_plan_says_whether_its_model_reads_an_order(architecture: str | None) -> None:
    named = {} if architecture is None else {"architecture": architecture}
    plan = language_plan(make_catalogue(), BOTTLENECK | {"hidden": 4} | named)
    assert plan.reads_order is (architecture in ("transformer", "gru"))


@pytest.mark.parametrize(("of", "into"), list(permutations(get_args(LanguageArchitectureName), 2)))
def test_weights_of_one_architecture_are_no_start_of_another(of: str, into: str) -> None:
    catalogue = placed(make_catalogue())
    size = {"family": "language", "dimensions": DIMENSIONS, "hidden": 4}
    plans = [language_plan(catalogue, size | {"architecture": name}) for name in (of, into)]
    first = Language(plans[0], catalogue)
    checkpoint = first.checkpoint(first.initial_state())
    assert Language(plans[0], catalogue, start=checkpoint)
    with pytest.raises(CheckpointError, match="architecture"):
        Language(plans[1], catalogue, start=checkpoint)


def test_a_space_has_fewer_dimensions_than_texts() -> None:
    model = {"family": "language", "hidden": 5}
    assert language_plan(make_catalogue(), model | {"dimensions": NUM_ITEMS - 1})
    with pytest.raises(PolicyFileError, match=rf"model\.dimensions: .* at most {NUM_ITEMS - 1} around"):
        language_plan(make_catalogue(), model | {"dimensions": NUM_ITEMS})
