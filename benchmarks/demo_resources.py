"""What the demo needs: memory and CPU time of each of its processes, wall time, bytes at the transport.

Runs ``archipel demo`` on the built-in marketplace and looks at its processes many times a second. Memory is
the kernel's own high-water mark of each process (of several processes in one role: the largest). CPU time is
what was seen at the last look, so commands of a fraction of a second are counted a little short; the total
over everything the demo started comes from the operating system at its end and misses nothing.

    python benchmarks/demo_resources.py
    python benchmarks/demo_resources.py --runs 1 --silos 4
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from process_tree import FORKED, ProcessTree, Usage
from reporting import MEGA, Page, Terminal, add_json_option, header, write

POLL_SECONDS = 0.05
ROLES = (
    "coordinator",
    "coordinator's sum worker",
    "agent",
    "agent's worker",
    "agent's sum check",
    "harness",
    "harness workers",
    "commands",
    "helpers",
)


class DemoFailedError(RuntimeError):
    """The demo did not end well; its own message is quoted."""


@dataclass(frozen=True)
class Run:
    """What one run of the demo used."""

    wall_seconds: float
    cpu_seconds: float
    usages: list[Usage]
    told: dict[str, Any]


def role_of(process: psutil.Process) -> str:
    """What a process of the demo is for, with the silo's name where it serves one.

    Raises:
        psutil.Error: it has ended.
    """
    words = _words(process)
    if FORKED not in words:
        return role_of_command(words)
    parent = process.parent()
    limited = process.rlimit(psutil.RLIMIT_AS)[0] != psutil.RLIM_INFINITY
    return role_of_worker("helpers" if parent is None else role_of_command(_words(parent)), limited=limited)


def _words(process: psutil.Process) -> list[str]:
    """Command line of a process; one that is just ending has none and keeps the role it had."""
    words = process.cmdline()
    if not words:
        raise psutil.NoSuchProcess(process.pid)
    return words


def role_of_command(words: Sequence[str]) -> str:
    """What a command line is for: ``… -m cli silo run --dir …/shop-a`` is ``agent shop-a``."""
    if "cli" not in words:
        return "helpers"
    said = list(words[words.index("cli") + 1 :])
    match said[:2]:
        case ["demo", *_]:
            return "harness"
        case ["coordinator", "run"]:
            return "coordinator"
        case ["silo", "run"]:
            return f"agent {Path(said[said.index('--dir') + 1]).name}"
        case _:
            return "commands"


def role_of_worker(parent: str, *, limited: bool) -> str:
    """What a spawned process is for. Only processes that sum ciphertexts limit their address space."""
    if parent == "harness":
        return "harness workers"
    if parent == "coordinator":
        return "coordinator's sum worker" if limited else "helpers"
    kind, _, silo = parent.partition(" ")
    if kind != "agent":
        return "helpers"
    return f"agent's sum check {silo}" if limited else f"agent's worker {silo}"


def run_demo(options: Sequence[str], out: Path) -> Run:
    """Run one demo to its end and watch it.

    Raises:
        DemoFailedError: it failed.
    """
    target = out / "demo.result.json"
    command = [
        sys.executable,
        "-m",
        "cli",
        "demo",
        *options,
        "--out",
        str(out / "run"),
        "--json",
        str(target),
    ]
    before, start = _children_cpu(), time.perf_counter()
    with (out / "demo.log").open("w+") as log:
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        tree = ProcessTree(demo.pid, role_of)
        try:
            while demo.poll() is None:
                tree.sample()
                time.sleep(POLL_SECONDS)
        finally:
            if demo.poll() is None:
                demo.terminate()
                demo.wait()
        wall = time.perf_counter() - start
        log.seek(0)
        if demo.returncode != 0:
            raise DemoFailedError(f"exit code {demo.returncode}: {log.read().strip()[-2000:]}")
    return Run(wall, _children_cpu() - before, tree.usages, json.loads(target.read_text()))


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_role(usages: Iterable[Usage]) -> dict[str, dict[str, float]]:
    """Roles in order: number of processes, the largest peak, CPU seconds of all together."""
    found: dict[str, dict[str, float]] = {}
    for usage in sorted(usages, key=lambda usage: (_rank(usage.role), usage.role)):
        entry = found.setdefault(usage.role, {"processes": 0, "peak_rss_bytes": 0, "cpu_seconds": 0.0})
        entry["processes"] += 1
        entry["peak_rss_bytes"] = max(entry["peak_rss_bytes"], usage.peak_rss_bytes)
        entry["cpu_seconds"] += usage.cpu_seconds
    return found


def _rank(role: str) -> int:
    """Place of a role in the table; ``agent shop-a`` stands where ``agent`` does."""
    return max((len(known), place) for place, known in enumerate(ROLES) if role.startswith(known))[1]


def merge(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians over the runs; the shape of the sum is the same in each."""
    tables = [by_role(run.usages) for run in runs]
    total = median(run.cpu_seconds for run in runs)
    roles = {
        role: {
            what: median(table[role][what] for table in tables if role in table) for what in tables[0][role]
        }
        for role in tables[0]
    }
    for entry in roles.values():
        entry["share_of_cpu"] = entry["cpu_seconds"] / total
    told = runs[0].told
    return {
        "data": told["data"],
        "runs": len(runs),
        "wall_seconds": median(run.wall_seconds for run in runs),
        "wall_seconds_of_each_run": [run.wall_seconds for run in runs],
        "phases_seconds": {
            name: median(run.told["seconds"][name] for run in runs) for name in told["seconds"]
        },
        "cpu_seconds": total,
        "roles": roles,
        "secure_sum": told["secure_sum"],
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Print each federation's processes, then time and bytes."""
    for federation in result["federations"].values():
        show_federation(federation, page)


def show_federation(result: dict[str, Any], page: Page) -> None:
    """Print one federation; silos, which do the same, share a row."""
    page.table(
        f"processes of the demo with {result['data']['silos']} silos",
        ("role", "processes", "largest peak MB", "CPU s together", "of all CPU"),
        [
            (
                kind,
                f"{sum(entry['processes'] for entry in entries):g}",
                f"{max(entry['peak_rss_bytes'] for entry in entries) / MEGA:.0f}",
                f"{sum(entry['cpu_seconds'] for entry in entries):.1f}",
                f"{sum(entry['share_of_cpu'] for entry in entries):.0%}",
            )
            for kind, entries in _by_kind(result["roles"]).items()
        ],
    )
    phases = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result["phases_seconds"].items())
    page.say(
        f"wall {result['wall_seconds']:.0f} s ({phases}); CPU of everything {result['cpu_seconds']:.0f} s"
    )
    sums = result["secure_sum"]
    page.say(
        f"each silo sent {sums['bytes_up_per_silo'] / MEGA:.2f} MB, "
        f"{sums['ratio_to_float32']:.3f} × float32 of {sums['values']:,} values (at most 1.1), "
        f"and fetched {sums['bytes_down_per_silo'] / MEGA:.2f} MB, "
        "the others' frames to verify the sum included"
    )


