"""Draw the table of a demo as ``demo.svg``: ``archipel demo --out run | python docs/images/render.py``.

Takes the demo's own words from standard input; the picture loads no font from the network.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).with_name("demo.svg")
WIDTH = 92
FONTS = "Menlo, Consolas, DejaVu Sans Mono, monospace"


def picture(output: str) -> str:
    """Return the SVG of the part of a demo's output between its forecast and its promise."""
    lines = output.splitlines()
    first = next(number for number, line in enumerate(lines) if ": mean over" in line)
    last = next(number for number, line in enumerate(lines) if "What is promised" in line)
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text("$ make demo", style="bold green"))
    for line in lines[first:last]:
        console.print(Text(line.rstrip(), style="bold" if "federated (private)" in line else ""))
    svg = console.export_svg(title="archipel demo", unique_id="demo")
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", FONTS)


if __name__ == "__main__":
    TARGET.write_text(picture(sys.stdin.read()), encoding="utf-8")
