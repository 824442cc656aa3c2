"""What the benchmarks share: where a figure was made, tables for people, JSON for machines."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
MEGA = 1e6


def add_json_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``--json FILE``, by default the committed result of this benchmark."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        default=str(RESULTS / f"{name}.json"),
        help="where the figures go; - is standard output, the table then goes to standard error",
    )


def header(name: str, command: str) -> dict[str, Any]:
    """What a figure is worthless without: when, how and on what it was made."""
    return {
        "benchmark": name,
        "command": command,
        "made": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "archipel": version("archipel"),
    }


def write(result: dict[str, Any], target: str) -> None:
    """Write figures to a file, whole or not at all, or to standard output for ``-``."""
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


class Page(Protocol):
    """Where a benchmark writes what people read."""

    def say(self, text: str) -> None:
        """Write a line."""

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table under its title."""


class Terminal:
    """Prints; on standard error while a machine has standard output."""

    def __init__(self, target: str) -> None:
        self._console = Console(stderr=target == "-", highlight=False)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table under its title; all columns but the first stand right."""
        table = Table()
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(str, row))
        self.say(title)
        self._console.print(table)


class Markdown:
    """Collects the same as Markdown, in ``text``."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """Everything written so far."""
        return "\n\n".join(self._parts) + "\n"

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table under its title in bold; all columns but the first stand right."""
        lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
        self._parts.append(f"**{title[:1].upper()}{title[1:]}**")
        self._parts.append("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))
