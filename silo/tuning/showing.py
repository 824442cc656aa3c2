"""What ``archipel tune`` says for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from policies.plans.plan import Plan
from silo.audit.render import pages
from silo.tuning.chart import against, history
from silo.tuning.search import CLEAR, GIVEN, REPEATS, Found, Tried, total_seconds


def estimate(first: Tried, trials: int) -> str:
    """What the search takes, said after its first trial."""
    seconds = total_seconds(first, trials)
    return (
        f"One trial takes {first.seconds:.1f} s here; {trials} trials, and plan and winner {REPEATS} times "
        f"again: about {_time(seconds)}. No row of a silo is read and no epsilon is spent."
    )


def describe(found: dict[str, Any]) -> Iterator[object]:
    """The settings that were learnt again, and what to think of them.

    Args:
        found: what the command writes as JSON.
    """
    table = Table("", *(f"{found['metric']}, {whose}" for whose in ("validation", "test")))
    for name, again in found["repeated"].items():
        figures = [f"{again[whose]:.4f} ±{again[f'{whose}_std']:.4f}" for whose in ("validation", "test")]
        table.add_row(name, *figures)
    table.add_row("popularity, no noise", "", f"{found['popularity_test']:.4f}")
    yield table
    failed = [tried for tried in found["trials"] if tried["problem"] is not None]
    if failed:
        yield f"{len(failed)} trials could not be; the first: {failed[0]['problem']}"
    yield verdict(found)
    for path, value in found["repeated"][found["chosen"]]["values"].items():
        before = found["repeated"][GIVEN]["values"][path]
        yield f"  {path}: {before:.4g}" + ("" if value == before else f" → {value:.4g}")
    data = found["data"]
    yield (
        f"Figures of {data['validation_users']:,} and {data['test_users']:,} people of {data['name']}, "
        f"±: standard deviation over {REPEATS} times of fresh noise. The silos' own people may differ."
    )


def verdict(found: dict[str, Any]) -> str:
    """In a sentence or two, whether the winner is worth a proposal."""
    lead = found["lead"]
    if lead is None:
        return "Nothing that was tried beats the plan as it is: it is proposed unchanged."
    how = (
        f"Learnt again, on people who had no part in the search, the winner differs from the plan by "
        f"{lead['value']:+.4f} (standard error {lead['standard_error']:.4f})"
    )
    if found["chosen"] == GIVEN:
        return f"{how}: not {CLEAR:g} standard errors better, so the plan stays as it is."
    return f"{how}: at least {CLEAR:g} standard errors better, so it is proposed."


def page(found: dict[str, Any], drawn: Found, plan: Plan) -> str:
    """The search as one HTML file: no script, nothing fetched."""
    return (
        pages("silo.tuning")
        .get_template("tuning.html")
        .render(
            found=found,
            family=plan.model.family,
            course=history(drawn),
            panels=[against(drawn, dimension) for dimension in drawn.dimensions],
            repeats=REPEATS,
            verdict=verdict(found),
        )
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
