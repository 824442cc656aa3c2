"""The sequence benchmark on a handful of people: what is learnt, kept, judged and said."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("federated_sequence")


@pytest.fixture
def small(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One made-up set, small enough for a test."""
    usual = benchmark.SETTINGS["marketplace"]
    setting = replace(usual, users=160, items=60, features=8, hidden=4, places=4, rounds=2)
    monkeypatch.setattr(benchmark, "SETTINGS", {"marketplace": setting})
    return benchmark


def record(module: ModuleType, name: str, seed: int, ndcg: dict[str, float]) -> Any:
    options = module.options_of(module.SETTINGS[name], seed)
    models = {model: dict.fromkeys(module.METRICS, value) for model, value in ndcg.items()}
    return {
        "state": "finished",
        "options": options,
        "models": models,
        "users": [4, 3, 2, 1],
        "items": 60,
        "processor_seconds": 60.0,
    }


def figures(module: ModuleType, federated: float, alone: float, popularity: float) -> dict[str, float]:
    found = {module.POPULARITY: popularity}
    for epsilon in module.EPSILONS:
        found |= {module.federated(epsilon): federated, module.alone(epsilon): alone}
    return found


def test_public_people_are_in_no_silo_and_only_what_trains_is_capped(
    small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sequence_scene.MAX_INTERACTIONS", 60 // 4)
    scene = small.Scene(small.SETTINGS["marketplace"], 0, None)
    public, members = set(scene.public.user_ids), set(scene.members.user_ids)
    assert public
    assert not public & members
    assert sum(part.num_users for part in scene.parts) == len(members)
    assert set(scene.held_out.user_ids) == members
    assert {user for part in scene.parts for user in part.user_ids} == members
    for part in (scene.public, *scene.parts):
        assert np.diff(part.matrix().indptr).max() <= part.num_items // 4
    assert np.diff(scene.members.matrix().indptr).max() > scene.members.num_items // 4
    assert scene.start[1].num_items == scene.members.num_items


def test_every_model_is_learnt_written_at_once_and_kept(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "figures.json"
    words = ["--set", "marketplace", "--seeds", "1", "--json", str(target)]
    write, written = small.write, []

    def note(result: Any, where: str) -> None:
        written.append(len(result["runs"]["marketplace-seed-0"]["models"]))
        write(result, where)

    monkeypatch.setattr(small, "write", note)
    small.main(words)
    found = json.loads(target.read_text())["runs"]["marketplace-seed-0"]
    scene = small.Scene(small.SETTINGS["marketplace"], 0, None)
    assert list(found["models"]) == list(small.models(scene))
    assert written == [*range(1, len(found["models"]) + 1), len(found["models"])]
    assert all(0 < of["ndcg@20"] < 1 for of in found["models"].values())

    found["models"].pop(small.NO_PRIVACY)
    found["models"][small.POPULARITY]["ndcg@20"] = 0.125
    target.write_text(json.dumps({"runs": {"marketplace-seed-0": found | {"state": "unfinished"}}}))
    written.clear()
    small.main(words)
    again = json.loads(target.read_text())["runs"]["marketplace-seed-0"]
    assert written == [len(again["models"])] * 2
    assert again["models"][small.POPULARITY]["ndcg@20"] == 0.125

    small.main([*words, "--again"])
    anew = json.loads(target.read_text())["runs"]["marketplace-seed-0"]
    assert anew["models"][small.POPULARITY]["ndcg@20"] != 0.125


def test_figures_of_other_options_are_not_kept(small: ModuleType) -> None:
    seen: list[Any] = []
    kept = {"options": {"places": 999}, "models": {small.POPULARITY: {"ndcg@20": 0.5}}}
    small.run(small.SETTINGS["marketplace"], 0, None, kept | {"processor_seconds": 0.0}, seen.append)
    assert seen[-1]["state"] == "finished"
    assert seen[-1]["models"][small.POPULARITY]["ndcg@20"] != 0.5


@pytest.mark.parametrize(
    ("federated", "alone", "popularity", "missed"),
    [
        (0.23, 0.2, 0.2, set()),
        (0.21, 0.2, 0.2, {"popularity"}),
        (0.23, 0.24, 0.2, {"silo alone"}),
        (0.1, 0.2, 0.3, {"popularity", "silo alone"}),
    ],
)
def test_each_target_is_judged(
    benchmark: ModuleType, federated: float, alone: float, popularity: float, missed: set[str]
) -> None:
    values = figures(benchmark, federated, alone, popularity)
    records = {
        f"{name}-seed-{seed}": record(benchmark, name, seed, values)
        for name in benchmark.SETTINGS
        for seed in range(2)
    }
    result = benchmark.result_of(records)
    for checks in result["checks"].values():
        assert {what.split("above ")[1] for what, check in checks.items() if not check["met"]} == missed
    assert len(result["checks"]) == 2
    assert result["all_met"] is (not missed)


def test_one_set_alone_does_not_meet_the_targets(benchmark: ModuleType) -> None:
    values = figures(benchmark, 0.5, 0.2, 0.2)
    records = {"marketplace-seed-0": record(benchmark, "marketplace", 0, values)}
    assert benchmark.result_of(records)["all_met"] is False


def test_what_is_unfinished_is_said_and_in_no_mean(benchmark: ModuleType) -> None:
    values = figures(benchmark, 0.5, 0.2, 0.2)
    other = record(benchmark, "marketplace", 1, values) | {"state": "unfinished"}
    records = {"marketplace-seed-0": record(benchmark, "marketplace", 0, values), "marketplace-seed-1": other}
    result = benchmark.result_of(records)
    assert result["summary"]["marketplace"]["seeds"] == [0]
    page = importlib.import_module("reporting").Markdown()
    benchmark.show(result, page)
    assert "marketplace-seed-1 is unfinished" in page.text
    assert "| marketplace, epsilon 4: above popularity | 0.3000 | >= 0.02 | yes |" in page.text
