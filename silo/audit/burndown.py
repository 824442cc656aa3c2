"""An account's spending over time, drawn with characters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from rich.text import Text

from silo.audit.spending import Account, Point

WIDTH = 60
HEIGHT = 8
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LABEL = 9


def columns(points: Sequence[Point], width: int = WIDTH) -> list[Point]:
    """The state of an account at ``width`` moments evenly spread from its first to its last entry."""
    moments = [datetime.fromisoformat(point.at) for point in points]
    ordered = all(earlier <= later for earlier, later in pairwise(moments))
    span = (moments[-1] - moments[0]).total_seconds() if ordered else 0.0
    found, position = [], 0
    for column in range(width):
        if span == 0:
            position = min(len(points) - 1, column * len(points) // width)
        else:
            reached = span * (column + 1) / width
            while position + 1 < len(points) and (
                (moments[position + 1] - moments[0]).total_seconds() <= reached
            ):
                position += 1
        found.append(points[position])
    return found


def burn_down(account: Account, *, width: int = WIDTH, height: int = HEIGHT) -> Text:
    """Spent (full), reserved (shaded) and the budget (dashed) over time.

    Args:
        account: with at least one moment.
        width: columns of the plot, without the scale.
        height: its rows.

    Returns:
        ``height`` rows, the axis and the first and last date, with their times where it is one day.
    """
    moments = columns(account.burn_down, width)
    highest = max(_top(point) for point in account.burn_down)
    text = Text()
    for row in range(height, 0, -1):
        text.append(f"{highest * row / height:>{_LABEL - 2}.3g} ┤", style="dim")
        for point in moments:
            text.append(*_cell(point, row, highest / height))
        text.append("\n")
    text.append(f"{'0':>{_LABEL - 2}} ┼{'─' * width}\n", style="dim")
    first, last = account.burn_down[0].at, account.burn_down[-1].at
    first, last = (first[:10], last[:10]) if first[:10] != last[:10] else (_second(first), _second(last))
    text.append(f"{' ' * _LABEL}{first}{last:>{max(0, width - len(first))}}", style="dim")
    return text


def _second(at: str) -> str:
    return f"{at[:10]} {at[11:19]}"


def _top(point: Point) -> float:
    return max(point.budget, point.counted or 0.0) * 1.0001


def _cell(point: Point, row: int, step: float) -> tuple[str, str]:
    """The character of one column in one row; what nothing bounds fills its column."""
    spent = point.spent if point.spent is not None else row * step
    counted = point.counted if point.counted is not None else row * step
    below = (row - 1) * step
    if spent >= row * step:
        return "█", "cyan"
    if spent > below:
        return _EIGHTHS[max(1, round((spent - below) / step * 8))], "cyan"
    if counted > below:
        return "░", "yellow"
    if below < point.budget <= row * step:
        return "╌", "green"
    return " ", ""
