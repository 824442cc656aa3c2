"""Exported files score like the model they were made of; compressed ones say what they lost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from safetensors.numpy import load_file
from typer.testing import CliRunner, Result

import cli
from policies.files import load_yaml
from policies.plans.plan import Plan
from privacy.errors import ExitCode, UsageError
from silo.data.public_sets import load_public_set
from silo.export.graph import INPUT
from silo.export.index import IndexedModel, ItemIndex
from silo.export.measuring import made_up_histories, top_overlap
from silo.export.onnx_graph import OUTPUT, USER_OUTPUT, onnx_bytes, user_onnx_bytes
from silo.export.pruning import pruned
from silo.export.quantising import QuantisedTable
from silo.export.running import OnnxScorer, padded
from silo.export.scorers import NotExportableError, TableModel, exportable
from silo.export.writing import model_bytes
from silo.finished import load_finished
from silo.local.fusion import Blend
from silo.local.models import ItemNeighbours
from silo.models.recommender import Floats, Recommender
from tests.support.local_silo import finish_job, make_local_silo
from tests.support.small_set import user_name, write_set

ITEMS, RANK = 60, 8


def model(*, hidden: bool = False, full: bool = False, is_fallback: bool = False) -> Recommender:
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> Floats:
        return rng.normal(size=shape).astype(np.float32)

    return Recommender(
        draw(ITEMS, ITEMS if full else RANK),
        None if full else draw(ITEMS, RANK),
        draw(ITEMS),
        np.abs(draw(ITEMS)),
        draw(RANK) if hidden else None,
        is_fallback=is_fallback,
    )


def neighbours() -> TableModel:
    weights = sp.random(ITEMS, ITEMS, 0.2, format="csr", dtype=np.float32, rng=np.random.default_rng(4))
    return exportable("local:item-knn", ItemNeighbours(sp.csr_matrix(weights)))


def histories() -> sp.csr_matrix:
    """Made-up people, of whom one has no history and one has everything."""
    some = made_up_histories(np.ones(ITEMS, np.float32))[:40]
    ends = sp.csr_matrix(np.concatenate([np.zeros((1, ITEMS)), np.ones((1, ITEMS))]))
    return sp.csr_matrix(sp.vstack([some, ends], format="csr"))


MODELS = {
    "factors": TableModel(model()),
    "hidden": TableModel(model(hidden=True)),
    "items × items": TableModel(model(full=True)),
    "neighbours": neighbours(),
    "fallback": TableModel(model(is_fallback=True)),
    "popularity": TableModel(
        Recommender.of_popularity(np.arange(ITEMS, dtype=np.float32), {}, is_fallback=False)
    ),
}


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silo with a finished job and local models."""
    root = tmp_path_factory.mktemp("export")
    public = load_public_set(write_set(root / "set"))
    rows = public.rows.select("user_id", "item_id", "timestamp")
    directory = make_local_silo(root / "shop-a", public.catalogue, rows)
    taste = np.arange(len(public.catalogue)) % 4
    one_hot = np.eye(4, dtype=np.float32)[taste]
    bias = np.linspace(1, 0, len(taste), dtype=np.float32)
    plan = load_yaml(directory / "plan.yaml", Plan)
    finish_job(directory, "aa" * 16, plan, Recommender(one_hot, one_hot, bias, bias))
    assert run(directory, "fit", "--local").exit_code == 0
    return directory


def run(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.app, [*words, "--dir", str(directory)])