def _by_kind(roles: dict[str, dict[str, float]]) -> dict[str, list[dict[str, float]]]:
    """Entries by role without the silo's name."""
    found: dict[str, list[dict[str, float]]] = {}
    for role, entry in roles.items():
        found.setdefault(ROLES[_rank(role)], []).append(entry)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="a figure is the median of so many demos")
    parser.add_argument("--silos", type=int, nargs="+", default=[4, 8], help="as for archipel demo")
    parser.add_argument("--model", default="item-graph", help="as for archipel demo")
    parser.add_argument("--out", type=Path, help="folder for the demos; default: a temporary one")
    add_json_option(parser, "demo_resources")
    asked = parser.parse_args(arguments)
    page = Terminal(asked.json)
    federations = {}
    for silos in asked.silos:
        runs = []
        for number in range(asked.runs):
            page.say(f"{silos} silos, demo {number + 1} of {asked.runs} …")
            try:
                with tempfile.TemporaryDirectory(dir=asked.out) as folder:
                    runs.append(run_demo(["--silos", str(silos), "--model", asked.model], Path(folder)))
            except DemoFailedError as error:
                page.say(f"the demo failed: {error}")
                return 1
        federations[str(silos)] = merge(runs)
    command = f"python benchmarks/demo_resources.py --silos {' '.join(federations)} --runs {asked.runs}"
    result = header("demo_resources", f"{command} --model {asked.model}") | {"federations": federations}
    show(result, page)
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
