from __future__ import annotations

import inspect
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from policies.plans.models import SequenceModel
from policies.plans.price import schedule
from silo.models.base import get_family
from silo.models.recommender import ModelFileError
from silo.models.sequence.asking import what_is_asked
from silo.models.sequence.family import BasisSequenceArchitecture, Sequence
from silo.models.sequence.network import HIDDEN, FeatureNetwork
from silo.models.sequence.recommender import KIND, SequenceRecommender
from silo.models.sequence.trunk import NO_ITEM, TRUNKS, trunk_of
from silo.models.session import hidden_apart
from silo.models.shipped import load_model
from silo.models.trainer import CheckpointError
from silo.tensor_files import load_tables, save_tables
from tests.contracts.architecture_contract import ArchitectureContract, most_of
from tests.contracts.family_contract import (
    NUM_ITEMS,
    make_catalogue,
    make_interactions,
    make_plan,
)

torch.set_num_threads(1)

MODEL: dict[str, Any] = {
    "family": "sequence",
    "features": 6,
    "hidden": 4,
    "places": 4,
    "bias": {"noised": True, "epsilon": 1.0},
}
TRAINING = {
    "rounds": 2,
    "expected_batch_size": 120.0,
    "optimizer": "adam",
    "learning_rate": 0.03,
    "decay": "linear",
    "second_moment_decay": 0.99,
}
PRIVACY = {"contribution_norm": None, "max_grad_norm": 0.5, "grid": 2048, "clipping": "automatic"}


class SequenceContract(ArchitectureContract):
    sections: ClassVar = {"training": TRAINING, "privacy": PRIVACY}
    largest: ClassVar = {"layers": most_of(SequenceModel, "layers")}

    def test_the_trunk_is_short(self) -> None:
        trunk = trunk_of(self.model["architecture"])
        assert len(inspect.getsourcelines(inspect.getmodule(trunk))[0]) < self.max_lines  # type: ignore[arg-type]


class TestTransformer(SequenceContract):
    model: ClassVar = MODEL | {"architecture": "transformer"}


class TestMasked(SequenceContract):
    model: ClassVar = MODEL | {"architecture": "masked"}


class TestGru(SequenceContract):
    model: ClassVar = MODEL | {"architecture": "gru"}


class TestLstm(SequenceContract):
    model: ClassVar = MODEL | {"architecture": "lstm"}


class TestCnn(SequenceContract):
    model: ClassVar = MODEL | {"architecture": "cnn"}


def rows_of(histories: list[list[int]], values: list[list[float]] | None = None) -> sp.csr_matrix:
    starts = np.cumsum([0, *map(len, histories)])
    data = np.ones(starts[-1]) if values is None else np.concatenate(values)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    return sp.csr_matrix((data, items, starts), shape=(len(histories), NUM_ITEMS))


NO = NO_ITEM


def test_a_causal_network_is_asked_for_every_next_item() -> None:
    rows = rows_of([[5, 3, 9], [2], [], [1, 2, 3, 4, 5]])
    seen, wanted = what_is_asked(rows, rows, 3, is_causal=True)
    assert seen.tolist() == [[5, 3, NO], [NO] * 3, [NO] * 3, [2, 3, 4]]
    assert wanted.tolist() == [[3, 9, NO], [NO] * 3, [NO] * 3, [3, 4, 5]]


def test_a_target_outside_the_history_is_asked_for_after_it() -> None:
    history, target = rows_of([[5, 3, 9]]), rows_of([[7]])
    seen, wanted = what_is_asked(history, target, 3, is_causal=True)
    assert (seen.tolist(), wanted.tolist()) == ([[5, 3, 9]], [[NO, NO, 7]])
    seen, wanted = what_is_asked(history, target, 3, is_causal=False)
    assert (seen.tolist(), wanted.tolist()) == ([[3, 9, HIDDEN]], [[NO, NO, 7]])


