"""``fit --local``, ``compare`` and ``recommend --model``, as they are typed, on one silo's directory."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

import cli
from policies.files import load_yaml
from policies.plans.plan import Plan
from privacy.errors import ExitCode
from silo.data.public_sets import load_public_set
from silo.local import models, sequence_training
from silo.local.files import KIND, PARTS_FILE, load_parts
from silo.local.fusion import halves
from silo.models.recommender import Recommender
from silo.rows import load_rows
from silo.tensor_files import load_tables, save_tables
from tests.support.local_silo import finish_job, local_plan, make_local_silo
from tests.support.small_set import user_name, write_set

SOMEBODY = user_name(3)


def run(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.app, [*words, "--dir", str(directory)])


def values(directory: Path, *words: str) -> dict[str, Any]:
    done = run(directory, *words, "--json", "-")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silo with a finished job of four tastes and local models fitted to the job's rows."""
    root = tmp_path_factory.mktemp("local")
    public = load_public_set(write_set(root / "set"))
    rows = public.rows.select("user_id", "item_id", "timestamp")
    directory = make_local_silo(root / "shop-a", public.catalogue, rows)
    taste = np.arange(len(public.catalogue)) % 4
    same_taste = (taste[:, None] == taste[None, :]).astype(np.float32)
    zeros = np.zeros(len(taste), np.float32)
    plan = load_yaml(directory / "plan.yaml", Plan)
    finish_job(directory, "aa" * 16, plan, Recommender(same_taste, None, zeros, zeros))
    assert run(directory, "fit", "--local").exit_code == 0
    return directory


@pytest.fixture
def silo(fitted: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(fitted, tmp_path / "shop-a"))


def test_the_card_says_whose_it_is_and_of_which_rows(silo: Path) -> None:
    card = json.loads((silo / "local" / "purchases" / "card.json").read_text())
    parts = load_parts(silo)
    train = load_rows(silo, parts.source.plan, parts.source.dataset).train
    assert card["is_private_to_silo"]
    assert card["terms"]["holdout"]["kind"] == "last"
    assert card["rows"]["interactions"] == train.num_interactions
    assert card["models"] == ["popularity", "item-knn", "item-graph"]
    assert card == parts.card


def test_what_is_held_out_is_not_learnt(silo: Path) -> None:
    parts = load_parts(silo)
    rows = load_rows(silo, parts.source.plan, parts.source.dataset)
    assert rows.held_out.num_interactions > 100
    assert parts.models.popularity.sum() == rows.train.num_interactions


def test_who_opted_out_is_not_learnt(silo: Path) -> None:
    before = load_parts(silo).card["rows"]
    (silo / "no.csv").write_text(f"user_id\n{SOMEBODY}\n")
    after = values(silo, "fit", "--local")["rows"]
    assert after["users"] == before["users"] - 1


def test_others_on_the_machine_cannot_look_inside(silo: Path) -> None:
    shutil.rmtree(silo / "local")
    assert run(silo, "fit", "--local").exit_code == 0
    for place in (silo / "local", silo / "local" / "purchases"):
        assert os.stat(place).st_mode & 0o077 == 0


def test_fitting_touches_no_ledger(silo: Path) -> None:
    assert run(silo, "fit", "--local").exit_code == 0
    assert run(silo, "compare", "--keep").exit_code == 0
    assert not (silo / "ledger.db").exists()
    assert not (silo / "outbox").exists()


def test_fit_can_take_a_plan_that_no_job_has_run(silo: Path) -> None:
    shutil.rmtree(silo / "jobs")
    assert run(silo, "fit", "--local").exit_code == ExitCode.DATA
    assert run(silo, "fit", "--local", "--plan", str(silo / "plan.yaml")).exit_code == 0


