"""A search as numbers for inline drawings: trials in order, and each number against what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from silo.tuning.search import Found, Tried
from silo.tuning.space import Dimension

WIDTH, HEIGHT = 720, 250
SMALL_WIDTH, SMALL_HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 30


@dataclass(frozen=True)
class Tick:
    """A mark of a scale: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One trial: where it stands, what it says when pointed at, and whether it is the plan as it is."""

    x: float
    y: float
    label: str
    is_given: bool


@dataclass(frozen=True)
class Drawing:
    """Everything one drawing needs, in its own units.

    Attributes:
        title: what it is called for who cannot see it.
        dots: the trials.
        best: path of the best so far; empty where the horizontal scale is no time.
        rows: marks of the metric.
        columns: marks of the other scale.
    """

    title: str
    dots: tuple[Dot, ...]
    best: str
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP

    @property
    def right(self) -> int:
        """Right end of the scales."""
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        """Where the horizontal scale stands."""
        return self.height - BOTTOM


def history(found: Found) -> Drawing:
    """The trials in order, and the best so far."""
    trials = _measured(found)
    place = _scale(0.0, float(max(1, found.trials[-1].number)), LEFT, WIDTH - RIGHT)
    height, rows = _heights(found, HEIGHT)
    best = list(accumulate((_value(tried) for tried in trials), max))
    path = "".join(
        f"{'M' if not number else 'H'}{place(tried.number):.1f}"
        + (f" {height(value):.1f}" if not number else f"V{height(value):.1f}")
        for number, (tried, value) in enumerate(zip(trials, best, strict=True))
    )
    last = found.trials[-1].number
    columns = tuple(Tick(place(number), str(number)) for number in sorted({0, last // 2, last}))
    dots = tuple(_dot(tried, place(tried.number), height(_value(tried)), found.metric) for tried in trials)
    return Drawing(f"{found.metric} of each trial, and the best so far", dots, path, rows, columns)


def against(found: Found, dimension: Dimension) -> Drawing:
    """One number of the plan, on a logarithmic scale where it was searched so, and what came of it."""
    along = math.log if dimension.is_log else float
    low, high = along(dimension.low), along(dimension.high)
    place = _scale(low, high, LEFT, SMALL_WIDTH - RIGHT)
    height, rows = _heights(found, SMALL_HEIGHT)
    dots = tuple(
        _dot(tried, place(along(tried.values[dimension.path])), height(_value(tried)), found.metric)
        for tried in _measured(found)
    )
    ends = (dimension.low, dimension.high)
    columns = tuple(Tick(place(along(end)), f"{end:.4g}") for end in ends)
    return Drawing(dimension.path, dots, "", rows[:: len(rows) - 1], columns, SMALL_WIDTH, SMALL_HEIGHT)


def _measured(found: Found) -> Sequence[Tried]:
    return [tried for tried in found.trials if tried.value is not None]


def _value(tried: Tried) -> float:
    return tried.value or 0.0


def _dot(tried: Tried, x: float, y: float, metric: str) -> Dot:
    said = ", ".join(f"{name} {value:.4g}" for name, value in tried.values.items())
    return Dot(x, y, f"trial {tried.number}: {metric} {_value(tried):.4f}; {said}", tried.number == 0)


def _heights(found: Found, height: int) -> tuple[Callable[[float], float], tuple[Tick, ...]]:
    values = [_value(tried) for tried in _measured(found)]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.01
    scale = _scale(low - margin, high + margin, height - BOTTOM, TOP)
    return scale, tuple(_ticks(low - margin, high + margin, scale))


def _ticks(low: float, high: float, scale: Callable[[float], float]) -> Iterator[Tick]:
    for number in range(5):
        value = low + (high - low) * number / 4
        yield Tick(scale(value), f"{value:.3f}")


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low

    def place(value: float) -> float:
        return start + (end - start) * ((value - low) / span if span else 0.5)

    return place