def test_a_network_that_looks_both_ways_is_asked_for_what_it_does_not_see() -> None:
    inputs, targets = rows_of([[5, 3, 9]], [[1.0, 0.0, 1.0]]), rows_of([[5, 3, 9]], [[0.0, 1.0, 0.0]])
    seen, wanted = what_is_asked(inputs, targets, 4, is_causal=False)
    assert (seen.tolist(), wanted.tolist()) == ([[5, HIDDEN, 9, NO]], [[NO, 3, NO, NO]])
    whole = rows_of([[5, 3, 9], []])
    seen, wanted = what_is_asked(whole, whole, 4, is_causal=False)
    assert seen.tolist() == [[5, 3, HIDDEN, NO], [NO] * 4]
    assert wanted.tolist() == [[NO, NO, 9, NO], [NO] * 4]


def test_a_user_of_whom_no_coin_hides_an_item_is_asked_for_the_last_one() -> None:
    """Nothing hidden, or only what is older than is read: either way the user learns for what is paid."""
    inputs = rows_of([[5, 3, 9], [1, 2, 3, 4], []], [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0], []])
    targets = rows_of([[5, 3, 9], [1, 2, 3, 4], []], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], []])
    seen, wanted = what_is_asked(inputs, targets, 3, is_causal=False)
    assert seen.tolist() == [[5, 3, HIDDEN], [2, 3, HIDDEN], [NO] * 3]
    assert wanted.tolist() == [[NO, NO, 9], [NO, NO, 4], [NO] * 3]


def test_every_user_of_a_masked_plan_has_a_loss_whatever_the_coins_say() -> None:
    model = MODEL | {"architecture": "masked", "input_dropout": 0.2}
    plan = make_plan(make_catalogue(), model, training=TRAINING, privacy=PRIVACY)
    architecture = BasisSequenceArchitecture(plan, make_catalogue(), None)
    _, wanted = architecture.batch(*hidden_apart(rows_of([[5, 3, 9]] * 64), 0.2))
    assert (wanted != NO).any(dim=1).all()


@pytest.mark.parametrize("architecture", TRUNKS)
@pytest.mark.parametrize("size", [(6, 4, 1, 8), (10, 8, 3, 5)])
def test_a_plan_knows_the_size_of_its_network(architecture: str, size: tuple[int, ...]) -> None:
    features, hidden, layers, places = size
    model = SequenceModel.model_validate(
        MODEL
        | {"architecture": architecture, "features": features, "hidden": hidden}
        | {"layers": layers, "places": places}
    )
    assert sum(p.numel() for p in FeatureNetwork(model.network).parameters()) == model.network.num_weights


def test_hidden_items_belong_to_the_masked_architecture() -> None:
    plan = make_plan(
        make_catalogue(), MODEL | {"architecture": "masked", "input_dropout": 0.3}, training=TRAINING,
        privacy=PRIVACY,
    )  # fmt: skip
    assert get_family(plan) is Sequence
    with pytest.raises(ValueError, match=r"model\.input_dropout: gru is asked for every next item"):
        make_plan(
            make_catalogue(), MODEL | {"architecture": "gru", "input_dropout": 0.3}, training=TRAINING,
            privacy=PRIVACY,
        )  # fmt: skip


def test_masks_are_drawn_freshly_and_keep_the_sensitivity() -> None:
    catalogue = make_catalogue()
    model = MODEL | {"architecture": "masked", "input_dropout": 0.5, "bias": "none"}
    plan = make_plan(catalogue, model, training=TRAINING, privacy=PRIVACY)
    family = get_family(plan)(plan, catalogue)
    rows, state = make_interactions([list(range(12))], catalogue), family.initial_state()
    shape = schedule(plan)[0]
    draws = [family.contribute(rows, state, 0, shape) for _ in range(4)]
    assert len({draw.tobytes() for draw in draws}) > 1
    assert all(np.linalg.norm(draw.astype(float)) <= shape.sensitivity / 2 for draw in draws)


def test_first_weights_follow_the_seed() -> None:
    catalogue = make_catalogue()

    def first(seed: int) -> np.ndarray:
        plan = make_plan(
            catalogue, MODEL | {"architecture": "gru", "seed": seed}, training=TRAINING, privacy=PRIVACY
        )
        return get_family(plan)(plan, catalogue).initial_state()["enter.weight"]

    assert first(1).tobytes() == first(1).tobytes()
    assert first(1).tobytes() != first(2).tobytes()


