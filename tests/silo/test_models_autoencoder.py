from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn import functional

from policies.plans.models import AutoencoderModel
from policies.plans.price import RoundShape, popularity_shape, schedule
from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.models import session
from silo.models.autoencoder import Autoencoder, AutoencoderArchitecture
from silo.models.base import Family, get_family
from silo.models.bottleneck import DECODER_SCALE
from silo.models.features import public_basis
from silo.models.recommender import Recommender
from silo.models.session import hidden_apart
from tests.contracts.architecture_contract import ArchitectureContract, most_of
from tests.contracts.family_contract import (
    NUM_ITEMS,
    SILOS,
    make_catalogue,
    make_interactions,
    make_plan,
    random_histories,
)

MODEL: dict[str, Any] = {
    "family": "autoencoder",
    "features": 6,
    "hidden": 5,
    "bias": {"noised": True, "epsilon": 1.0},
}
TRAINING = {
    "rounds": 4,
    "expected_batch_size": 120.0,
    "optimizer": "adam",
    "learning_rate": 0.03,
    "decay": "linear",
    "second_moment_decay": 0.99,
}
PRIVACY = {"contribution_norm": None, "max_grad_norm": 0.5, "grid": 2048, "clipping": "automatic"}


class TestAutoencoder(ArchitectureContract):
    model: ClassVar = MODEL
    largest: ClassVar = {"hidden": most_of(AutoencoderModel, "hidden")}
    sections: ClassVar = {"training": TRAINING, "privacy": PRIVACY}

    def test_the_sum_is_that_of_clipped_autograd_gradients_of_the_plain_formula(
        self, family: Family, shape: RoundShape
    ) -> None:
        state = self.untrained(family)
        architecture = self.architecture_of(family, state)
        assert isinstance(architecture, AutoencoderArchitecture)
        basis, bias = torch.tensor(architecture.features), torch.tensor(architecture.bias)
        names = ("encoder.weight", "encoder.bias", "decoder.weight")
        histories = random_histories(4, num_users=6)
        total = np.zeros(shape.values)
        for items in histories:
            first, shift, second = (torch.tensor(state[name], requires_grad=True) for name in names)
            x = torch.zeros(NUM_ITEMS, dtype=torch.float64)
            x[items] = 1.0
            hidden = torch.tanh(functional.linear(x / x.norm() @ basis, first, shift))
            scores = functional.linear(hidden, second) @ basis.T + bias
            loss = -(x / x.sum() * torch.log_softmax(scores, 0)).sum()
            gradient = torch.cat([g.ravel() for g in torch.autograd.grad(loss, [first, shift, second])])
            total += gradient.numpy() * 0.5 / (gradient.norm().item() + 0.01 * 0.5)
        np.testing.assert_allclose(self.contribution(family, shape, histories), total * 2048 / 0.5, atol=0.51)

    def test_the_popularity_round_is_that_of_the_popularity_family(self, family: Family) -> None:
        plan = make_plan(family.catalogue, {"family": "popularity"}, privacy={"grid": 2048})
        counting = get_family(plan)(plan, family.catalogue)
        rows = make_interactions(random_histories(1), family.catalogue)
        shape = popularity_shape(family.plan)
        assert shape is not None
        assert schedule(family.plan)[0] == shape
        found = family.contribute(rows, family.initial_state(), 0, shape)
        expected = counting.contribute(rows, {}, 0, schedule(plan)[0])
        np.testing.assert_allclose(found / shape.grid, expected / 2048, atol=0.1)

    def test_the_bias_is_the_log_of_noised_counts_above_their_noise(self, family: Family) -> None:
        shape = schedule(family.plan)[0]
        sums = np.linspace(-5, 40, NUM_ITEMS) * shape.grid
        state = family.absorb(family.initial_state(), sums.astype(np.int64), 0, shape, len(SILOS))
        std = family.total_noise_std(shape, len(SILOS)) / shape.grid
        counts = np.maximum(sums.astype(np.int64) / shape.grid, max(std, 0.5))
        bias = self.architecture_of(family, state).bias
        np.testing.assert_allclose(bias - bias[-1], np.log(counts / counts[-1]))
        assert (counts == std).any()
        assert family.finish(state).popularity.min() > 0

    def test_before_its_popularity_is_known_nothing_is_assumed_of_it(self, family: Family) -> None:
        bias = self.architecture_of(family, family.initial_state()).bias
        assert len(set(bias)) == 1

    def test_the_untrained_model_ranks_nearly_by_popularity(self, family: Family) -> None:
        state = self.untrained(family)
        model = family.finish(state)
        scores = model.scores(make_interactions(random_histories(3), family.catalogue).matrix())
        order = np.log(model.popularity)
        assert all(np.corrcoef(row, order)[0, 1] > 0.9 for row in scores)

    def test_someone_unknown_gets_popularity(self, family: Family) -> None:
        model: Recommender = self.finished(family)
        rows = make_interactions([[], [1, 2]], family.catalogue).matrix()
        np.testing.assert_array_equal(model.scores(rows)[0], model.popularity)


