"""``archipel demo``: institutions learn one private recommender, end to end."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import Debug, Json, command, emit_json, progress, say
from policies.option_groups import grouped
from silo.demo.options import HorizontalOptions, VerticalOptions

if TYPE_CHECKING:
    from silo.demo.running import Report


class Partition(enum.StrEnum):
    """What tells the silos apart."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"


class Format(enum.StrEnum):
    """How a data set is written."""

    MOVIELENS = "movielens"
    CSV = "csv"
    PARQUET = "parquet"
    INTER = "inter"


@command
@grouped
def demo(
    *,
    partition: Annotated[
        Partition,
        typer.Option(help="Different people, or same people and different data."),
    ] = Partition.HORIZONTAL,
    data: Annotated[Path | None, typer.Option(help="A data set; default: the built-in marketplace.")] = None,
    data_format: Annotated[Format | None, typer.Option("--format", help="How it is written.")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Keep rows rated at least this.")] = None,
    epsilon: Annotated[float, typer.Option(help="Budget of each silo, and of the plan.")] = 4.0,
    delta: Annotated[float, typer.Option(help="Likewise.")] = 1e-5,
    seed: Annotated[int, typer.Option(help="Governs data and split, never noise.")] = 0,
    seeds: Annotated[int, typer.Option(help="So many federations, one a seed.")] = 1,
    horizontal: HorizontalOptions,
    vertical: VerticalOptions,
    out: Annotated[Path, typer.Option(help="Where everything goes.", file_okay=False)] = Path("run"),
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Run a coordinator and silo agents as separate processes on this machine, train, and compare."""
    common: dict[str, Any] = {
        "data": data,
        "format": None if data_format is None else data_format.value,
        "min_rating": min_rating,
        "epsilon": epsilon,
        "delta": delta,
        "seed": seed,
        "num_seeds": seeds,
        "out": out,
    }
    from silo.demo.processes import ENDING, handled, interrupt

    said = ""
    with progress("preparing") as advance:

        def report(text: str) -> None:
            """A moving bar for whoever watches, lines for a log."""
            nonlocal said
            advance(description=text)
            if text != said and not sys.stderr.isatty():
                say(f"… {text}")
            said = text

        run = _run_vertical if partition is Partition.VERTICAL else _run_horizontal
        with handled(interrupt, *ENDING):
            found, parts = run(common, horizontal, vertical, report)
    for part in parts:
        say(part)
    emit_json(found, json_file)


def _run_horizontal(
    common: dict[str, Any], options: HorizontalOptions, others: VerticalOptions, report: Report
) -> tuple[dict[str, Any], list[object]]:
    from silo.demo.options import given_of, refuse_options_of
    from silo.demo.recording import run_recording
    from silo.demo.running import run_demo
    from silo.demo.settings import DemoSettings

    refuse_options_of("vertical", others)
    given = given_of(options)
    renamed = {"silos": "num_silos", "model": "family"}
    settings = DemoSettings(**common, **{renamed.get(name, name): given[name] for name in given}).check()
    if settings.is_language:
        from silo.demo.language.demo import LanguageDemo

        return run_demo(LanguageDemo(settings), report)
    from silo.demo.horizontal import HorizontalDemo

    return run_recording(settings, report) if settings.record else run_demo(HorizontalDemo(settings), report)


def _run_vertical(
    common: dict[str, Any], others: HorizontalOptions, options: VerticalOptions, report: Report
) -> tuple[dict[str, Any], list[object]]:
    from silo.demo.options import given_of, refuse_options_of
    from silo.demo.running import run_demo
    from silo.demo.vertical.demo import VerticalDemo
    from silo.demo.vertical.settings import VerticalSettings

    refuse_options_of("horizontal", others)
    settings = VerticalSettings(**common, **given_of(options)).check()
    return run_demo(VerticalDemo(settings), report)
