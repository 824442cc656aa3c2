"""``archipel demo``: four institutions learn one private recommender, end to end."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from policies.console import Debug, Json, command, emit_json, progress, say


class Format(enum.StrEnum):
    """How a data set is written."""

    MOVIELENS = "movielens"
    CSV = "csv"
    PARQUET = "parquet"
    INTER = "inter"


class Model(enum.StrEnum):
    """Which family learns."""

    POPULARITY = "popularity"
    ITEM_GRAPH = "item-graph"
    AUTOENCODER = "autoencoder"


class Placement(enum.StrEnum):
    """Where the noise of training is drawn."""

    FEDERATION = "federation"
    SILO = "silo"


class Split(enum.StrEnum):
    """Which rows are held out."""

    RANDOM = "random"
    LAST = "last"


@command
def demo(
    *,
    data: Annotated[Path | None, typer.Option(help="A data set; default: the built-in marketplace.")] = None,
    data_format: Annotated[Format | None, typer.Option("--format", help="How it is written.")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Keep rows rated at least this.")] = None,
    silos: Annotated[int, typer.Option(help="Number of institutions.")] = 4,
    epsilon: Annotated[float, typer.Option(help="Budget of each silo, and of the plan.")] = 4.0,
    delta: Annotated[float, typer.Option(help="Likewise.")] = 1e-5,
    colluding_silos: Annotated[
        int | None,
        typer.Option(help="Silos that may help the coordinator; default: 1, or all others with silo noise."),
    ] = None,
    model: Annotated[Model, typer.Option(help="Model family.")] = Model.ITEM_GRAPH,
    rounds: Annotated[int | None, typer.Option(help="autoencoder: secure sums of the training.")] = None,
    noise_placement: Annotated[
        Placement | None, typer.Option(help="autoencoder: shared noise, or each silo's own.")
    ] = None,
    local_steps: Annotated[
        int | None, typer.Option(help="autoencoder: noised steps of a silo between two sums.")
    ] = None,
    sample_rate: Annotated[
        float | None, typer.Option(help="autoencoder: Poisson sampling of people; 1 = all.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which rows are held out.")] = Split.RANDOM,
    seed: Annotated[int, typer.Option(help="Governs data and split, never noise.")] = 0,
    seeds: Annotated[int, typer.Option(help="So many federations, one a seed.")] = 1,
    out: Annotated[Path, typer.Option(help="Where everything goes.", file_okay=False)] = Path("run"),
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run a coordinator and silo agents as separate processes on this machine, train, and compare."""
    from silo.demo.running import run_demo
    from silo.demo.settings import DemoSettings

    settings = DemoSettings(
        data=data,
        format=None if data_format is None else data_format.value,
        min_rating=min_rating,
        num_silos=silos,
        epsilon=epsilon,
        delta=delta,
        colluding_silos=colluding_silos,
        family=model.value,
        split=split.value,
        seed=seed,
        num_seeds=seeds,
        out=out,
        rounds=rounds,
        local_steps=local_steps,
        noise_placement=None if noise_placement is None else noise_placement.value,
        sample_rate=sample_rate,
    ).check()
    said = ""
    with progress("preparing") as advance:

        def report(text: str) -> None:
            """A moving bar for whoever watches, lines for a log."""
            nonlocal said
            advance(description=text)
            if text != said and not sys.stderr.isatty():
                say(f"… {text}")
            said = text

        found, parts = run_demo(settings, report)
    for part in parts:
        say(part)
    emit_json(found, json_file)