def test_a_catalogue_too_large_for_an_item_graph_is_said(silo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no item graph" not in run(silo, "fit", "--local").output
    monkeypatch.setattr(models, "MAX_GRAPH_ITEMS", 10)
    assert "no item graph" in run(silo, "fit", "--local").output
    names = [row["name"] for row in values(silo, "compare")["models"]]
    assert names[:2] == ["local:popularity", "local:item-knn"]
    assert "local:item-graph" not in names


def test_fit_without_local_or_with_two_sources_is_a_usage_error(silo: Path) -> None:
    plan = str(silo / "plan.yaml")
    assert run(silo, "fit").exit_code == ExitCode.USAGE
    assert run(silo, "fit", "--local", "--plan", plan, "--job", "aa").exit_code == ExitCode.USAGE


def test_compare_shows_every_model_and_the_blend(silo: Path) -> None:
    found = values(silo, "compare")
    names = [row["name"] for row in found["models"]]
    assert names == ["local:popularity", "local:item-knn", "local:item-graph", f"federated:{'aa' * 16}"]
    assert [row["is_private_to_silo"] for row in found["models"]] == [True, True, True, False]
    assert sum(row["weight"] for row in found["models"]) == pytest.approx(1.0)
    assert found["models"][3]["metrics"]["ndcg@20"] > found["models"][0]["metrics"]["ndcg@20"]
    assert all(0 < row["standard_error"] < 0.1 for row in (*found["models"], found["blend"]))
    assert found["kept"] is None
    assert not (silo / "local" / "purchases" / "blend.json").exists()
    shown = run(silo, "compare").output
    assert "█" in shown
    assert "blend" in shown


def test_a_job_that_learnt_what_is_held_out_here_is_not_compared(silo: Path) -> None:
    """Its figures would flatter it: it has seen the answers."""
    parts = load_parts(silo)
    plan = local_plan(parts.catalogue, holdout="random", holdout_seed=7)
    oracle = Recommender.of_popularity(np.ones(len(parts.catalogue), np.float32), {}, is_fallback=False)
    finish_job(silo, "bb" * 16, plan, oracle)
    found = values(silo, "compare")
    assert "another holdout" in found["left_out"]["bb" * 16]
    assert f"federated:{'bb' * 16}" not in [row["name"] for row in found["models"]]


def test_a_damaged_model_does_not_stop_the_others(silo: Path) -> None:
    finish_job(silo, "bb" * 16, load_yaml(silo / "plan.yaml", Plan), load_model(silo))
    (silo / "jobs" / ("bb" * 16) / "model.safetensors").write_bytes(b"nonsense")
    assert list(values(silo, "compare")["left_out"]) == ["bb" * 16]


def load_model(silo: Path) -> Recommender:
    return Recommender.load(silo / "jobs" / ("aa" * 16) / "model.safetensors")


def test_rows_that_changed_since_are_noticed(silo: Path) -> None:
    rows = pl.read_parquet(silo / "rows.parquet")
    rows.head(rows.height - 40).write_parquet(silo / "rows.parquet")
    done = run(silo, "compare")
    assert done.exit_code == ExitCode.DATA
    assert "local_parts" in done.output
    assert run(silo, "fit", "--local").exit_code == 0
    assert run(silo, "compare").exit_code == 0


def test_without_held_out_rows_there_is_nothing_to_compare(silo: Path) -> None:
    plan = local_plan(load_parts(silo).catalogue, holdout="none")
    finish_job(silo, "bb" * 16, plan, load_model(silo))
    assert run(silo, "fit", "--local", "--job", "bb").exit_code == 0
    assert "held no rows out" in run(silo, "compare").output


def poison(silo: Path, *, of_test_users: bool) -> None:
    """Give other last items to the people of one half; what they are known by stays as it is."""
    parts = load_parts(silo)
    rows = load_rows(silo, parts.source.plan, parts.source.dataset)
    names = set(halves(rows.held_out)[of_test_users].user_ids)
    table = pl.read_parquet(silo / "rows.parquet").sort("user_id", "timestamp")
    records = table.to_dicts()
    for this, following in zip(records, [*records[1:], {"user_id": None}], strict=True):
        if this["user_id"] in names and following["user_id"] != this["user_id"]:
            has = {record["item_id"] for record in records if record["user_id"] == this["user_id"]}
            this["item_id"] = next(name for name in parts.catalogue.item_ids if name not in has)
    pl.DataFrame(records, schema=table.schema).write_parquet(silo / "rows.parquet")


def figures(found: dict[str, Any]) -> tuple[list[float], list[float]]:
    return [row["weight"] for row in found["models"]], [
        row["metrics"]["ndcg@20"] for row in (*found["models"], found["blend"])
    ]


def test_poisoned_test_rows_change_no_weight(silo: Path) -> None:
    weights, before = figures(values(silo, "compare", "--keep"))
    poison(silo, of_test_users=True)
    same, after = figures(values(silo, "compare", "--keep"))
    assert same == weights
    assert after != before


def test_poisoned_validation_rows_do(silo: Path) -> None:
    """The other half of the test above: there is something that could have leaked."""
    weights, _ = figures(values(silo, "compare"))
    poison(silo, of_test_users=False)
    other, _ = figures(values(silo, "compare"))
    assert other != weights


def test_lists_are_made_with_the_blend_once_it_is_kept(silo: Path) -> None:
    before = values(silo, "recommend", "--user", SOMEBODY)
    assert (before["model"], before["job"], before["private_parts"]) == ("federated", "aa" * 16, [])
    kept = values(silo, "compare", "--keep")
    after = values(silo, "recommend", "--user", SOMEBODY)
    used = [row["name"] for row in kept["models"] if row["weight"] > 0]
    assert after["model"] == "blend"
    assert after["private_parts"] == [name for name in used if name.startswith("local:")]
    assert after["private_parts"]
    assert after["items"] != before["items"]
    assert "private to this silo" in run(silo, "recommend", "--user", SOMEBODY).output
    again = values(silo, "recommend", "--user", SOMEBODY, "--model", "federated")
    assert again["items"] == before["items"]
    assert values(silo, "recommend", "--user", SOMEBODY, "--job", "aa")["items"] == before["items"]


def test_one_local_model_by_name(silo: Path) -> None:
    parts = load_parts(silo)
    found = values(silo, "recommend", "--user", "nobody-here", "--model", "local:popularity", "-k", "3")
    best = np.argsort(-parts.models.popularity, kind="stable")[:3]
    assert [row["item_id"] for row in found["items"]] == [parts.catalogue.item_ids[item] for item in best]
    assert found["private_parts"] == ["local:popularity"]
    assert found["fallback"] == "unknown-user"


def test_somebody_unknown_gets_a_list_of_the_blend(silo: Path) -> None:
    run(silo, "compare", "--keep")
    found = values(silo, "recommend", "--user", "nobody-here", "-k", "3")
    assert (found["model"], found["fallback"], len(found["items"])) == ("blend", "unknown-user", 3)


@pytest.mark.parametrize(
    "words",
    [("--model", "oracle"), ("--model", "local:oracle"), ("--model", "blend", "--job", "aa")],
    ids=" ".join,
)
def test_models_that_cannot_be_meant(silo: Path, words: tuple[str, ...]) -> None:
    assert run(silo, "recommend", "--user", SOMEBODY, *words).exit_code == ExitCode.USAGE


def test_a_blend_that_was_never_kept_is_said(silo: Path) -> None:
    done = run(silo, "recommend", "--user", SOMEBODY, "--model", "blend")
    assert done.exit_code == ExitCode.DATA
    assert "archipel compare --keep" in done.output


def test_fitting_again_forgets_the_weights_of_other_models(silo: Path) -> None:
    run(silo, "compare", "--keep")
    run(silo, "fit", "--local")
    assert values(silo, "recommend", "--user", SOMEBODY)["model"] == "federated"


def test_weights_of_other_models_are_refused(silo: Path) -> None:
    run(silo, "compare", "--keep")
    blend = (silo / "local" / "purchases" / "blend.json").read_bytes()
    (silo / "no.csv").write_text(f"user_id\n{SOMEBODY}\n")
    run(silo, "fit", "--local")
    (silo / "local" / "purchases" / "blend.json").write_bytes(blend)
    done = run(silo, "recommend", "--user", SOMEBODY)
    assert done.exit_code == ExitCode.DATA
    assert "other local models" in done.output


def test_a_retired_model_of_the_blend_is_said(silo: Path) -> None:
    kept = values(silo, "compare", "--keep")
    assert kept["models"][3]["weight"] > 0
    shutil.rmtree(silo / "jobs" / ("aa" * 16))
    done = run(silo, "recommend", "--user", SOMEBODY)
    assert done.exit_code == ExitCode.DATA
    assert "not here any more" in done.output


def test_a_job_that_finished_since_is_pointed_out(silo: Path) -> None:
    run(silo, "compare", "--keep")
    finish_job(silo, "bb" * 16, load_yaml(silo / "plan.yaml", Plan), load_model(silo))
    assert values(silo, "recommend", "--user", SOMEBODY)["uncompared_job"] == "bb" * 16
    assert f"job {'bb' * 16} is not in the blend" in run(silo, "recommend", "--user", SOMEBODY).output


def test_without_local_models_it_is_said_how_to_make_them(silo: Path) -> None:
    shutil.rmtree(silo / "local")
    for words in (("compare",), ("recommend", "--user", SOMEBODY, "--model", "local:item-knn")):
        done = run(silo, *words)
        assert done.exit_code == ExitCode.DATA
        assert "archipel fit --local" in done.output


def test_in_full_lists_of_the_blend_a_new_item_has_a_place(silo: Path) -> None:
    new = load_parts(silo).catalogue.item_ids[-1]
    rows = pl.read_parquet(silo / "rows.parquet").filter(pl.col("item_id") != new)
    rows.write_parquet(silo / "rows.parquet")
    run(silo, "fit", "--local")
    run(silo, "compare", "--keep")
    person = user_name(int(new[-4:]) % 4)  # likes the genre
    found = values(silo, "recommend", "--user", person)
    assert found["new_item"] == found["items"][-1]["item_id"] == new
    assert "is new here" in run(silo, "recommend", "--user", person).output
    for words in (("-k", "5"), ("--model", "federated"), ("--model", "local:item-graph")):
        assert values(silo, "recommend", "--user", person, *words)["new_item"] is None


def test_a_job_that_ended_before_the_rows_were_written_is_pointed_out(silo: Path) -> None:
    assert values(silo, "compare")["older_than_rows"] == []
    past = (silo / "rows.parquet").stat().st_mtime - 100
    os.utime(silo / "jobs" / ("aa" * 16) / "model.safetensors", (past, past))
    assert values(silo, "compare")["older_than_rows"] == ["aa" * 16]
    assert "may have learnt" in run(silo, "compare").output


@pytest.mark.parametrize("weights", [{"local:popularity": 0.5}, {}, {"local:popularity": -1.0}], ids=str)
def test_weights_that_are_none_are_refused(silo: Path, weights: dict[str, float]) -> None:
    run(silo, "compare", "--keep")
    path = silo / "local" / "purchases" / "blend.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": weights}))
    done = run(silo, "recommend", "--user", SOMEBODY)
    assert done.exit_code == ExitCode.DATA
    assert "cannot be read" in done.output