class TestAutoencoderWithoutBias(ArchitectureContract):
    model: ClassVar = MODEL | {"bias": "none"}
    sections: ClassVar = {
        "training": TRAINING | {"optimizer": "sgd", "second_moment_decay": 0.999, "learning_rate": 5.0},
        "privacy": PRIVACY | {"clipping": "flat"},
    }

    def test_there_is_no_popularity_round(self, family: Family) -> None:
        assert {shape.purpose for shape in schedule(family.plan)} == {"training"}

    def test_popular_items_stand_above_unpopular_ones(self, family: Family) -> None:
        """Nothing says so but the decoder, which four steps do not teach."""


def family_of(training: dict[str, Any] | None = None, **model: Any) -> Family:
    plan = make_plan(make_catalogue(), MODEL | model, training=TRAINING | (training or {}), privacy=PRIVACY)
    return get_family(plan)(plan, make_catalogue())


def test_the_seed_of_the_plan_makes_the_first_weights() -> None:
    one, again, other = (family_of(seed=seed).initial_state()["encoder.weight"] for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert not np.array_equal(one, other)


def test_first_weights_have_the_recipes_spread() -> None:
    state = family_of(features=20, hidden=16).initial_state()
    assert state["encoder.weight"].std() == pytest.approx(1 / 4, rel=0.1)
    assert state["decoder.weight"].std() == pytest.approx(DECODER_SCALE / 4, rel=0.1)
    assert not state["encoder.bias"].any()


def test_first_weights_are_golden() -> None:
    """Bit-equal everywhere: they come from integers, a division and a square root."""
    first = family_of(features=6, hidden=5).initial_state()["encoder.weight"][0]
    assert [float(value).hex() for value in first[:3]] == GOLDEN


GOLDEN = ["0x1.b28b7f7644eb8p-3", "-0x1.6d34516230a9ap-2", "-0x1.6c18052602ab7p-1"]


def test_dropout_parts_each_history_into_what_is_seen_and_what_is_asked_for() -> None:
    histories = make_interactions(random_histories(0, num_users=400), make_catalogue()).matrix()
    inputs, targets = hidden_apart(histories, 0.3)
    assert (inputs + targets != histories).nnz == 0
    assert inputs.multiply(targets).sum() == 0
    assert inputs.indices.tolist() == targets.indices.tolist() == histories.indices.tolist()
    assert targets.sum() / histories.nnz == pytest.approx(0.3, abs=0.04)
    whole = hidden_apart(histories, 0.0)
    assert whole[0] is whole[1] is histories


def test_a_user_of_whom_nothing_is_hidden_contributes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "hidden_apart", lambda rows, _: (rows, sp.csr_matrix(rows.shape)))
    family = family_of(input_dropout=0.5)
    rows = make_interactions(random_histories(0), family.catalogue)
    assert not family.contribute(rows, family.initial_state(), 1, schedule(family.plan)[1]).any()


def test_dropout_draws_freshly() -> None:
    family = family_of(input_dropout=0.5)
    rows = make_interactions(random_histories(0), family.catalogue)
    shape = schedule(family.plan)[1]
    state = family.initial_state()
    draws = {family.contribute(rows, state, 1, shape).tobytes() for _ in range(3)}
    assert len(draws) == 3


def test_dropout_keeps_the_sensitivity() -> None:
    family = family_of(input_dropout=0.9)
    shape = schedule(family.plan)[1]
    for items in ([0], list(range(NUM_ITEMS))):
        rows = make_interactions([items], family.catalogue)
        for _ in range(3):
            moved = family.contribute(rows, family.initial_state(), 1, shape)
            assert np.linalg.norm(moved.astype(float)) <= shape.sensitivity / 2


def test_popularity_enters_the_basis_only_after_its_round() -> None:
    family = family_of()
    assert isinstance(family, Autoencoder)
    counts = np.arange(1.0, NUM_ITEMS + 1)
    plain = AutoencoderArchitecture(family.plan, family.catalogue, None).features
    scaled = AutoencoderArchitecture(family.plan, family.catalogue, counts).features
    np.testing.assert_allclose(plain, public_basis(family.catalogue, 6) * np.sqrt(NUM_ITEMS / 6))
    assert not np.allclose(plain, scaled)
    for features in (plain, scaled):
        assert (features**2).sum(axis=1).mean() == pytest.approx(1)


def test_a_catalogue_without_features_has_popularity_only() -> None:
    catalogue = Catalogue.from_items(CatalogueItem(item_id=f"{index}") for index in range(NUM_ITEMS))
    plan = make_plan(catalogue, MODEL, training=TRAINING, privacy=PRIVACY)
    counts = np.arange(1.0, NUM_ITEMS + 1)
    architecture = AutoencoderArchitecture(plan, catalogue, counts)
    model = architecture.recommender(architecture.initial_weights())
    scores = model.scores(make_interactions([[3, 4]], catalogue).matrix())
    assert np.argsort(-scores[0]).tolist() == list(range(NUM_ITEMS))[::-1]


def test_a_plan_of_another_family_is_refused() -> None:
    catalogue = make_catalogue()
    with pytest.raises(UsageError, match="autoencoder"):
        Autoencoder(make_plan(catalogue, {"family": "popularity"}), catalogue)
