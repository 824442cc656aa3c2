"""A forecast of a vertical plan as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from policies.plans.summary import byte_size
from silo.forecasts.tables import duration, framed


def describe_vertical(found: Mapping[str, Any]) -> list[object]:
    """Return what is to be printed, in order, before the verdict.

    Args:
        found: what :func:`silo.forecasts.forecast.forecast_plan` returned for a vertical plan.
    """
    return [*found["description"], _traffic(found), *_time(found), *_answers(found)]


def _traffic(found: Mapping[str, Any]) -> Table:
    table = framed("What it takes each silo", show_header=True)
    table.add_column("silo", no_wrap=True)
    for name in ("epsilon", "sends", "fetches"):
        table.add_column(name, justify="right", no_wrap=True)
    for silo, traffic in found["traffic"].items():
        table.add_row(
            silo,
            f"{found['epsilon_by_silo'][silo]:.4g}",
            byte_size(traffic["upload_bytes"]),
            byte_size(traffic["download_bytes"]),
        )
    return table


def _time(found: Mapping[str, Any]) -> Iterator[str]:
    taken = found["time"]
    if taken is None:
        return
    if taken["minutes"] is None:
        yield f"time not measured: {taken['why']}"
        return
    slots = f"{taken['spine_slots']:,} slots"
    if "encoder_minutes" in taken:
        rest = f"at most {duration(taken['encoder_minutes'])} to train an encoder and release {slots}"
        after = "the label silo's own network comes after it, and the wire"
    else:
        rest, after = f"{duration(taken['moments_minutes'])} for {slots}", "the network adds its own"
    yield (
        f"about {duration(taken['minutes'])} on machines like this one, tried with made-up rows: "
        f"{duration(taken['alignment_minutes'])} to find who is in common, {rest}; {after}"
    )


def _answers(found: Mapping[str, Any]) -> Iterator[str]:
    other = found["for_epsilon"]
    if other is not None:
        yield f"epsilon {other['epsilon']:g} takes noise multiplier {other['noise_multiplier']:.4f}"