@pytest.mark.parametrize("field", ["dataset_name", "dataset", "plan", "card"])
def test_a_file_that_hides_where_it_comes_from_is_refused(silo: Path, field: str) -> None:
    path = silo / "local" / "purchases" / PARTS_FILE
    tables, about = load_tables(path, KIND)
    del about[field]
    save_tables(path, KIND, tables, about)
    done = run(silo, "compare")
    assert done.exit_code == ExitCode.DATA
    assert "learnt from" in done.output


@pytest.mark.parametrize("name", ["popularity", "item-knn.values", "item-knn.starts"])
def test_a_scalar_for_a_table_is_refused(silo: Path, name: str) -> None:
    path = silo / "local" / "purchases" / PARTS_FILE
    tables, about = load_tables(path, KIND)
    save_tables(path, KIND, tables | {name: tables[name][0]}, about)
    assert run(silo, "compare").exit_code == ExitCode.DATA


def test_a_card_nested_deeply_is_refused(silo: Path) -> None:
    path = silo / "local" / "purchases" / PARTS_FILE
    tables, about = load_tables(path, KIND)
    save_tables(path, KIND, tables, about | {"card": "[" * 200_000})
    done = run(silo, "compare")
    assert done.exit_code == ExitCode.DATA
    assert "learnt from" in done.output


