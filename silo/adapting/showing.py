"""What ``archipel adapt`` prints for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

_LOCAL = {
    "absent": "Local parts: none here (`archipel fit --local` makes them).",
    "current": "Local parts know all rows.",
    "behind": "Local parts have fallen behind their rows: --refresh learns them anew.",
    "refreshed": "Local parts were learnt anew from all rows.",
}


def describe(found: dict[str, Any]) -> Iterator[object]:
    """Counts, quality then and now, what following is worth, and the verdict.

    Args:
        found: what the command writes as JSON.
    """
    recent, quality = found["recent"], found["quality"]
    yield f"job {found['job'][:12]}, {found['family']}: rows since {found['since'][:16]} are new to it"
    yield (
        f"{recent['rows']:,} rows since then, {recent['new_pairs']:,} of them first meetings, of "
        f"{recent['people']:,} people ({_percent(recent['new_people_share'])} new); "
        f"{_percent(recent['outside_share'])} outside the catalogue, "
        f"{_percent(recent['new_here_share'])} of items nobody here had, "
        f"{_percent(recent['unknown_to_model_share'])} of items that the model counts at nothing"
    )
    yield _shift(found["shift"])
    table = Table(f"{quality['metric']} of each person's last row", "before the training", "since")
    for name, key in (("federated model", ""), ("its popularity alone", "popularity_")):
        table.add_row(name, _figure(quality[f"{key}then"]), _figure(quality[f"{key}now"]))
    yield table
    if quality["then"] is None:
        yield "Nothing before the training to compare with: the plan held out no last rows."
    following = found["following"]
    if following["gain"] is not None:
        yield (
            f"Lists follow new rows at once: with histories as they were at the training "
            f"{_figure(following['frozen'])}, as they are {_figure(following['followed'])}; gain "
            f"{_figure(following['gain'])}."
        )
    yield _LOCAL[found["local"]["state"]] + (" The blend was chosen anew." if found["local"]["blend"] else "")
    yield "No epsilon was spent. Measured on private rows without noise: for this organisation only."
    for reason in found["reasons"]:
        yield f"aged: {reason}"
    if not found["reasons"]:
        yield "Nothing says that the federated part has aged."


def _shift(shift: dict[str, Any]) -> str:
    if shift["now"] is None:
        return "Shift of popularity: too few rows to say."
    return (
        f"Shift of popularity in {shift['days']:.0f} days: {shift['now']:.3f} bits; in as many days before "
        f"the training it was {shift['then']:.3f} ({shift['rows']:,} rows each)."
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _figure(mean: dict[str, Any] | None) -> str:
    return "–" if mean is None else f"{mean['value']:.4f} ±{mean['standard_error']:.4f} ({mean['people']:,})"
