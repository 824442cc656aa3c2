"""A forecast against what the other members published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import app
from policies.administration import sign_policy
from silo.site import utc_now
from tests.contracts.small_federation import SmallFederation, make_small_federation


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return make_small_federation(tmp_path)


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def publish(federation: SmallFederation, *names: str) -> Path:
    directory = federation.root / "published"
    directory.mkdir(exist_ok=True)
    for name in names:
        run("policy", "publish", "--dir", federation.directory(name), "--out", directory / f"{name}.json")
    return directory


def stricter(federation: SmallFederation, name: str) -> None:
    path = federation.directory(name) / "policy.yaml"
    text = path.read_text().replace("max_epsilon_per_plan: 4.0", "max_epsilon_per_plan: 1.5")
    path.write_text(text.replace("\nversion: 1\n", "\nversion: 2\n"))
    sign_policy(federation.directory(name), utc_now())


def forecast(federation: SmallFederation, *paths: Path) -> dict[str, Any]:
    words = [word for path in paths for word in ("--requirements", path)]
    result = run(
        "plan",
        "forecast",
        federation.plan_path,
        "--dir",
        federation.directory("shop-a"),
        *words,
        "--json",
        "-",
    )
    return dict(json.loads(result.stdout))


def test_who_would_refuse_which_field_and_what_all_would_accept(federation: SmallFederation) -> None:
    stricter(federation, "shop-b")
    directory = publish(federation, "shop-a", "shop-b")
    found = forecast(federation, directory)["members"]
    assert list(found["refusals"]) == ["shop-b"]
    assert [reason["field"] for reason in found["refusals"]["shop-b"]] == ["privacy.target_epsilon"]
    assert found["silent"] == ["shop-c"]
    (epsilon,) = [demand for demand in found["meet"] if demand["field"] == "privacy.target_epsilon"]
    assert (epsilon["accepted"], epsilon["by"], epsilon["met"]) == ("at most 1.5", ["shop-b"], False)
    text = run(
        "plan",
        "forecast",
        federation.plan_path,
        "--dir",
        federation.directory("shop-a"),
        "--requirements",
        directory,
    ).output
    assert "shop-b would refuse it:" in text
    assert "Unknown, nothing published here: shop-c." in text
    assert "at most 1.5" in text


def test_without_requirements_only_this_silo_is_asked(federation: SmallFederation) -> None:
    assert forecast(federation)["members"] is None


def test_single_files_and_directories_mix(federation: SmallFederation) -> None:
    directory = publish(federation, "shop-b", "shop-c")
    found = forecast(federation, directory / "shop-b.json", directory / "shop-c.json")["members"]
    assert (found["refusals"], found["silent"]) == ({}, ["shop-a"])


def test_forged_requirements_end_the_forecast(federation: SmallFederation) -> None:
    path = publish(federation, "shop-b") / "shop-b.json"
    path.write_text(path.read_text().replace('"min_silos": 3', '"min_silos": 2'))
    words = ("plan", "forecast", federation.plan_path, "--dir", federation.directory("shop-a"))
    assert "error[signature]" in run(*words, "--requirements", path, code=8).stderr


def test_an_unsigned_policy_is_not_published(federation: SmallFederation) -> None:
    path = federation.directory("shop-b") / "policy.yaml"
    path.write_text(path.read_text().replace("max_epsilon_per_plan: 4.0", "max_epsilon_per_plan: 40.0"))
    run("policy", "publish", "--dir", federation.directory("shop-b"), code=8)
    assert not (federation.directory("shop-b") / "requirements.json").exists()