def test_a_file_cut_short_is_refused(silo: Path) -> None:
    path = silo / "local" / "purchases" / PARTS_FILE
    path.write_bytes(path.read_bytes()[:1000])
    assert run(silo, "compare").exit_code == ExitCode.DATA


@pytest.fixture(scope="module")
def with_network(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("network") / "shop-a"))
    with pytest.MonkeyPatch.context() as patch:
        short = partial(sequence_training.SequenceOptions, max_epochs=12)
        patch.setattr(sequence_training, "SequenceOptions", short)
        done = run(directory, "fit", "--local", "--architecture", "cnn", "--augment", "crop,mask")
    assert done.exit_code == 0, done.output
    assert "cnn: " in done.output
    return directory


def test_a_network_over_ordered_histories_is_compared_blended_and_served(with_network: Path) -> None:
    card = load_parts(with_network).card
    assert card["models"][-1] == "cnn"
    assert card["network"]["options"]["augmentations"] == ["crop", "mask"]
    assert card["network"]["rows_without_time"] == card["network"]["rows_with_equal_times"] == 0
    found = values(with_network, "compare", "--keep")
    assert "local:cnn" in [row["name"] for row in found["models"]]
    row = next(row for row in found["models"] if row["name"] == "local:cnn")
    assert row["is_private_to_silo"]
    assert row["metrics"]["ndcg@20"] > 0
    served = values(with_network, "recommend", "--user", SOMEBODY, "--model", "local:cnn")
    assert served["private_parts"] == ["local:cnn"]
    assert served["items"]


def test_a_network_needs_times(silo: Path) -> None:
    parts = load_parts(silo)
    rows = pl.read_parquet(silo / "rows.parquet").with_columns(pl.lit(None, pl.Int64).alias("timestamp"))
    rows.write_parquet(silo / "rows.parquet")
    done = run(silo, "fit", "--local", "--architecture", "gru")
    assert done.exit_code == ExitCode.DATA
    assert "no_times" in done.output
    assert load_parts(silo).sha256 == parts.sha256


def test_options_of_a_network_without_one_are_a_usage_error(silo: Path) -> None:
    for words in (("--augment", "crop"), ("--seed", "3"), ("--architecture", "gru", "--augment", "crap")):
        assert run(silo, "fit", "--local", *words).exit_code == ExitCode.USAGE
