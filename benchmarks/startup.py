"""How fast ``archipel --help`` answers, and what it imports to do so.

Time is measured beside a bare interpreter that does nothing, in turns: the ratio says more than seconds of
one machine. Imports come from ``python -X importtime``, each module's least over the repeats.

    python benchmarks/startup.py
    python benchmarks/startup.py --words policy check --help
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from reporting import Page, Terminal, add_json_option, header, write

GOAL_SECONDS = 0.3
HEAVY = ("torch", "opacus", "tenseal", "dp_accounting", "polars", "pyarrow", "scipy", "grpc")
TOP = 12


@dataclass(frozen=True)
class Imported:
    """One module of an import profile, in microseconds."""

    module: str
    own: int
    cumulative: int


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Run a command; returns wall and CPU seconds of it and what it started."""
    before, start = _children_cpu(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, _children_cpu() - before


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def profile(words: Sequence[str]) -> list[Imported]:
    """What one command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "cli", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return parse(done.stderr.splitlines())


def parse(lines: Iterable[str]) -> list[Imported]:
    """Read the profile that the interpreter writes: ``import time: own | cumulative | module``."""
    found = []
    for line in lines:
        own, bar, rest = line.removeprefix("import time:").partition("|")
        if bar and own.strip().isdigit():
            cumulative, _, module = rest.partition("|")
            found.append(Imported(module.strip(), int(own), int(cumulative)))
    return found


def least(profiles: Sequence[Sequence[Imported]]) -> list[Imported]:
    """Each module's least times over several profiles."""
    best: dict[str, Imported] = {}
    for entry in (entry for one in profiles for entry in one):
        known = best.get(entry.module, entry)
        best[entry.module] = Imported(
            entry.module, min(known.own, entry.own), min(known.cumulative, entry.cumulative)
        )
    return list(best.values())


def by_package(imports: Iterable[Imported]) -> dict[str, int]:
    """Own microseconds of all modules of each top-level package, most first."""
    totals: dict[str, int] = defaultdict(int)
    for entry in imports:
        totals[entry.module.partition(".")[0]] += entry.own
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def measure(words: Sequence[str], repeats: int) -> dict[str, Any]:
    """Time the command and the bare interpreter in turns, then profile its imports."""
    command = [sys.executable, "-m", "cli", *words]
    bare = [sys.executable, "-c", "pass"]
    timed(command)
    runs, idle = [], []
    for _ in range(repeats):
        runs.append(timed(command))
        idle.append(timed(bare))
    imports = least([profile(words) for _ in range(min(repeats, 3))])
    packages = by_package(imports)
    wall, cpu = (median(run[part] for run in runs) for part in (0, 1))
    bare_wall, bare_cpu = (median(run[part] for run in idle) for part in (0, 1))
    return {
        "wall_seconds": wall,
        "wall_seconds_least": min(run[0] for run in runs),
        "cpu_seconds": cpu,
        "bare_interpreter": {"wall_seconds": bare_wall, "cpu_seconds": bare_cpu},
        "ratio_to_bare_interpreter": {"wall": wall / bare_wall, "cpu": cpu / bare_cpu},
        "goal_seconds": GOAL_SECONDS,
        "modules": len(imports),
        "heavy_imports": [name for name in HEAVY if name in packages],
        "packages_microseconds": dict(list(packages.items())[:TOP]),
        "slowest_imports": [
            {
                "module": entry.module,
                "own_microseconds": entry.own,
                "cumulative_microseconds": entry.cumulative,
            }
            for entry in sorted(imports, key=lambda entry: -entry.own)[:TOP]
        ],
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Print the times and the top offenders."""
    ratio = result["ratio_to_bare_interpreter"]
    page.say(
        f"wall {result['wall_seconds']:.3f} s (least {result['wall_seconds_least']:.3f}), "
        f"{ratio['wall']:.1f} × a bare interpreter; CPU {result['cpu_seconds']:.3f} s, {ratio['cpu']:.1f} ×; "
        f"{result['modules']} modules; goal {GOAL_SECONDS} s"
    )
    page.say(f"heavy packages imported: {', '.join(result['heavy_imports']) or 'none'}")
    page.table(
        "slowest packages, own time of all their modules",
        ("package", "ms"),
        [(name, f"{own / 1e3:.1f}") for name, own in result["packages_microseconds"].items()],
    )
    page.table(
        "slowest modules",
        ("module", "own ms", "with what it imports, ms"),
        [
            (
                entry["module"],
                f"{entry['own_microseconds'] / 1e3:.1f}",
                f"{entry['cumulative_microseconds'] / 1e3:.1f}",
            )
            for entry in result["slowest_imports"]
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=11, help="a time is the median of so many")
    add_json_option(parser, "startup")
    parser.add_argument(
        "--words", nargs=argparse.REMAINDER, default=["--help"], help="the command to time, instead of --help"
    )
    asked = parser.parse_args(arguments)
    command = f"python benchmarks/startup.py --repeats {asked.repeats} --words {' '.join(asked.words)}"
    result = header("startup", command) | measure(asked.words, asked.repeats)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 1 if result["wall_seconds"] > GOAL_SECONDS or result["heavy_imports"] else 0


if __name__ == "__main__":
    sys.exit(main())
