from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from policies.option_groups import grouped
from policies.plan_options import DataOptions, ModelOptions, PromiseOptions, RosterOptions, TrainingOptions
from policies.recipes import DEFAULT_ROUND_MINUTES, RECIPES


@dataclass(frozen=True, kw_only=True)
class Where:
    place: Annotated[str, typer.Option(help="Which place.")]
    floor: Annotated[int, typer.Option("--level", help="Which level.")] = 3


@dataclass(frozen=True, kw_only=True)
class How:
    quickly: Annotated[bool, typer.Option("--quickly")] = False


app = typer.Typer()
seen: list[tuple[Where, How, str]] = []


@app.command()
@grouped
def go(*, where: Where, how: How, who: Annotated[str, typer.Option()] = "me") -> None:
    """Go somewhere."""
    seen.append((where, how, who))


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_a_command_gets_its_options_in_groups() -> None:
    run("--place", "roof", "--level", "9", "--quickly", "--who", "you")
    assert seen.pop() == (Where(place="roof", floor=9), How(quickly=True), "you")


def test_what_is_left_out_has_the_default_of_its_group() -> None:
    run("--place", "cellar")
    assert seen.pop() == (Where(place="cellar"), How(), "me")


def test_help_shows_options_one_by_one_and_no_group() -> None:
    text = run("--help")
    assert "Go somewhere." in text
    for option in ("--place", "--level", "--quickly", "--who"):
        assert option in text
    assert "--where" not in text
    assert "--how" not in text


def test_a_required_option_stays_required() -> None:
    assert CliRunner().invoke(app, []).exit_code == 2


@pytest.mark.parametrize(
    "group",
    [RosterOptions, PromiseOptions, DataOptions, ModelOptions, TrainingOptions],
    ids=lambda g: g.__name__,
)
def test_every_option_of_a_plan_says_what_it_is(group: type) -> None:
    from inspect import signature

    for option in signature(group, eval_str=True).parameters.values():
        (told,) = option.annotation.__metadata__
        assert told.help


def test_defaults_in_the_help_are_those_of_the_recipes() -> None:
    from inspect import signature

    help_of = {
        name: option.annotation.__metadata__[0].help
        for group in (ModelOptions, TrainingOptions, RosterOptions)
        for name, option in signature(group, eval_str=True).parameters.items()
    }
    linear, autoencoder = RECIPES["linear"], RECIPES["autoencoder"]
    for name in ("rounds", "learning_rate", "second_moment_decay", "decay", "clipping"):
        assert f"{getattr(linear, name)}, autoencoder {getattr(autoencoder, name)}" in help_of[name]
    assert f"autoencoder: {autoencoder.features}." in help_of["features"]
    assert f"default: {autoencoder.hidden}." in help_of["hidden"]
    assert f"default: {autoencoder.input_dropout}." in help_of["input_dropout"]
    assert f"default: {DEFAULT_ROUND_MINUTES:g}." in help_of["round_minutes"]
    assert autoencoder.popularity_share == 0.25
    assert "a quarter of it" in help_of["bias_epsilon"]
    assert {recipe.local_learning_rate for recipe in RECIPES.values()} == {1.0}
    assert help_of["local_learning_rate"].endswith(": 1.")
    assert {recipe.max_grad_norm for recipe in RECIPES.values()} == {1.0}
    assert {recipe.optimizer for recipe in RECIPES.values()} == {"adam"}
