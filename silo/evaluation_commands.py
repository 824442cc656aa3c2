"""``archipel evaluate``: how good a finished job's model is for this silo's own people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say
from silo.recommend_commands import JobOption


@command
def evaluate(
    directory: Dir = HERE,
    job: JobOption = None,
    consents: Annotated[
        Path | None,
        typer.Option(
            help="Of a vertical job: CSV of user_id,silo,token to measure with partners. Spends each token.",
            metavar="FILE",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --consents: make lists with the weights chosen by it.")
    ] = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Measure a model on this silo's own held-out rows. The figures stay here: nothing is released."""
    from privacy.errors import UsageError
    from silo.vertical.serving.desk import find_vertical_job

    vertical = find_vertical_job(directory, job)
    if (keep and consents is None) or (vertical is None and consents is not None):
        raise UsageError(
            "partners are asked with consents, about the model of a vertical job",
            where="--consents, --keep",
            remedy="name a vertical job with --job, and the file of tokens with --consents",
        )
    if vertical is None:
        found = _evaluate_horizontal(directory, job)
    elif consents is None:
        found = _evaluate_own_half(directory, vertical)
    else:
        found = _evaluate_with_partners(directory, vertical, consents, keep)
    say("Measured on private rows without noise: for this organisation only.")
    emit_json(found, json_file)


def _evaluate_horizontal(directory: Path, job: str | None) -> dict[str, Any]:
    from privacy.errors import DataError
    from silo.evaluation import evaluate as measure
    from silo.finished import load_finished
    from silo.local.rating_metrics import measure_ratings
    from silo.local.showing import describe_ratings
    from silo.rows import load_rows

    finished = load_finished(directory, job)
    if finished.plan.holdout.kind == "none":
        raise DataError(
            "this job's plan held no rows out, so there is nothing to measure on",
            where=f"job {finished.job}: holdout.kind",
            remedy="propose a plan with holdout: {kind: random, fraction: 0.2, seed: 7}",
        )
    with progress("ranking"):
        rows = load_rows(directory, finished.plan, finished.dataset)
        metrics = measure(finished.recommender, rows.train, rows.held_out)
        ratings = measure_ratings(directory, finished, rows)
    found = _show_metrics(finished.job, metrics)
    if ratings is not None:
        for part in describe_ratings({f"federated:{finished.job}": ratings["model"]}, ratings):
            say(part)
    return found | {"ratings": ratings}


def _evaluate_own_half(directory: Path, job: str) -> dict[str, Any]:
    from silo.vertical.joint.evaluating import evaluate_alone

    with progress("ranking"):
        metrics = evaluate_alone(directory, job)
    return _show_metrics(job, metrics)


def _evaluate_with_partners(directory: Path, job: str, consents: Path, keep: bool) -> dict[str, Any]:
    import asyncio

    from silo.vertical.joint.evaluating import evaluate_with_partners

    with progress("asking partners") as advance:

        def notice(done: int, people: int) -> None:
            advance.total(people)
            advance(description=f"asking partners: {done:,} of {people:,} people")

        found = asyncio.run(evaluate_with_partners(directory, job, consents, keep=keep, notice=notice))
    _show_metrics(job, {f"ndcg@20, {name.replace('_', ' ')}": it for name, it in found["metrics"].items()})
    say(f"{found['people']:,} people in session: half chose the weights, the figures are of the others")
    say("lists are made with these weights now" if keep else "the weights stay; --keep takes these")
    return found


def _show_metrics(job: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    from rich.table import Table

    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    say(f"job {job}, this silo's own users")
    say(table)
    return {"job": job, "metrics": dict(metrics)}
