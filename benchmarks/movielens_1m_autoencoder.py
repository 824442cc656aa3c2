"""How good the federated autoencoder is on movielens-1m, beside the targets it was given.

Runs ``archipel demo --model autoencoder`` on movielens-1m, one federation for each epsilon and seed: four
taste-skewed silos, delta 1e-5, one colluding silo covered. At epsilon 1 the item graph runs beside it, on the
same splits. Nothing is chosen on this set: schedule, learning rates and widths are the defaults of
``archipel plan new``, which were chosen on the built-in marketplace.

Results are written after each federation. One that is there already, from the same options, is kept; --again
runs it anew. A run that fails is recorded and said, and the others go on.

    ARCHIPEL_DATA=PATH python benchmarks/movielens_1m_autoencoder.py
    python benchmarks/movielens_1m_autoencoder.py --data PATH/movielens-1m --quick
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from movielens_demo import (
    COLUMNS,
    METRIC,
    Check,
    Record,
    are_of_one_state,
    at_least,
    at_most,
    data_folder,
    is_kept,
    kept_records,
    run_demo,
    target_text,
)
from reporting import MEGA, Page, Terminal, add_json_option, header, write

AUTOENCODER, ITEM_GRAPH = "autoencoder", "item-graph"
SILOS, SEEDS, COLLUDING_SILOS, DELTA = 4, 3, 1, 1e-5
EPSILONS = ("1", "2", "4")
EPSILON_OF_ITEM_GRAPH = "1"
QUICK_EPSILON = "4"
MAX_DISTANCE_TO_POOLED = 0.01
ABOVE_POPULARITY = {"2": 0.02, "4": 0.04}


@dataclass(frozen=True)
class Run:
    """One federation to measure."""

    family: str
    epsilon: str
    seed: int

    @property
    def name(self) -> str:
        """Of its record and of its files."""
        return f"{self.family}-epsilon-{self.epsilon}-seed-{self.seed}"

    @property
    def options(self) -> dict[str, str]:
        """Options of its demo, without data and places."""
        return {
            "--model": self.family,
            "--silos": str(SILOS),
            "--delta": f"{DELTA:g}",
            "--colluding-silos": str(COLLUDING_SILOS),
            "--epsilon": self.epsilon,
            "--seed": str(self.seed),
        }


def wanted(epsilons: Iterable[str], seeds: int) -> list[Run]:
    """All federations, the seeds of one epsilon one after the other."""
    runs = []
    for epsilon in epsilons:
        families = (AUTOENCODER, ITEM_GRAPH) if epsilon == EPSILON_OF_ITEM_GRAPH else (AUTOENCODER,)
        runs += [Run(family, epsilon, seed) for family in families for seed in range(seeds)]
    return runs


def finished_seeds(records: Mapping[str, Record], family: str, epsilon: str) -> list[Record]:
    """Finished records of one family at one epsilon."""
    asked = {"--model": family, "--epsilon": epsilon}
    return [
        record
        for record in records.values()
        if record["state"] == "finished" and asked.items() <= record["options"].items()
    ]


def summarise(records: Mapping[str, Record]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over the finished seeds, by family, epsilon and column."""
    found: dict[str, dict[str, Any]] = {}
    for family in (AUTOENCODER, ITEM_GRAPH):
        for epsilon in sorted({record["options"]["--epsilon"] for record in records.values()}, key=float):
            seeds = finished_seeds(records, family, epsilon)
            if seeds:
                found.setdefault(family, {})[epsilon] = {
                    "seeds": [int(record["options"]["--seed"]) for record in seeds],
                    "columns": {
                        column: _spread([record["metrics"][column][METRIC] for record in seeds])
                        for column in COLUMNS
                        if all(column in record["metrics"] for record in seeds)
                    },
                    "job_seconds": fmean(record["seconds"]["job"] for record in seeds),
                    "upload_bytes": max(record["secure_sum"]["bytes_up_per_silo"] for record in seeds),
                }
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else 0.0}


