"""Write the tables of ``docs/benchmarks.md`` and ``docs/reference-results.md`` from the results beside it.

What stands there between ``<!-- figures: NAME -->`` and ``<!-- end -->`` is replaced by what the benchmark
of that name prints for ``results/NAME.json``, with the command and the machine that made it.

    python benchmarks/write_docs.py
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from reporting import RESULTS, Markdown

DOCS = Path(__file__).parent.parent / "docs"
PAGES = DOCS / "benchmarks.md", DOCS / "reference-results.md"
PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def figures(name: str) -> str:
    """What one benchmark has to say, as Markdown."""
    page = Markdown()
    path = RESULTS / f"{name}.json"
    if not path.exists():
        page.say(f"No figures yet: `python benchmarks/{name}.py` makes them.")
        return page.text
    result = json.loads(path.read_text())
    machine = result["machine"]
    page.say(
        f"Made on {result['made']} with `{result['command']}` on {machine['cores']} cores "
        f"({machine['architecture']}, {machine['system']}, CPU only, Python {machine['python']})."
    )
    importlib.import_module(name).show(result, page)
    return page.text


def filled(text: str) -> str:
    """A page with all its figures as the results have them."""
    return PLACE.sub(lambda place: f"{place[1]}\n{figures(place[2])}\n{place[3]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if figures are stale")
    asked = parser.parse_args(arguments)
    stale = [page for page in PAGES if filled(page.read_text(encoding="utf-8")) != page.read_text("utf-8")]
    if asked.check:
        return 1 if stale else 0
    for page in stale:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
