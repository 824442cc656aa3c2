"""How good the federated model is on movielens-1m, beside the targets it was given.

Runs ``archipel demo`` on movielens-1m once for each epsilon: four taste-skewed silos, delta 1e-5, one
colluding silo covered, three seeds. Nothing is chosen on this set: the method's constants come from
``choose_item_graph_defaults.py``, which refuses it. ``results/movielens_1m_first_look.json`` is the first
run, before one of the constants was added.

Results are written after each epsilon. One that is there already, from the same options, is kept; --again
runs it anew. A run that fails is recorded and said, and the others go on.

    ARCHIPEL_DATA=PATH python benchmarks/movielens_1m.py
    python benchmarks/movielens_1m.py --data PATH/movielens-1m --epsilon 4 --again
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from movielens_demo import (
    COLUMNS,
    METRIC,
    are_of_one_state,
    at_least,
    at_most,
    data_folder,
    is_kept,
    kept_records,
    run_demo,
    target_text,
)
from reporting import Page, Terminal, add_json_option, header, write

SILOS, SEEDS, COLLUDING_SILOS, DELTA = 4, 3, 1, 1e-5
MAX_DISTANCE_TO_POOLED = 0.008
MAX_UPLOAD_RATIO = 1.1


@dataclass(frozen=True)
class Target:
    """What is asked of one epsilon, in NDCG@20."""

    federated: float
    above_silo_alone: float


TARGETS = {"2": Target(0.275, 0.04), "4": Target(0.32, 0.05), "8": Target(0.35, 0.04)}


def options(epsilon: str, seeds: int) -> dict[str, str]:
    """Options of one demo, without data and places."""
    return {
        "--silos": str(SILOS),
        "--delta": f"{DELTA:g}",
        "--colluding-silos": str(COLLUDING_SILOS),
        "--seeds": str(seeds),
        "--epsilon": epsilon,
    }


def run(epsilon: str, data: Path, out: Path, asked: dict[str, str]) -> dict[str, Any]:
    """Run one demo and judge it; returns its figures, or what went wrong."""
    record = run_demo(f"epsilon-{epsilon}", data, out, asked)
    return record | ({"checks": judge(epsilon, record)} if record["state"] == "finished" else {})


def judge(epsilon: str, told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Measured values beside their targets; an epsilon without targets has the general ones only."""
    metrics = {column: values[METRIC] for column, values in told["metrics"].items()}
    federated = metrics["federated_private"]
    distance = abs(federated - metrics["pooled_same_noise"])
    checks = {
        "distance to pooled, same noise": at_most(distance, MAX_DISTANCE_TO_POOLED),
        "upload against float32": at_most(told["secure_sum"]["ratio_to_float32"], MAX_UPLOAD_RATIO),
    }
    target = TARGETS.get(epsilon)
    if target is None:
        return checks
    return {
        "federated": at_least(federated, target.federated),
        "above silo alone": at_least(federated - metrics["silo_alone"], target.above_silo_alone),
    } | checks


def show(result: dict[str, Any], page: Page) -> None:
    """Print the comparison, then target by target."""
    records = result["epsilons"]
    finished = {epsilon: record for epsilon, record in records.items() if record["state"] == "finished"}
    if finished:
        page.table(
            f"mean ± spread over seeds, {METRIC}",
            ("", *(f"epsilon {epsilon}" for epsilon in finished)),
            [
                (
                    heading,
                    *(
                        f"{r['metrics'][column][METRIC]:.4f} ± {r['metrics_std'][column][METRIC]:.4f}"
                        for r in finished.values()
                    ),
                )
                for column, heading in COLUMNS.items()
                if all(column in record["metrics"] for record in finished.values())
            ],
        )
        page.table(
            "targets",
            ("epsilon", "what", "measured", "target", "met"),
            [
                (
                    epsilon,
                    what,
                    f"{check['measured']:.4f}",
                    target_text(check),
                    "yes" if check["met"] else "NO",
                )
                for epsilon, record in finished.items()
                for what, check in record["checks"].items()
            ],
        )
    if not are_of_one_state(finished.values()):
        page.say("note: these figures are not all of one committed state; --again makes them so")
    for epsilon, record in records.items():
        if record["state"] != "finished":
            page.say(f"epsilon {epsilon} FAILED, exit code {record['exit_code']}: {record['message']}")


def all_met(records: dict[str, Any]) -> bool:
    """Whether every run finished and met every target."""
    return all(
        record["state"] == "finished" and all(check["met"] for check in record["checks"].values())
        for record in records.values()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the set; default: $ARCHIPEL_DATA/movielens-1m")
    parser.add_argument(
        "--epsilon", type=float, nargs="+", default=[float(e) for e in TARGETS], help="which to run"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="federations for each epsilon")
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("run/movielens-1m"),
        help="folder for the federations; default: %(default)s",
    )
    add_json_option(parser, "movielens_1m")
    asked = parser.parse_args(arguments)
    data = data_folder(asked.data)
    if data is None:
        parser.error("name the folder with --data, or its parent in the environment variable ARCHIPEL_DATA")
    page = Terminal(asked.json)
    records = kept_records(asked.json, "epsilons")
    command = "ARCHIPEL_DATA=PATH python benchmarks/movielens_1m.py"
    for epsilon in map(_plain, asked.epsilon):
        wanted = options(epsilon, asked.seeds)
        if not asked.again and is_kept(records.get(epsilon), wanted):
            page.say(f"epsilon {epsilon}: kept from an earlier run")
            continue
        page.say(f"epsilon {epsilon} …")
        records[epsilon] = run(epsilon, data, asked.out, wanted)
        records = dict(sorted(records.items(), key=lambda item: float(item[0])))
        if asked.json != "-":
            write(result_of(command, records), asked.json)
    show(result_of(command, records), page)
    if asked.json == "-":
        write(result_of(command, records), asked.json)
    return 0 if all_met(records) else 1


def result_of(command: str, records: dict[str, Any]) -> dict[str, Any]:
    """The whole result file."""
    result = header("movielens_1m", command)
    return result | {"metric": METRIC, "all_met": all_met(records), "epsilons": records}


def _plain(epsilon: float) -> str:
    return f"{epsilon:g}"


if __name__ == "__main__":
    sys.exit(main())