def judge(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Check]]:
    """Means beside their targets, by epsilon."""
    checks: dict[str, dict[str, Check]] = {}
    for epsilon, about in summary.get(AUTOENCODER, {}).items():
        mean = {column: values["mean"] for column, values in about["columns"].items()}
        federated = mean["federated_private"]
        distance = abs(federated - mean["pooled_same_noise"])
        checks[epsilon] = {"distance to pooled, same noise": at_most(distance, MAX_DISTANCE_TO_POOLED)}
        if epsilon in ABOVE_POPULARITY:
            gain = federated - mean["popularity"]
            checks[epsilon]["above popularity"] = at_least(gain, ABOVE_POPULARITY[epsilon])
        graph = summary.get(ITEM_GRAPH, {}).get(epsilon)
        if graph is not None:
            other = graph["columns"]["federated_private"]["mean"]
            checks[epsilon]["above item-graph"] = at_least(federated - other, 0.0)
    return checks


def show(result: dict[str, Any], page: Page) -> None:
    """Print the comparison, then target by target, then what it took."""
    for family, epsilons in result["summary"].items():
        columns = [name for name in COLUMNS if all(name in about["columns"] for about in epsilons.values())]
        page.table(
            f"{family}: mean ± spread over seeds, {METRIC}",
            ("", *(f"epsilon {epsilon}" for epsilon in epsilons)),
            [
                (COLUMNS[name], *(_cell(about["columns"][name]) for about in epsilons.values()))
                for name in columns
            ],
        )
    page.table(
        "targets",
        ("epsilon", "what", "measured", "target", "met"),
        [
            (epsilon, what, f"{check['measured']:.4f}", target_text(check), "yes" if check["met"] else "NO")
            for epsilon, checks in result["checks"].items()
            for what, check in checks.items()
        ],
    )
    for family, epsilons in result["summary"].items():
        for epsilon, about in epsilons.items():
            page.say(
                f"{family} at epsilon {epsilon}: job {about['job_seconds']:.0f} s, each silo sent "
                f"{about['upload_bytes'] / MEGA:.2f} MB; seeds {', '.join(map(str, about['seeds']))}"
            )
    records = result["runs"]
    if not are_of_one_state(record for record in records.values() if record["state"] == "finished"):
        page.say("note: these figures are not all of one committed state; --again makes them so")
    for name, record in records.items():
        if record["state"] != "finished":
            page.say(f"{name} FAILED, exit code {record['exit_code']}: {record['message']}")


def _cell(values: dict[str, float]) -> str:
    return f"{values['mean']:.4f} ± {values['std']:.4f}"


def result_of(records: dict[str, Record]) -> dict[str, Any]:
    """The whole result file."""
    summary = summarise(records)
    checks = judge(summary)
    is_finished = all(record["state"] == "finished" for record in records.values())
    all_met = is_finished and all(check["met"] for of in checks.values() for check in of.values())
    command = "ARCHIPEL_DATA=PATH python benchmarks/movielens_1m_autoencoder.py"
    return header("movielens_1m_autoencoder", command) | {
        "metric": METRIC,
        "all_met": all_met,
        "checks": checks,
        "summary": summary,
        "runs": records,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the set; default: $ARCHIPEL_DATA/movielens-1m")
    parser.add_argument("--epsilon", nargs="+", default=EPSILONS, help="which to run")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="federations for each epsilon")
    parser.add_argument(
        "--quick", action="store_true", help=f"only epsilon {QUICK_EPSILON} and one seed: a first look"
    )
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("run/movielens-1m-autoencoder"),
        help="folder for the federations; default: %(default)s",
    )
    add_json_option(parser, "movielens_1m_autoencoder")
    asked = parser.parse_args(arguments)
    data = data_folder(asked.data)
    if data is None:
        parser.error("name the folder with --data, or its parent in the environment variable ARCHIPEL_DATA")
    page = Terminal(asked.json)
    records = kept_records(asked.json, "runs")
    epsilons = (QUICK_EPSILON,) if asked.quick else [f"{float(epsilon):g}" for epsilon in asked.epsilon]
    for run in wanted(epsilons, 1 if asked.quick else asked.seeds):
        if not asked.again and is_kept(records.get(run.name), run.options):
            page.say(f"{run.name}: kept from an earlier run")
            continue
        page.say(f"{run.name} …")
        records[run.name] = run_demo(run.name, data, asked.out, run.options)
        if asked.json != "-":
            write(result_of(records), asked.json)
    result = result_of(records)
    show(result, page)
    if asked.json == "-":
        write(result, asked.json)
    return 0 if result["all_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
