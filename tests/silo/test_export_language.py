"""What a job of family ``language`` leaves becomes files: over the silo's own list, by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

import cli
from policies.plans.models import LanguageArchitectureName
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from silo.data.catalogue import Catalogue
from silo.data.public_sets import load_public_set
from silo.export.measuring import top_overlap
from silo.export.running import OnnxScorer
from silo.language.space import PlacedCatalogue
from silo.local.serving import served_model
from silo.models.base import get_family
from silo.models.features import public_uniform
from silo.rows import load_rows
from tests.support.local_silo import POLICY, finish_job, local_plan, make_local_silo
from tests.support.small_set import write_set

DIMENSIONS = 8
JOB = "ab" * 16


def placed(catalogue: Catalogue) -> PlacedCatalogue:
    """Where an encoder might have placed the items."""
    places = public_uniform(3, len(catalogue) * DIMENSIONS).reshape(-1, DIMENSIONS) - 0.5
    return PlacedCatalogue(catalogue.items, places / np.linalg.norm(places, axis=1, keepdims=True), "cd" * 32)


def make_silo(directory: Path, architecture: LanguageArchitectureName) -> Path:
    """A silo that ranks its own list with the weights of a job, none of which are zero."""
    public = load_public_set(write_set(directory.parent / "set"))
    own, rows = public.catalogue, public.rows.select("user_id", "item_id", "timestamp")
    make_local_silo(directory, own, rows)
    listed = f"    item_list: catalogues/{own.sha256}.jsonl\n    columns:"
    policy = parse_yaml(POLICY.replace("    columns:", listed).encode(), SiloPolicy, "policy.yaml")
    shared = Catalogue(own.items[:30])  # the plan's public reference, of which the silo ranks nothing
    plan = local_plan(
        shared,
        family="language",
        architecture=architecture,
        encoder_sha256="ab" * 32,
        text_dimensions=DIMENSIONS,
        hidden=8,
        rounds=2,
    )
    family = get_family(plan)(plan, placed(own))
    rng = np.random.default_rng(5)
    state = family.initial_state()
    for name, table in state.items():
        if np.issubdtype(table.dtype, np.floating):
            state[name] = (table + 0.3 * rng.normal(size=table.shape)).astype(table.dtype)
    finish_job(directory, JOB, plan, family.finish(state))
    (directory / "jobs" / JOB / "policy.json").write_text(policy.model_dump_json())
    return directory


@pytest.mark.parametrize("architecture", get_args(LanguageArchitectureName))
def test_a_jobs_model_goes_through_both_commands(
    architecture: LanguageArchitectureName, tmp_path: Path
) -> None:
    directory = make_silo(tmp_path / "shop-a", architecture)

    def run(*words: str) -> None:
        done = CliRunner().invoke(cli.app, [*words, "--dir", str(directory)])
        assert done.exit_code == 0, done.output

    served = served_model(directory, None, None)
    histories = load_rows(directory, served.source.plan, served.source.dataset).train.matrix()
    wanted = served.model.scores(histories)
    assert np.ptp(wanted, axis=1).min() > 0

    run("export", "--format", "onnx", "--out", str(tmp_path / "model.onnx"))
    whole = OnnxScorer.of((tmp_path / "model.onnx").read_bytes())
    np.testing.assert_allclose(whole.scores(histories), wanted, rtol=1e-4, atol=2e-4)
    card = json.loads((tmp_path / "model.onnx.card.json").read_text())
    assert (card["model"], card["job"], card["is_private_to_silo"]) == ("federated", JOB, False)
    assert (card["catalogue_sha256"], card["items"]) == (served.catalogue.sha256, len(served.catalogue))

    run("compress", "--int8", "--out", str(tmp_path / "small.onnx"))
    small = OnnxScorer.of((tmp_path / "small.onnx").read_bytes())
    assert top_overlap(served.model, small, histories) > 0.9
    figures = json.loads((tmp_path / "small.onnx.figures.json").read_text())
    assert figures["overlap"] == pytest.approx(top_overlap(served.model, small, histories), abs=0.02)

    run("export", "--format", "safetensors", "--out", str(tmp_path / "model.safetensors"))
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert len(file.get_tensor("popularity")) == len(served.catalogue)
        assert json.loads(file.metadata()["archipel"])["job"] == JOB
    run("export", "--format", "parquet", "--out", str(tmp_path / "items.parquet"))
    assert pl.read_parquet(tmp_path / "items.parquet")["item_id"].to_list() == list(served.catalogue.item_ids)
