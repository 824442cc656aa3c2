"""Networks as files: they score like what they were made of, whole and in bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from typer.testing import CliRunner, Result

import cli
from policies.files import load_yaml
from policies.plans.models import ArchitectureName
from policies.plans.plan import Plan
from privacy.errors import ExitCode
from silo.data.public_sets import load_public_set
from silo.export.commands import FormatName
from silo.export.graph import INPUT
from silo.export.index import IndexedModel, ItemIndex
from silo.export.measuring import made_up_histories, top_overlap
from silo.export.networks import NetworkModel
from silo.export.onnx_graph import USER_OUTPUT
from silo.export.pruning import pruned
from silo.export.running import OnnxScorer, padded
from silo.export.scorers import ExportableModel, NotExportableError, exportable
from silo.export.writing import Format, model_bytes
from silo.models.sequence.trunk import TRUNKS
from tests.support.local_silo import finish_job, make_local_silo
from tests.support.networks import PLACES, federated_network, local_network
from tests.support.small_set import write_set

torch.set_num_threads(1)
ITEMS = 60
NETWORKS = [(where, name) for where in ("federated", "local") for name in TRUNKS]


def network(where: str, architecture: ArchitectureName) -> ExportableModel:
    make = federated_network if where == "federated" else local_network
    return exportable(where, make(architecture, ITEMS))


def histories() -> sp.csr_matrix:
    """Of every length around the places that a network reads, in no order of items; one is empty."""
    rng = np.random.default_rng(7)
    lengths = [*range(PLACES + 3), 30]
    items = np.concatenate([rng.permutation(ITEMS)[:length] for length in lengths])
    starts = np.concatenate(([0], np.cumsum(lengths)))
    return sp.csr_matrix((np.ones(items.size), items, starts), shape=(len(lengths), ITEMS))


def written(model: ExportableModel, kind: Format = "onnx", *, is_int8: bool = False) -> OnnxScorer:
    return OnnxScorer.of(model_bytes(model, None, kind, {}, is_int8=is_int8))  # type: ignore[arg-type]


@pytest.mark.parametrize(("where", "architecture"), NETWORKS)
def test_onnx_scores_like_the_network(where: str, architecture: ArchitectureName) -> None:
    model = network(where, architecture)
    found = written(model).scores(histories())
    np.testing.assert_allclose(found, model.scores(histories()), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("where", "architecture"), NETWORKS)
def test_a_batch_scores_each_as_alone(where: str, architecture: ArchitectureName) -> None:
    """Short histories are padded beside long ones; neither padding nor neighbours may count."""
    exported = written(network(where, architecture), is_int8=True)
    (together,) = exported.session.run(["scores"], {INPUT: padded(histories())})
    np.testing.assert_allclose(together, exported.scores(histories()), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("architecture", TRUNKS)
def test_int8_keeps_nine_of_ten_in_two_fifths_of_the_bytes(architecture: ArchitectureName) -> None:
    items = 1500
    model = exportable("federated", federated_network(architecture, items, features=64, hidden=16))
    people = made_up_histories(model.popularity)[:100]
    whole, small = (model_bytes(model, None, "onnx", {}, is_int8=is_int8) for is_int8 in (False, True))  # type: ignore[arg-type]
    assert len(small) < 0.4 * len(whole)
    assert top_overlap(model, OnnxScorer.of(small), people) > 0.9


@pytest.mark.parametrize(("where", "architecture"), NETWORKS)
def test_a_users_vector_meets_the_index_as_the_page_says(where: str, architecture: ArchitectureName) -> None:
    model = network(where, architecture)
    vectors = model.item_vectors()
    assert vectors is not None
    people = histories()[1:]
    session = written(model, "user-onnx").session
    (users,) = session.run([USER_OUTPUT], {INPUT: padded(people)})
    np.testing.assert_allclose(
        users @ vectors.vectors.T + vectors.bias, model.scores(people), rtol=1e-4, atol=2e-4
    )
    indexed = IndexedModel(model, ItemIndex.of(vectors))
    np.testing.assert_allclose(
        ItemIndex.of(vectors).scores(users), indexed.scores(people), rtol=1e-4, atol=2e-4
    )
    assert top_overlap(model, indexed, made_up_histories(model.popularity)) > 0.9


def test_people_without_a_history_get_popularity_from_the_index() -> None:
    model = network("federated", "gru")
    vectors = model.item_vectors()
    assert vectors is not None
    found = IndexedModel(model, ItemIndex.of(vectors)).scores(sp.csr_matrix((2, ITEMS)))
    np.testing.assert_array_equal(found, np.tile(model.popularity, (2, 1)))


def test_a_network_is_not_pruned_afterwards() -> None:
    with pytest.raises(NotExportableError, match="only while it is trained"):
        pruned(network("federated", "transformer"), 0.5)


def test_the_order_of_a_history_counts_in_the_file_too() -> None:
    exported = written(network("federated", "transformer"))
    there, back = ([[3, 9, 4, 1]], [[1, 4, 9, 3]])
    first, second = (exported.session.run(["scores"], {INPUT: np.array(items)})[0] for items in (there, back))
    assert np.abs(first - second).max() > 0.01


def test_a_jobs_network_goes_through_both_commands(tmp_path: Path) -> None:
    public = load_public_set(write_set(tmp_path / "set"))
    rows = public.rows.select("user_id", "item_id", "timestamp")
    directory = make_local_silo(tmp_path / "shop-a", public.catalogue, rows)
    plan = load_yaml(directory / "plan.yaml", Plan)
    finish_job(directory, "aa" * 16, plan, federated_network("masked", len(public.catalogue)))

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli.app, [*words, "--dir", str(directory)])

    for kind in FormatName:
        done = run("export", "--format", kind.value, "--out", str(tmp_path / kind.value))
        assert done.exit_code == 0, done.output
        card = json.loads((tmp_path / f"{kind.value}.card.json").read_text())
        assert card["network"]["architecture"] == "masked"
    columns = pl.read_parquet(tmp_path / "parquet").columns
    assert columns == ["item_id", "title", "popularity", "bias", "vector"]
    refused = run("compress", "--prune", "0.5", "--out", str(tmp_path / "pruned.onnx"))
    assert refused.exit_code == ExitCode.USAGE
    assert "only while it is trained" in refused.output
    done = run("compress", "--int8", "--out", str(tmp_path / "small.onnx"))
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "small.onnx.figures.json").read_text())
    assert figures["overlap"] > 0.85


def test_every_table_of_a_network_is_in_its_file() -> None:
    model = network("federated", "lstm")
    assert isinstance(model, NetworkModel)
    assert model.about == {"architecture": "lstm", "features": 8, "hidden": 8, "layers": 2, "places": PLACES}
    assert {"features", "bias", "popularity", "network.enter.weight"} <= model.tables().keys()
    local = network("local", "masked")
    assert {"items.weight", "bias", "popularity", "trunk.position.weight"} <= local.tables().keys()
