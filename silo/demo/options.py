"""What ``archipel demo`` can be told that belongs to one partition; None is left to the settings."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from policies.option_groups import given_options
from privacy.errors import UsageError


class Model(enum.StrEnum):
    """Which family learns."""

    POPULARITY = "popularity"
    ITEM_GRAPH = "item-graph"
    AUTOENCODER = "autoencoder"
    SEQUENCE = "sequence"
    LANGUAGE = "language"


class Placement(enum.StrEnum):
    """Where the noise of training is drawn."""

    FEDERATION = "federation"
    SILO = "silo"


class Split(enum.StrEnum):
    """Which rows are held out."""

    RANDOM = "random"
    LAST = "last"


@dataclass(frozen=True, kw_only=True)
class HorizontalOptions:
    """Horizontal: institutions with different people."""

    silos: Annotated[int | None, typer.Option(help="Number of institutions; default: 4.")] = None
    colluding_silos: Annotated[
        int | None,
        typer.Option(help="Silos that may help the coordinator; default: 1, or all others with silo noise."),
    ] = None
    model: Annotated[
        Model | None,
        typer.Option(
            help="Model family; default: item-graph. language: every institution has items of its own and "
            "reads their texts; nothing is pooled there, as no item is in two lists."
        ),
    ] = None
    architecture: Annotated[
        Literal["transformer", "masked", "gru", "lstm", "cnn", "bottleneck"] | None,
        typer.Option(
            help="sequence, language: what reads a history in its order; default: transformer. "
            "language also, and by default, bottleneck, which adds it up."
        ),
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option(help="Trained: secure sums; default: autoencoder 60, sequence 20, language 30."),
    ] = None
    noise_placement: Annotated[
        Placement | None, typer.Option(help="Trained: shared noise, or each silo's own.")
    ] = None
    local_steps: Annotated[
        int | None, typer.Option(help="Trained: noised steps of a silo between two sums.")
    ] = None
    sample_rate: Annotated[
        float | None, typer.Option(help="Trained: Poisson sampling of people; 1 = all.")
    ] = None
    split: Annotated[
        Split | None,
        typer.Option(
            help="Which rows are held out; default: random, sequence and language last if rows have times."
        ),
    ] = None
    record: Annotated[
        bool,
        typer.Option("--record", help="Add canaries, record the job for `audit attack`."),
    ] = False
    canaries: Annotated[
        int | None, typer.Option(help="--record: made-up people; default: what the model needs.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class VerticalOptions:
    """Vertical: institutions with the same people and different data."""

    label_items: Annotated[
        int | None,
        typer.Option(help="Training items of each person at the label silo; default: 5."),
    ] = None
    people: Annotated[
        int | None, typer.Option(help="People of the built-in marketplace; default: 4,000.")
    ] = None


def refuse_options_of(other: str, options: HorizontalOptions | VerticalOptions) -> None:
    """Refuse what means nothing in a demo of the other partition.

    Args:
        other: the partition that the options belong to.
        options: as given.

    Raises:
        UsageError: naming all of them.
    """
    given = ", ".join(given_options([options]))
    if given:
        raise UsageError(f"only a {other} demo has {given}", where="--partition", remedy=f"leave out {given}")


def given_of(options: HorizontalOptions | VerticalOptions) -> dict[str, Any]:
    """What was given, by field, in plain types; the rest is left to the settings."""
    return {
        name: value.value if isinstance(value, enum.Enum) else value
        for name, value in vars(options).items()
        if value is not None
    }
