from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

from policies.plans.models import EncoderAdapter, Model
from policies.plans.plan import MAX_ITEMS
from privacy.errors import DataError, UsageError
from silo.models.base import FAMILIES, UnknownFamilyError, get_family
from silo.models.recommender import FIRST_FORMAT, FORMAT, METADATA_KEY, ModelFileError, Recommender
from silo.models.shipped import load_model
from tests.contracts.family_contract import make_catalogue, make_plan

ITEMS = 7


def make_model(seed: int = 0, *, is_fallback: bool = False) -> Recommender:
    rng = np.random.default_rng(seed)
    return Recommender(
        left=rng.standard_normal((ITEMS, 3)).astype(np.float32),
        right=rng.standard_normal((ITEMS, 3)).astype(np.float32),
        bias=rng.standard_normal(ITEMS).astype(np.float32),
        popularity=rng.random(ITEMS).astype(np.float32),
        is_fallback=is_fallback,
        metadata={"family": "made-up"},
    )


def histories(*rows: list[int]) -> sp.csr_matrix:
    table = np.zeros((len(rows), ITEMS))
    for user, items in enumerate(rows):
        table[user, items] = 1
    return sp.csr_matrix(table)


def rewrite(path: Path, header: object, **tables: np.ndarray) -> None:
    """Write a well-formed safetensors file that says what the caller wants."""
    save_file(load_file(path) | tables, path, {METADATA_KEY: json.dumps(header)})


def header(**changes: object) -> dict[str, object]:
    return {"format": FORMAT, "items": ITEMS, "is_fallback": False, "metadata": {}} | changes


def test_scores_are_bias_plus_the_mean_of_the_historys_rows() -> None:
    model = make_model()
    scores = model.scores(histories([0, 4]))
    expected = model.bias + (model.left[0] + model.left[4]) / 2 @ model.right.T
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5)


def test_one_users_scores_do_not_depend_on_the_others() -> None:
    model = make_model()
    alone = model.scores(histories([1, 2]))
    together = model.scores(histories([0], [1, 2], list(range(ITEMS))))
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-6)


def test_without_right_the_left_table_is_the_weights() -> None:
    weights = np.arange(ITEMS**2, dtype=np.float32).reshape(ITEMS, ITEMS)
    zeros = np.zeros(ITEMS, np.float32)
    model = Recommender(weights, None, zeros, zeros)
    np.testing.assert_allclose(model.scores(histories([2]))[0], weights[2])


def test_an_empty_history_gets_popularity() -> None:
    model = make_model()
    rows = histories([], [3])
    np.testing.assert_array_equal(model.scores(rows)[0], model.popularity)
    assert model.falls_back(rows).tolist() == [True, False]


def test_a_model_that_fell_back_gives_everybody_popularity() -> None:
    model = make_model(is_fallback=True)
    rows = histories([1], [2, 3])
    assert model.falls_back(rows).all()
    np.testing.assert_array_equal(model.scores(rows), np.tile(model.popularity, (2, 1)))


def test_histories_of_another_catalogue_are_refused() -> None:
    with pytest.raises(DataError, match="8 items"):
        make_model().scores(sp.csr_matrix((1, ITEMS + 1)))


