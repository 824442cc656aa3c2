"""How forecasts look: tables without lines, and times in words."""

from __future__ import annotations

from rich.table import Table

_MINUTE_SECONDS = 60.0


def framed(title: str, *, show_header: bool) -> Table:
    """Return an empty table under a title."""
    return Table(
        title=f"\n{title}", title_justify="left", title_style="bold", header_style="dim", box=None,
        show_header=show_header, pad_edge=False,
    )  # fmt: skip


def duration(minutes: float) -> str:
    """Return a time for people: ``40 s``, ``12 min`` or ``3.5 h``."""
    if minutes < 1:
        return f"{max(1, round(minutes * _MINUTE_SECONDS))} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