@pytest.mark.parametrize("name", MODELS)
def test_onnx_scores_like_the_model(name: str) -> None:
    scorer = MODELS[name]
    catalogue = None  # onnx holds no item ids
    exported = OnnxScorer.of(model_bytes(scorer, catalogue, "onnx", {}))  # type: ignore[arg-type]
    np.testing.assert_allclose(exported.scores(histories()), scorer.scores(histories()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["factors", "hidden", "items × items", "neighbours"])
def test_int8_keeps_lists_and_takes_a_third_of_the_bytes(name: str) -> None:
    """Of so few items the graph itself is a good part of the file, so tables are counted."""
    scorer = MODELS[name]
    content = model_bytes(scorer, None, "onnx", {}, is_int8=True)  # type: ignore[arg-type]
    assert top_overlap(scorer, OnnxScorer.of(content), histories()[:40]) > 0.9
    table = scorer.recommender.left
    quantised = QuantisedTable.of(table)
    assert np.abs(quantised.restored() - table).max() <= quantised.scales.max() / 2 * 1.001


def test_one_persons_scores_depend_on_nobody_else_in_the_batch() -> None:
    content = model_bytes(MODELS["hidden"], None, "onnx", {}, is_int8=True)  # type: ignore[arg-type]
    exported, people = OnnxScorer.of(content), histories()
    alone = np.concatenate([exported.scores(people[user : user + 1]) for user in range(5)])
    (together,) = exported.session.run([OUTPUT], {INPUT: padded(people)})
    np.testing.assert_allclose(together[:5], alone, rtol=1e-5, atol=1e-6)


def test_uneven_dimensions_are_balanced_before_they_are_rounded() -> None:
    """One dimension is large on one side and small on the other: its step would swallow the others'."""
    whole = model()
    stretch = np.float32(10.0) ** np.arange(-4, 4, dtype=np.float32)
    uneven = TableModel(
        replace(whole, left=whole.left / stretch, right=whole.right * stretch)  # type: ignore[operator]
    )
    people = histories()[:40]
    np.testing.assert_allclose(
        uneven.balanced().scores(people), TableModel(whole).scores(people), rtol=1e-3, atol=1e-3
    )
    content = model_bytes(uneven, None, "onnx", {}, is_int8=True)  # type: ignore[arg-type]
    assert top_overlap(uneven, OnnxScorer.of(content), people) > 0.9
    vectors = uneven.item_vectors()
    assert vectors is not None
    as_it_is = IndexedModel(uneven, ItemIndex.of(vectors))
    assert top_overlap(uneven, as_it_is, people) < 0.9


def uneven_units() -> TableModel:
    """Hidden units of which some read large numbers and say little, and the other way round."""
    whole = model(hidden=True)
    stretch = np.float32(4.0) ** np.arange(-4, 4, dtype=np.float32)
    return TableModel(replace(whole, left=whole.left * stretch, right=whole.right / stretch))  # type: ignore[operator]


def test_scales_of_hidden_units_change_no_score() -> None:
    uneven = uneven_units()
    people, wanted = histories(), uneven.scores(histories())
    balanced = uneven.balanced()
    assert balanced.scales is not None
    assert max(np.ptp(np.log(scale)) for scale in (balanced.scales.left, balanced.scales.right)) > 1
    exported = OnnxScorer.of(onnx_bytes(balanced, is_int8=False, metadata={}))
    np.testing.assert_allclose(exported.scores(people), wanted, rtol=1e-3, atol=1e-3)
    vectors = balanced.item_vectors()
    assert vectors is not None
    by_halves = balanced.user_vectors(people[:40]) @ vectors.vectors.T + vectors.bias
    np.testing.assert_allclose(by_halves, wanted[:40], rtol=1e-3, atol=1e-3)
    session = OnnxScorer.of(user_onnx_bytes(balanced, metadata={})).session
    (users,) = session.run([USER_OUTPUT], {INPUT: padded(people[:40])})
    np.testing.assert_allclose(users, balanced.user_vectors(people[:40]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scorer", [uneven_units(), MODELS["hidden"]], ids=["uneven", "even"])
def test_bytes_of_balanced_hidden_units_lose_less(scorer: TableModel) -> None:
    people, wanted = histories()[:40], scorer.scores(histories()[:40])
    vectors = scorer.balanced().item_vectors()
    as_they_are = OnnxScorer.of(onnx_bytes(scorer, is_int8=True, metadata={}))
    balanced = OnnxScorer.of(model_bytes(scorer, None, "onnx", {}, is_int8=True))  # type: ignore[arg-type]
    before, after = (np.abs(made.scores(people) - wanted).mean() for made in (as_they_are, balanced))
    assert after < before
    assert top_overlap(scorer, balanced, people) >= top_overlap(scorer, as_they_are, people)
    assert top_overlap(scorer, balanced, people) > 0.9
    assert vectors is not None
    assert top_overlap(scorer, IndexedModel(scorer.balanced(), ItemIndex.of(vectors)), people) > 0.9


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_dimension_without_a_value_is_left_alone(is_hidden: bool) -> None:
    empty = model(hidden=is_hidden)
    empty.left[:, 2] = 0.0
    empty.right[:, 3] = 0.0  # type: ignore[index]
    balanced = OnnxScorer.of(onnx_bytes(TableModel(empty).balanced(), is_int8=False, metadata={}))
    np.testing.assert_allclose(balanced.scores(histories()), TableModel(empty).scores(histories()), atol=1e-4)


def test_a_row_of_zeros_or_of_the_smallest_floats_is_quantised() -> None:
    table = np.zeros((2, 3), np.float32)
    table[1] = 1e-45
    assert np.abs(QuantisedTable.of(table).restored()).max() < 1e-30


def test_pruning_directions_that_are_not_there_changes_nothing() -> None:
    whole = model()
    doubled = replace(
        whole,
        left=np.concatenate([whole.left, whole.left], axis=1),
        right=np.concatenate([whole.right, whole.right], axis=1),  # type: ignore[list-item]
    )
    smaller = pruned(TableModel(doubled), 0.5)
    assert smaller.recommender.left.shape == (ITEMS, RANK)
    np.testing.assert_allclose(
        smaller.scores(histories()), TableModel(doubled).scores(histories()), rtol=1e-4, atol=1e-4
    )


def test_pruning_leaves_out_the_hidden_units_that_do_least() -> None:
    whole = model(hidden=True)
    whole.left[:, [1, 4, 5, 6]] *= 1e-6
    smaller = pruned(TableModel(whole), 0.5).recommender
    np.testing.assert_array_equal(smaller.left, whole.left[:, [0, 2, 3, 7]])


def test_what_cannot_be_pruned_or_exported_is_refused() -> None:
    with pytest.raises(NotExportableError, match="no dimensions"):
        pruned(MODELS["items × items"], 0.5)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError):
            pruned(MODELS["factors"], share)
    with pytest.raises(NotExportableError, match="a blend is several"):
        exportable("blend", Blend({"a": model()}, {"a": 1.0}))


def test_export_writes_the_tables_and_a_card(silo: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    assert run(silo, "export", "--out", str(out)).exit_code == 0
    tables = load_file(out)
    assert sorted(tables) == ["bias", "left", "popularity", "right"]
    card = json.loads((tmp_path / "model.safetensors.card.json").read_text())
    assert (card["model"], card["job"], card["is_private_to_silo"]) == ("federated", "aa" * 16, False)
    assert out.stat().st_mode & 0o077 == 0
    again = run(silo, "export", "--out", str(out))
    assert again.exit_code == ExitCode.USAGE
    assert "output_exists" in again.output


def test_parquet_has_a_row_for_each_item(silo: Path, tmp_path: Path) -> None:
    out = tmp_path / "items.parquet"
    assert run(silo, "export", "--format", "parquet", "--out", str(out)).exit_code == 0
    table = pl.read_parquet(out)
    assert table.columns == ["item_id", "title", "popularity", "bias", "left", "right"]
    assert table["item_id"][5] == "item-0005"
    assert table["left"][5].to_list() == [0.0, 1.0, 0.0, 0.0]


def test_a_local_model_becomes_no_file_unless_somebody_says_so(silo: Path, tmp_path: Path) -> None:
    words = ("export", "--model", "local:item-knn", "--out", str(tmp_path / "x.onnx"), "--format", "onnx")
    refused = run(silo, *words)
    assert refused.exit_code == ExitCode.DENIED
    assert not list(tmp_path.iterdir())
    allowed = run(silo, *words, "--allow-private")
    assert allowed.exit_code == 0
    assert "without noise" in allowed.output


def test_compress_measures_people_apart_from_the_card(silo: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    assert run(silo, "compress", "--out", str(out)).exit_code == ExitCode.USAGE
    done = run(silo, "compress", "--int8", "--prune", "0.25", "--out", str(out))
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "small.onnx.card.json").read_text())
    assert card["bytes"] == out.stat().st_size
    assert {"bytes_before", "milliseconds_a_user", "top_10_overlap"} <= card.keys()
    assert not any("recall" in key or "ndcg" in key for key in card)
    figures = json.loads((tmp_path / "small.onnx.figures.json").read_text())
    assert figures["after"]["recall@10"] == pytest.approx(figures["before"]["recall@10"], abs=0.2)
    assert "without noise" in figures["statement"]
    assert b"recall" not in out.read_bytes()


def test_figures_of_people_are_in_one_file_only(silo: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "small.onnx", tmp_path / "said.json"
    assert run(silo, "compress", "--int8", "--out", str(out), "--json", str(said)).exit_code == 0
    found = json.loads(said.read_text())
    assert found["figures_path"] == str(tmp_path / "small.onnx.figures.json")
    assert "recall" not in said.read_text()
    assert Path(found["figures_path"]).stat().st_mode & 0o077 == 0


def test_the_index_is_searched_as_the_page_says(
    silo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to-export-and-compress.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for kind, name in (("index", "items.index"), ("user-onnx", "user.onnx")):
        assert run(silo, "export", "--format", kind, "--out", str(tmp_path / name)).exit_code == 0
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    model = load_finished(silo).recommender
    history = sp.csr_matrix((np.ones(3), [5, 17, 3], [0, 3]), shape=(1, model.num_items))
    expected = model.scores(history)[0]
    best, scores = names["best"], names["scores"]
    expected[[5, 17, 3]] = -np.inf
    np.testing.assert_array_equal(best, np.argsort(-expected, kind="stable")[:20])
    np.testing.assert_allclose(scores[best], expected[best], atol=0.01)
    card = json.loads((tmp_path / "items.index.card.json").read_text())
    assert card["top_10_overlap"] > 0.9
    assert card["bytes"] == (tmp_path / "items.index").stat().st_size


def test_a_popularity_list_is_no_index(silo: Path, tmp_path: Path) -> None:
    out = tmp_path / "items.index"
    done = run(
        silo, "export", "--format", "index", "--model", "local:popularity", "--allow-private",
        "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == ExitCode.USAGE
    assert "no vectors" in done.output
    assert not list(tmp_path.iterdir())


def test_everybodys_lists_are_those_of_each(silo: Path, tmp_path: Path) -> None:
    assert run(silo, "compare", "--keep").exit_code == 0
    out = tmp_path / "lists.parquet"
    done = run(silo, "recommend", "--all", "-k", "12", "--out", str(out))
    assert done.exit_code == 0, done.output
    lists = pl.read_parquet(out)
    assert lists["user_id"].n_unique() == 320
    for user in (3, 77, 200):
        alone = json.loads(
            run(silo, "recommend", "--user", user_name(user), "-k", "12", "--json", "-").stdout
        )
        mine = lists.filter(pl.col("user_id") == user_name(user))
        assert mine["item_id"].to_list() == [item["item_id"] for item in alone["items"]]
        assert mine["score"].to_list() == [item["score"] for item in alone["items"]]
        assert mine["rank"].to_list() == list(range(1, 13))
    assert run(silo, "recommend", "--all").exit_code == ExitCode.USAGE
    assert run(silo, "recommend").exit_code == ExitCode.USAGE
    assert run(silo, "recommend", "--all", "--out", str(out)).exit_code == ExitCode.USAGE