@pytest.mark.parametrize("right", [True, False])
def test_a_model_survives_its_file(tmp_path: Path, right: bool) -> None:
    model = (
        make_model()
        if right
        else Recommender(
            np.eye(ITEMS, dtype=np.float32), None, np.zeros(ITEMS, np.float32), np.ones(ITEMS, np.float32)
        )
    )
    model.save(tmp_path / "m")
    loaded = Recommender.load(tmp_path / "m")
    for name in ("left", "right", "bias", "popularity"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    assert loaded.metadata == model.metadata


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_model().save(tmp_path / name, {"b": "2", "a": "1", "plan": "p"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def make_hidden_model() -> Recommender:
    hidden = np.linspace(-1, 1, 3, dtype=np.float32)
    return dataclasses.replace(make_model(), hidden=hidden)


def test_hidden_units_read_the_history_at_unit_length() -> None:
    model = make_hidden_model()
    units = np.tanh(model.hidden + (model.left[0] + model.left[4]) / np.sqrt(2))
    scores = model.scores(histories([0, 4], []))
    np.testing.assert_allclose(scores[0], model.bias + units @ model.right.T, rtol=1e-5)
    np.testing.assert_array_equal(scores[1], model.popularity)


def test_a_model_with_hidden_units_survives_its_file(tmp_path: Path) -> None:
    model = make_hidden_model()
    model.save(tmp_path / "m")
    loaded = Recommender.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.hidden, model.hidden)
    np.testing.assert_array_equal(loaded.scores(histories([1, 2])), model.scores(histories([1, 2])))


@pytest.mark.parametrize("right", [True, False])
def test_files_from_before_hidden_units_load(tmp_path: Path, right: bool) -> None:
    path = tmp_path / "m"
    model = make_model()
    if not right:
        model = Recommender(
            np.eye(ITEMS, dtype=np.float32), None, np.zeros(ITEMS, np.float32), np.ones(ITEMS, np.float32)
        )
    model.save(path)
    rewrite(path, header(format=FIRST_FORMAT))
    loaded = Recommender.load(path)
    assert loaded.hidden is None
    np.testing.assert_array_equal(loaded.scores(histories([1, 3])), model.scores(histories([1, 3])))


def test_a_file_from_before_hidden_units_cannot_have_any(tmp_path: Path) -> None:
    path = tmp_path / "m"
    make_hidden_model().save(path)
    rewrite(path, header(format=FIRST_FORMAT))
    with pytest.raises(ModelFileError, match="unexpected tables"):
        Recommender.load(path)


@pytest.mark.parametrize("length", [2, 4, 5000])
def test_hidden_units_are_as_many_as_the_tables_have_columns(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m"
    make_model().save(path)
    rewrite(path, header(), hidden=np.zeros(length, np.float32))
    with pytest.raises(ModelFileError, match="hidden"):
        Recommender.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        Recommender.load(tmp_path / "absent")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(header(format="archipel-recommender/v3"), id="another-version"),
        pytest.param(header(items=10**12), id="a-trillion-items"),
        pytest.param(header(items=True), id="items-not-a-number"),
        pytest.param(header(items=ITEMS + 1), id="items-not-those-of-the-tables"),
        pytest.param(header(is_fallback="no"), id="flag-not-a-flag"),
        pytest.param(header(metadata={"a": 1}), id="metadata-not-text"),
        pytest.param(header(items=0), id="no-items"),
        pytest.param(header(format=[FORMAT]), id="a-list-for-a-format"),
        pytest.param(header(metadata=5), id="a-number-for-metadata"),
        pytest.param([FORMAT], id="not-an-object"),
    ],
)
def test_a_file_that_lies_about_itself_is_refused(tmp_path: Path, said: object) -> None:
    path = tmp_path / "m"
    make_model().save(path)
    rewrite(path, said)
    with pytest.raises(ModelFileError) as refusal:
        Recommender.load(path)
    assert refusal.value.where == str(path)
    assert refusal.value.remedy


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param({"extra": np.zeros(2, np.float32)}, id="an-extra-table"),
        pytest.param({"left": np.zeros((ITEMS, 3), np.float64)}, id="double-precision"),
        pytest.param({"left": np.zeros((ITEMS, 2), np.float32)}, id="left-narrower-than-right"),
        pytest.param({"left": np.zeros((ITEMS, ITEMS + 1), np.float32)}, id="wider-than-items"),
        pytest.param({"popularity": np.array(1, np.float32)}, id="a-scalar-for-popularity"),
        pytest.param({"left": np.array(1, np.float32)}, id="a-scalar-for-a-table"),
        pytest.param({"hidden": np.array(1, np.float32)}, id="a-scalar-for-hidden-units"),
        pytest.param({"bias": np.zeros((ITEMS, 1), np.float32)}, id="a-column-for-a-vector"),
        pytest.param({"popularity": np.full(ITEMS, np.nan, np.float32)}, id="not-a-number"),
        pytest.param({"right": np.full((ITEMS, 3), np.inf, np.float32)}, id="infinite"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, tables: dict[str, np.ndarray]) -> None:
    path = tmp_path / "m"
    make_model().save(path)
    rewrite(path, header(), **tables)
    with pytest.raises(ModelFileError):
        Recommender.load(path)


def test_a_model_of_as_many_items_as_plans_may_name_survives_its_file(tmp_path: Path) -> None:
    """One value an item: what the smallest model of the longest list holds."""
    Recommender.of_popularity(np.ones(MAX_ITEMS, np.float32), {}, is_fallback=False).save(tmp_path / "m")
    assert load_model(tmp_path / "m").num_items == MAX_ITEMS


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "9" * 5_000])
def test_a_file_that_says_nothing_readable_is_refused(tmp_path: Path, text: str) -> None:
    save_file({"left": np.zeros(1, np.float32)}, tmp_path / "m", {METADATA_KEY: text})
    for load in (load_model, Recommender.load):
        with pytest.raises(ModelFileError, match="no description"):
            load(tmp_path / "m")


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        Recommender.load(tmp_path)


def test_types_are_checked_before_tables_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m"
    make_model().save(path)
    rewrite(path, header(), left=np.zeros((ITEMS, 3), np.float64))
    with pytest.raises(ModelFileError, match="F64"):
        Recommender.load(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "m")
    with pytest.raises(ModelFileError, match="description"):
        Recommender.load(tmp_path / "m")


def test_an_altered_table_changes_the_scores(tmp_path: Path) -> None:
    path = tmp_path / "m"
    model = make_model()
    model.save(path)
    rewrite(path, header(), right=np.zeros((ITEMS, 3), np.float32))
    assert not np.array_equal(Recommender.load(path).scores(histories([1])), model.scores(histories([1])))


def test_every_named_family_can_be_found() -> None:
    plan = make_plan(make_catalogue(), {"family": "popularity"})
    kinds = {kind.model_fields["family"].annotation: kind for kind in get_args(get_args(Model)[0])}
    found = set()
    for name in FAMILIES:
        family, _, is_adapted = name.partition("/")
        adapter = {"encoder_adapter": EncoderAdapter(kind="fed_sb")} if is_adapted else {}
        model = kinds[Literal[family]].model_construct(family=family, **adapter)
        found.add(get_family(plan.model_copy(update={"model": model})))
        assert get_family(plan.model_copy(update={"model": model})).name == family
    assert len(found) == len(FAMILIES)


def test_an_unknown_family_is_refused() -> None:
    plan = make_plan(make_catalogue(), {"family": "popularity"})
    stranger = plan.model_copy(update={"model": plan.model.model_copy(update={"family": "oracle"})})
    with pytest.raises(UnknownFamilyError, match="oracle") as refusal:
        get_family(stranger)
    assert isinstance(refusal.value, UsageError)
