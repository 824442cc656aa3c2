from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Annotated, get_args

import pytest
import typer
from typer.testing import CliRunner

from policies.option_groups import SectionedCommand, given_options, grouped
from policies.plans import options as plan_options
from policies.plans.asking import FAMILIES
from policies.plans.drafting import Draft
from policies.plans.models import FamilyName
from policies.plans.options import (
    HORIZONTAL,
    DataOptions,
    ModelOptions,
    PromiseOptions,
    SumOptions,
    TrainingOptions,
)
from policies.plans.recipes import (
    DEFAULT_LANGUAGE_ARCHITECTURE,
    DEFAULT_ROUND_MINUTES,
    LANGUAGE_NETWORK,
    MASKED_SHARE,
    RECIPES,
)
from policies.plans.vertical.drafting import VerticalDraft
from policies.plans.vertical.encoder_drafting import EncoderDraft
from policies.plans.vertical.options import VERTICAL, EncoderOptions


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where to go.

    By foot.
    """

    place: Annotated[str, typer.Option(help="Which place.")]
    floor: Annotated[int, typer.Option("--level", help="Which level.")] = 3


@dataclass(frozen=True, kw_only=True)
class How:
    """How to go there."""

    quickly: Annotated[bool, typer.Option("--quickly")] = False


app = typer.Typer(rich_markup_mode=None)
seen: list[tuple[Where, How, str]] = []


@app.command(cls=SectionedCommand)
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


def test_help_has_a_section_for_each_group_and_what_is_in_none_comes_first() -> None:
    text = run("--help")
    shown = ("Options:", "--who", "Where to go:", "--level", "How to go there:", "--quickly")
    places = [text.index(part) for part in shown]
    assert places == sorted(places)
    assert "By foot" not in text


def test_what_is_given_is_told_as_it_is_written() -> None:
    assert list(given_options((Where(place="roof"), How()))) == ["--place"]
    assert list(given_options((Where(place="roof", floor=0), How(quickly=True)))) == [
        "--place",
        "--level",
        "--quickly",
    ]


def test_a_required_option_stays_required() -> None:
    assert CliRunner().invoke(app, []).exit_code == 2


@pytest.mark.parametrize(
    "group",
    [PromiseOptions, DataOptions, *HORIZONTAL, *VERTICAL],
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
        for group in (ModelOptions, TrainingOptions, SumOptions)
        for name, option in signature(group, eval_str=True).parameters.items()
    }
    linear, autoencoder, sequence = (RECIPES[name] for name in ("linear", "autoencoder", "sequence"))
    for name in ("rounds", "learning_rate", "second_moment_decay", "decay", "clipping"):
        usual, *others = (getattr(recipe, name) for recipe in (linear, autoencoder, sequence))
        assert "{}, autoencoder {}, sequence {}".format(usual, *others) in help_of[name]
    assert f"the other two: {autoencoder.features}." in help_of["features"]
    assert f"default: {autoencoder.hidden}." in help_of["hidden"]
    assert f"default: {autoencoder.input_dropout}, masked {MASKED_SHARE}." in help_of["input_dropout"]
    assert f"default: {DEFAULT_ROUND_MINUTES:g}." in help_of["round_minutes"]
    assert autoencoder.popularity_share == sequence.popularity_share == 0.25
    assert (autoencoder.features, autoencoder.hidden) == (sequence.features, sequence.hidden)
    assert f"default: {sequence.places}." in help_of["places"]
    assert f"default: {sequence.layers}." in help_of["layers"]
    assert f"Default: {DEFAULT_LANGUAGE_ARCHITECTURE}." in help_of["architecture"]
    network = RECIPES[LANGUAGE_NETWORK]
    assert (network.layers, network.places) == (sequence.layers, sequence.places)
    assert "a quarter of it" in help_of["bias_epsilon"]
    assert {recipe.local_learning_rate for recipe in RECIPES.values()} == {1.0}
    assert help_of["local_learning_rate"].endswith(": 1.")
    assert {recipe.max_grad_norm for recipe in RECIPES.values()} == {1.0}
    assert {recipe.optimizer for recipe in RECIPES.values()} == {"adam"}


@pytest.mark.parametrize("group", [*HORIZONTAL, *VERTICAL], ids=lambda g: g.__name__)
def test_an_option_of_one_partition_is_left_to_the_draft(group: type) -> None:
    """Else a value that nobody gave would be refused in the other partition, or stand against the draft's."""
    assert {field.default for field in fields(group)} <= {None, False}


def test_every_option_is_a_field_of_the_draft_of_its_partition() -> None:
    read_otherwise = {"orders", "no_bias", "feature", "capacity", "release_share", "encoder_steps"}
    common = {field.name for group in (PromiseOptions, DataOptions) for field in fields(group)}
    for groups, draft in ((HORIZONTAL, Draft), (VERTICAL, VerticalDraft)):
        asked = common | {field.name for group in groups for field in fields(group)}
        assert asked - read_otherwise <= {field.name for field in fields(draft)}


def test_the_help_of_vertical_plans_tells_the_defaults_of_the_draft() -> None:
    from inspect import signature

    defaults = {field.name: field.default for field in fields(VerticalDraft) if field.default is not MISSING}
    for group in VERTICAL:
        for name, option in signature(group, eval_str=True).parameters.items():
            if (default := defaults.get(name)) is not None:
                shown = f"{default:g}" if isinstance(default, float) else default
                assert option.annotation.__metadata__[0].help.endswith(f"default: {shown}."), name


def test_the_help_of_encoders_tells_the_defaults_of_their_draft() -> None:
    from inspect import signature

    options = signature(EncoderOptions, eval_str=True).parameters
    for name, default in (("release_share", "0.8"), ("encoder_steps", "40")):
        assert options[name].annotation.__metadata__[0].help.endswith(f"default: {default}.")
    assert (EncoderDraft.release_share, EncoderDraft.steps, EncoderDraft.dimensions) == (0.8, 40, 8)


def test_each_family_is_made_by_one_partition() -> None:
    assert set(get_args(plan_options.FamilyName)) == set(get_args(FamilyName))
    made = [family for families in FAMILIES.values() for family in families]
    assert sorted(made) == sorted(get_args(FamilyName))
