"""What finding the people in common costs: CPU seconds a silo, and what the coordinator needs to match.

Every silo's work is done by the code that its worker runs, one after the other in this process and on one
core: blind the own list, put a layer on everybody else's. Bytes are those of the files that travel.

    python benchmarks/alignment.py
    python benchmarks/alignment.py --silos 3 --people 5000 --json -
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reporting import MEGA, Page, Terminal, add_json_option, header, write

from federation.legs.matching import Found
from federation.legs.spines import find_spine
from policies.plans.vertical.terms import AlignmentTerms
from privacy.alignment.blinding import Blinding
from privacy.alignment.identifiers import pseudonyms
from privacy.alignment.points import POINT_BYTES, SCALAR_BYTES

GOAL_SECONDS = 3.0
PEPPER, RUN = bytes(range(32)), "benchmark"
SHARED = 0.8


def people(silo: int, count: int) -> list[str]:
    """Addresses, most of them known to everybody."""
    common = int(count * SHARED)
    mine = (f"{silo}-{number}@example.org" for number in range(count - common))
    return [*(f"{number}@example.org" for number in range(common)), *mine]


def timed(spent: dict[str, float], what: str, work: Callable[[], Any]) -> Any:
    """The result of ``work``, its CPU time added to ``spent``."""
    start = time.process_time()
    result = work()
    spent[what] = spent.get(what, 0.0) + time.process_time() - start
    return result


def run(num_silos: int, count: int) -> dict[str, Any]:
    """Align once; every silo's list is full."""
    names = [f"silo-{number}" for number in range(num_silos)]
    blindings = [Blinding.generate(RUN) for _ in names]
    spent: list[dict[str, float]] = [{} for _ in names]
    lists: list[bytes] = []
    for silo, blinding in enumerate(blindings):
        ids = people(silo, count)
        words = timed(spent[silo], "hash", lambda ids=ids: pseudonyms(ids, "email", PEPPER).words)
        lists.append(timed(spent[silo], "own", lambda b=blinding, w=words: b.own_list(w, count)))
    for hop in range(1, num_silos):
        for owner in range(num_silos):
            silo = (owner + hop) % num_silos
            layered = timed(
                spent[silo], "layers", lambda s=silo, o=owner: blindings[s].blind(lists[o], count)
            )
            lists[owner] = layered
    coordinator: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in names}
        for owner, name in enumerate(names):
            files[name].write_bytes(blindings[owner - 1].veil() + lists[owner])
        terms = AlignmentTerms(
            capacities=dict.fromkeys(names, count), min_intersection=1, epsilon=1.0, identifiers="email"
        )
        slots = {name: Path(scratch) / f"{name}-slots" for name in names}
        found = timed(coordinator, "match", lambda: find_spine(files, terms, slots))
    if not isinstance(found, Found):
        raise RuntimeError("people in common were not found")
    totals = [sum(of_silo.values()) for of_silo in spent]
    return {
        "silos": num_silos,
        "people": count,
        "cpu_seconds_a_silo": max(totals),
        "parts": {part: max(of_silo[part] for of_silo in spent) for part in spent[0]},
        "coordinator_cpu_seconds": coordinator["match"],
        "upload_bytes_a_silo": count * POINT_BYTES * num_silos + SCALAR_BYTES,
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Print the table."""
    rows = [
        (
            f"{one['silos']} x {one['people']:,}",
            f"{one['cpu_seconds_a_silo']:.2f}",
            f"{one['parts']['own']:.2f}",
            f"{one['parts']['layers']:.2f}",
            f"{one['coordinator_cpu_seconds']:.2f}",
            f"{one['upload_bytes_a_silo'] / MEGA:.2f}",
        )
        for one in result["runs"]
    ]
    columns = ("silos x ids", "CPU s a silo", "own list", "others' lists", "coordinator s", "MB up a silo")
    page.table("alignment", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--silos", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--people", type=int, default=5_000)
    add_json_option(parser, "alignment")
    options = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    page = Terminal(options.json)
    result = header("alignment", " ".join(["python benchmarks/alignment.py", *given]))
    result["runs"] = [run(silos, options.people) for silos in options.silos]
    show(result, page)
    write(result, options.json)
    asked = [one for one in result["runs"] if (one["silos"], one["people"]) == (3, 5_000)]
    return int(any(one["cpu_seconds_a_silo"] > GOAL_SECONDS for one in asked))


if __name__ == "__main__":
    sys.exit(main())
