"""The burn-down of an account as numbers for an inline SVG: a staircase over time, its scale, its budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from silo.audit.spending import Account, Point

WIDTH = 720
HEIGHT = 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 30
_MAX_ROWS = 12
_MIN_LABEL_GAP = 92.0


@dataclass(frozen=True)
class Tick:
    """A mark of a scale: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Everything the drawing needs, in its own units.

    Attributes:
        account: the population.
        title: what the drawing is called for who cannot see it.
        description: what it shows, in a sentence.
        spent: path of the area under what was spent.
        counted: path of the area under spent and reserved.
        outline: path of the edge of what was spent.
        budget: path of the budget.
        rows: marks of epsilon.
        columns: marks of time.
        table: the same as figures, at most a dozen moments.
    """

    account: str
    title: str
    description: str
    spent: str
    counted: str
    outline: str
    budget: str
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    table: tuple[Point, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart_of(account: Account) -> Chart:
    """Draw one account; an epsilon that nothing bounds reaches the upper edge."""
    points = account.burn_down
    highest = max(max(point.budget, point.counted or 0.0, point.spent or 0.0) for point in points)
    step = _step(highest)
    top = step * math.ceil(highest / step * 1.02)
    places = _places(points)

    def height(value: float | None) -> float:
        share = 1.0 if value is None else min(1.0, value / top)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    spent = [height(point.spent) for point in points]
    counted = [height(point.counted) for point in points]
    budget = [height(point.budget) for point in points]
    return Chart(
        account=account.account,
        title=f"Epsilon of account {account.account} over time",
        description=_description(account),
        spent=_area(places, spent),
        counted=_area(places, counted),
        outline=_stairs(places, spent),
        budget=_stairs(places, budget),
        rows=tuple(
            Tick(height(number * step), f"{number * step:g}") for number in range(round(top / step) + 1)
        ),
        columns=tuple(_time_marks(points, places)),
        table=_thinned(points),
    )


def _description(account: Account) -> str:
    first, last = account.burn_down[0], account.burn_down[-1]
    return (
        f"From {first.at[:10]} to {last.at[:10]} the account spent {_figure(last.spent)} of its budget of "
        f"epsilon {last.budget:g}; with open reservations it counts {_figure(last.counted)}."
    )


def _figure(value: float | None) -> str:
    return "more than anything bounds" if value is None else f"{value:.3g}"


def _step(highest: float) -> float:
    """A round distance between marks, four to six of which reach the highest value."""
    raw = highest / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    return next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)


def _moments(points: Sequence[Point]) -> list[datetime]:
    return [datetime.fromisoformat(point.at) for point in points]


def _places(points: Sequence[Point]) -> list[float]:
    """Where each moment stands; by its number where time stood still or went back."""
    moments = _moments(points)
    span = (moments[-1] - moments[0]).total_seconds()
    if span > 0 and all(earlier <= later for earlier, later in pairwise(moments)):
        shares = [(moment - moments[0]).total_seconds() / span for moment in moments]
    else:
        shares = [number / max(1, len(points) - 1) for number in range(len(points))]
    return [LEFT + share * (WIDTH - LEFT - RIGHT) for share in shares]


def _stairs(places: Sequence[float], heights: Sequence[float]) -> str:
    parts = [f"M{places[0]:.1f} {heights[0]:.1f}"]
    for place, height in zip(places[1:], heights[1:], strict=True):
        parts.append(f"H{place:.1f}V{height:.1f}")
    parts.append(f"H{WIDTH - RIGHT:.1f}")
    return "".join(parts)


def _area(places: Sequence[float], heights: Sequence[float]) -> str:
    floor = HEIGHT - BOTTOM
    return f"{_stairs(places, heights)}V{floor}H{places[0]:.1f}Z"


def _time_marks(points: Sequence[Point], places: Sequence[float]) -> Iterator[Tick]:
    """First and last moment, and round ones between them where there is room."""
    moments = _moments(points)
    first, last = moments[0], moments[-1]
    yield Tick(LEFT, _label(first, last - first, is_dated=True))
    if places[-1] - LEFT < _MIN_LABEL_GAP or last <= first:
        return
    parts = 4
    for number in range(1, parts + 1):
        moment = first + (last - first) * number / parts
        is_dated = number == parts and moment.date() != first.date()
        yield Tick(
            LEFT + (places[-1] - LEFT) * number / parts, _label(moment, last - first, is_dated=is_dated)
        )


def _label(moment: datetime, span: timedelta, *, is_dated: bool) -> str:
    """A day, or a time of day that bears its date where the scale begins, and where another day ends it."""
    utc = moment.astimezone(UTC)
    if span > timedelta(days=4):
        return f"{utc:%Y-%m-%d}"
    if is_dated:
        return f"{utc:%Y-%m-%d %H:%M}"
    return f"{utc:%m-%d %H:%M}" if span > timedelta(hours=4) else f"{utc:%H:%M:%S}"


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """Moments at which something was spent or the budget changed; some of them, and the newest, if many."""
    changes = [points[0]]
    for before, point in pairwise(points):
        if (point.spent, point.budget) != (before.spent, before.budget):
            changes.append(point)
    if changes[-1] is not points[-1]:
        changes.append(points[-1])
    if len(changes) <= _MAX_ROWS:
        return tuple(changes)
    stride = (len(changes) - 1) / (_MAX_ROWS - 1)
    return tuple(changes[round(number * stride)] for number in range(_MAX_ROWS))
