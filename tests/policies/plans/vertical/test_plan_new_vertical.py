"""``archipel plan new --partition vertical``: what it writes, and what it refuses at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from policies.files import load_yaml
from policies.plans.commands import plan_app
from policies.plans.models import CrossMomentsModel, PrivateEncoderModel
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from privacy.errors import ExitCode

ITEMS = "".join(
    f'{{"attributes":[],"item_id":"i{number:03}","text":"","title":""}}\n' for number in range(40)
)
ASKED = {
    "--partition": ["vertical"],
    "--label": ["shop"],
    "--feature": ["content", "social:user_row"],
    "--capacity": ["shop=6000", "content=5000", "social=4000"],
    "--min-intersection": ["500"],
    "--epsilon": ["4"],
    "--delta": ["1e-6"],
}


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text(ITEMS)
    return path


def new(catalogue: Path, /, *extra: str, **changes: list[str] | str | None) -> Result:
    """Run it; ``changes`` replaces options, None leaves them out."""
    options: dict[str, list[str]] = {**ASKED, "--catalogue": [str(catalogue)]}
    for name, value in changes.items():
        option = "--" + name.replace("_", "-")
        options.pop(option, None)
        if value is not None:
            options[option] = [value] if isinstance(value, str) else value
    words = [word for option, values in options.items() for value in values for word in (option, value)]
    return CliRunner().invoke(plan_app, ["new", *words, "--dir", str(catalogue.parent), *extra])


def written(catalogue: Path, /, *extra: str, **changes: list[str] | str | None) -> Plan:
    result = new(catalogue, *extra, **changes)
    assert result.exit_code == 0, result.output
    return load_yaml(catalogue.parent / "plan.yaml", Plan)


def test_it_writes_a_commented_plan_that_keeps_the_promise(catalogue: Path) -> None:
    plan = written(catalogue)
    assert plan.silos == ("shop", "content", "social")
    assert plan.roles is not None
    assert {silo: terms.unit for silo, terms in plan.roles.features.items()} == {
        "content": "user",
        "social": "user_row",
    }
    assert plan.alignment is not None
    assert plan.alignment.capacities == {"shop": 6000, "content": 5000, "social": 4000}
    assert (plan.alignment.epsilon, plan.alignment.reveal, plan.alignment.min_intersection) == (
        0.1,
        "none",
        500,
    )
    assert 3.9 < plan_epsilon(plan) <= 4.0
    assert "same users, different data" in (catalogue.parent / "plan.yaml").read_text()
    assert (catalogue.parent / "plan.schema.json").is_file()


def test_everything_can_be_said(catalogue: Path) -> None:
    plan = written(
        catalogue,
        feature=["content:user", "social:user_node:20"],
        alignment_epsilon="0.2",
        reveal="both",
        identifiers="email",
        label_items="30",
        label_norm="2.5",
        dimensions="8",
        basis="public",
        basis_share="0.4",
        orders="2,4,8",
        purpose="research",
        holdout="random",
        holdout_fraction="0.5",
        holdout_seed="9",
        max_interactions_per_user="50",
        family="cross-moments",
    )
    assert plan.roles is not None
    assert plan.roles.features["social"].max_degree == 20
    assert plan.alignment is not None
    assert (plan.alignment.epsilon, plan.alignment.reveal, plan.alignment.identifiers) == (
        0.2,
        "both",
        "email",
    )
    assert plan.model == CrossMomentsModel(
        family="cross-moments", label_items=30, label_norm=2.5, dimensions=8, basis="public", basis_share=0.4
    )
    assert plan.privacy.orders == (2.0, 4.0, 8.0)
    assert (plan.purpose, plan.max_interactions_per_user) == ("research", 50)
    assert (plan.holdout.kind, plan.holdout.fraction, plan.holdout.seed) == ("random", 0.5, 9)


def test_what_it_says_goes_to_machines_too_and_show_says_the_same(catalogue: Path) -> None:
    plan_file = catalogue.parent / "plan.yaml"
    result = new(catalogue, "--json", "-")
    found = json.loads(result.stdout)
    assert found["label"] == "shop"
    assert found["epsilon_by_silo"]["content"] <= 4.0
    assert 0.1 <= found["epsilon_by_silo"]["shop"] < 0.5
    shown = CliRunner().invoke(plan_app, ["show", str(plan_file), "--json", "-"])
    assert json.loads(shown.stdout) == found
    assert shown.stderr == result.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"silos": "shop,content"}, "only horizontal plans have --silos"),
        ({"rounds": "9", "max_grad_norm": "1"}, "--rounds and --max-grad-norm"),
        ({"sample_rate": "1"}, "--sample-rate"),
        ({"bias_epsilon": "0"}, "--bias-epsilon"),
        ({"min_silos": "3"}, "leave out what it has"),
        (
            {"metrics_epsilon": "0.1"},
            "a vertical plan needs --label, --feature, --capacity and --min-intersection",
        ),
        ({"label": None}, "a vertical plan needs --label"),
        ({"feature": None, "capacity": None}, "needs --feature and --capacity"),
        ({"min_intersection": None}, "add --min-intersection"),
        ({"family": "item-graph"}, "a vertical plan makes no item-graph"),
        ({"partition": "horizontal"}, "only vertical plans have --label, --feature"),
        ({"feature": ["content:friends"]}, "write SILO, SILO:user_row or SILO:user_node:DEGREE"),
        ({"feature": ["content:user_node"]}, "names no feature silo"),
        ({"feature": ["content:user_node:0"]}, "names no feature silo"),
        ({"feature": ["content:user_row:3"]}, "names no feature silo"),
        ({"feature": ["content", "content:user_row"]}, "content stands here twice"),
        ({"feature": ["content", "shop"]}, "leave it out of --feature"),
        ({"capacity": ["6000"]}, "write SILO=PEOPLE"),
        ({"capacity": ["shop=many"]}, "write SILO=PEOPLE"),
        ({"capacity": ["shop=1", "shop=2"]}, "shop stands here twice"),
        ({"orders": ""}, "no Rényi orders"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(
    catalogue: Path, changes: dict[str, list[str] | str | None], words: str
) -> None:
    result = new(catalogue, **changes)
    assert result.exit_code == ExitCode.USAGE
    assert words in result.output
    assert "how to mend" in result.output
    assert not (catalogue.parent / "plan.yaml").exists()


def test_misplaced_options_are_refused_before_the_catalogue_is_looked_for(catalogue: Path) -> None:
    catalogue.unlink()
    assert "only horizontal plans have --rank" in new(catalogue, rank="8").output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"capacity": ["shop=6000", "content=5000"]}, "alignment.capacities: not exactly the silos"),
        ({"min_intersection": "4001"}, "never has so many in common"),
        (
            {"feature": ["content", "social:user_node:300"], "reveal": "both", "alignment_epsilon": "0.5"},
            "social.max_degree: the noise hides 601 rows",
        ),
        ({"alignment_epsilon": "4"}, "alignment.epsilon"),
        ({"label_items": "41"}, "the catalogue has 40 items"),
        ({"feature": ["Content!"]}, "roles.features"),
    ],
)
def test_values_that_make_no_plan_are_one_clear_message(
    catalogue: Path, changes: dict[str, list[str] | str | None], words: str
) -> None:
    result = new(catalogue, **changes)
    assert result.exit_code == ExitCode.DATA
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--silos", "--max-users-per-silo"])
def test_a_horizontal_plan_says_what_it_needs(catalogue: Path, option: str) -> None:
    words = {"--silos": "a,b,c", "--max-users-per-silo": "100", "--epsilon": "4", "--delta": "1e-6"}
    del words[option]
    result = CliRunner().invoke(
        plan_app, ["new", "--catalogue", str(catalogue), *(word for pair in words.items() for word in pair)]
    )
    assert result.exit_code == ExitCode.USAGE
    assert f"a horizontal plan needs {option}" in result.output


def test_it_writes_a_plan_with_a_private_encoder(catalogue: Path) -> None:
    plan = written(catalogue, "--release-share", "0.7", "--encoder-steps", "9", family="private-encoder")
    assert isinstance(plan.model, PrivateEncoderModel)
    assert (plan.model.dimensions, plan.training.rounds) == (8, 9)
    assert plan.model.release_epsilon == pytest.approx(2.8)
    assert 3.96 < plan_epsilon(plan) <= 4.0


@pytest.mark.parametrize(
    ("family", "option"),
    [
        ("private-encoder", ("--basis-share", "0.5")),
        ("private-encoder", ("--label-norm", "2")),
        ("cross-moments", ("--release-share", "0.5")),
        (None, ("--encoder-steps", "9")),
    ],
)
def test_options_of_the_other_vertical_family_are_refused(
    catalogue: Path, family: str | None, option: tuple[str, str]
) -> None:
    result = new(catalogue, *option, family=family)
    assert result.exit_code == ExitCode.USAGE
    assert option[0] in result.output
    assert not (catalogue.parent / "plan.yaml").exists()
