"""What ``archipel compare`` prints for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from silo.local.rating_metrics import RATING_METRICS

SHOWN: Final = ("hit_rate@10", "ndcg@10", "ndcg@20")
"""What fits eighty columns; ``--json`` has all."""
_BAR_CELLS: Final = 12
_JOB_CHARACTERS: Final = 8


def describe(found: dict[str, Any]) -> Iterator[object]:
    """A table of all models with the blend last, a bar each, and what was left out.

    Args:
        found: what ``compare`` writes as JSON.
    """
    chosen_by = found["chosen_by"]
    rows = [*found["models"], found["blend"] | {"weight": None}]
    largest = max(1e-12, *(row["metrics"][chosen_by] for row in rows))
    table = _table("model", "weight", *SHOWN, "")
    for row in rows:
        weight = "" if row["weight"] is None else f"{row['weight']:.2f}"
        figures = [f"{row['metrics'][name]:.4f}" for name in SHOWN]
        figures[SHOWN.index(chosen_by)] += f" ±{row['standard_error']:.4f}"
        bar = "█" * round(_BAR_CELLS * row["metrics"][chosen_by] / largest)
        table.add_row(_short(row["name"]), weight, *figures, bar)
    yield table
    yield (
        f"weights chosen by {chosen_by} on {found['validation_users']:,} users; figures of "
        f"{found['test_users']:,} others; bars: {chosen_by}; ±: one standard error"
    )
    yield "local: learnt from this silo's rows alone, and private to it"
    if found["ratings"] is not None:
        yield from describe_ratings({row["name"]: row["ratings"] for row in rows}, found["ratings"])
    yield "Measured on private rows without noise: for this organisation only."
    for job, why in found["left_out"].items():
        yield f"not compared: job {job}: {why}"
    for job in found["older_than_rows"]:
        yield f"job {job} ended before the rows were last written: it may have learnt what is held out now"
    if found["kept"] is None:
        yield "Lists are made as before; --keep makes them with this blend."
    else:
        yield "Lists are made with this blend now."


def describe_ratings(
    models: Mapping[str, Mapping[str, float | None]], facts: Mapping[str, Any]
) -> Iterator[object]:
    """A table of AUC, accuracy and RMSE, and what they are.

    Args:
        models: ``RATING_METRICS`` of each ranking model.
        facts: what they are of, with ``predictors`` where any were measured.
    """
    table = _table("model", *RATING_METRICS)
    for name, figures in {**facts.get("predictors", {}), **models}.items():
        cells = ["–" if figures[key] is None else f"{figures[key]:.4f}" for key in RATING_METRICS]
        table.add_row(_short(name), *cells)
    yield table
    yield (
        f"liked: rated {facts['liked_from']:g} or better; {facts['test_ratings']:,} held-out ratings; always "
        f"the more frequent answer: accuracy {facts['majority']:.4f}"
    )
    yield "auc: within a person; rmse of a ranking model: of the baseline plus its standardised score"


def describe_network(network: dict[str, Any] | None) -> Iterator[str]:
    """How a network over ordered histories was trained, and what its order is worth.

    Args:
        network: of the card of local models.
    """
    if network is None:
        return
    ((metric, quality),) = network["validation"].items()
    yield (
        f"{network['architecture']}: {network['epochs']} epochs, then {metric} of validation people's newest "
        f"training item was no longer better than {quality:.4f}"
    )
    if network["rows_without_time"]:
        yield f"{network['rows_without_time']:,} rows without a time count as the oldest"
    if network["rows_with_equal_times"]:
        tied = network["rows_with_equal_times"]
        yield f"{tied:,} rows have the time of another of their person: ordered by a hash"


def _short(name: str) -> str:
    kind, _, job = name.partition(":")
    return f"{kind}:{job[:_JOB_CHARACTERS]}" if kind == "federated" else name


def _table(first: str, *others: str) -> Table:
    """Without frames, so that names of models and figures stay whole."""
    table = Table(first, *others, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in table.columns:
        column.no_wrap = True
    return table