@pytest.mark.parametrize(("of", "into"), list(permutations(TRUNKS, 2)))
def test_weights_of_one_architecture_are_no_start_of_another(of: str, into: str) -> None:
    """Not even where names and shapes are the same: ``transformer`` and ``masked`` ask in other ways."""
    catalogue = make_catalogue()
    plans = [
        make_plan(catalogue, MODEL | {"architecture": name}, training=TRAINING, privacy=PRIVACY)
        for name in (of, into)
    ]
    first, second = (Sequence(plan, catalogue) for plan in plans)
    checkpoint = first.checkpoint(first.initial_state())
    assert Sequence(plans[0], catalogue, start=checkpoint)
    with pytest.raises(CheckpointError, match="architecture"):
        type(second)(plans[1], catalogue, start=checkpoint)


NOTHING = np.zeros(0, np.float32)


@pytest.mark.parametrize(
    ("tables", "about"),
    [
        pytest.param({}, {"network": ("cnn", "lstm")}, id="another-network"),
        pytest.param({}, {"network": "{}"}, id="no-network"),
        pytest.param({}, {"network": 5}, id="a-number-for-a-network"),
        pytest.param({}, {"network": "[" * 200_000}, id="a-network-nested-deeply"),
        pytest.param({}, {"metadata": "["}, id="metadata-cut-short"),
        pytest.param({}, {"metadata": 5}, id="a-number-for-metadata"),
        pytest.param({}, {"metadata": "[1]"}, id="a-list-for-metadata"),
        pytest.param({}, {"metadata": '{"a": 1}'}, id="metadata-not-text"),
        pytest.param({}, {"metadata": "[" * 200_000}, id="metadata-nested-deeply"),
        pytest.param({"popularity": np.array(1, np.float32)}, {}, id="a-scalar-for-popularity"),
        pytest.param({"popularity": np.ones((2, 2), np.float32)}, {}, id="a-table-for-popularity"),
        pytest.param({"bias": np.array(1, np.float32)}, {}, id="a-scalar-for-the-bias"),
        pytest.param({"features": np.array(1, np.float32)}, {}, id="a-scalar-for-the-features"),
        pytest.param({"network.enter.bias": np.array(1, np.float32)}, {}, id="a-scalar-for-a-weight"),
        pytest.param(
            {"popularity": NOTHING, "bias": NOTHING, "features": np.zeros((0, 6), np.float32)},
            {},
            id="no-items",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_network_is_refused(
    tmp_path: Path, tables: dict[str, Any], about: dict[str, Any]
) -> None:
    catalogue = make_catalogue()
    plan = make_plan(catalogue, MODEL | {"architecture": "cnn"}, training=TRAINING, privacy=PRIVACY)
    family = get_family(plan)(plan, catalogue)
    path = tmp_path / "model.safetensors"
    family.finish(family.initial_state()).save(path)
    sound, said = load_tables(path, KIND)
    changes = {name: said[name].replace(*to) if isinstance(to, tuple) else to for name, to in about.items()}
    save_tables(path, KIND, sound | tables, said | changes)
    with pytest.raises(ModelFileError) as refusal:
        load_model(path)
    assert refusal.value.where == str(path)
    assert refusal.value.remedy


def test_a_missing_table_is_said_by_name(tmp_path: Path) -> None:
    catalogue = make_catalogue()
    plan = make_plan(catalogue, MODEL | {"architecture": "gru"}, training=TRAINING, privacy=PRIVACY)
    family = get_family(plan)(plan, catalogue)
    path = tmp_path / "model.safetensors"
    family.finish(family.initial_state()).save(path)
    tables, about = load_tables(path, KIND)
    del tables["bias"]
    save_tables(path, KIND, tables, about)
    with pytest.raises(ModelFileError, match="no table 'bias'"):
        SequenceRecommender.load(path)


def test_a_history_is_scored_by_its_order() -> None:
    catalogue = make_catalogue()
    plan = make_plan(catalogue, MODEL | {"architecture": "transformer"}, training=TRAINING, privacy=PRIVACY)
    family = get_family(plan)(plan, catalogue)
    model = family.finish(family.initial_state())
    one, other = model.scores(rows_of([[1, 2, 3], [3, 2, 1]]))
    assert not np.allclose(one, other)
