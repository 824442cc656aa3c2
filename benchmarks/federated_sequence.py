"""What the ``sequence`` family gives a federation under differential privacy, beside its targets.

Two sets, each in four taste-skewed silos, delta 1e-5, one colluding silo covered, every unseen item competes:

- ``marketplace``: made-up people with an order; the last item by time is held out, a causal network reads;
- ``movielens-1m``: real people as sets, for its times tell no order; a random fifth is held out, the network
  that looks both ways reads.

One person in eight is public, is in no silo and is not measured. Models are learnt by the production family
on the plan's own schedule (``silo.demo.simulation``):

- ``federated``: from weights that public people made without noise, by the four silos' noised sum;
- ``alone``: the same method and start, each silo with the whole noise by itself;
- ``from scratch``: federated, from the plan's seed;
- ``no privacy``: federated without noise; ``public part``: the start as it is; ``popularity``: exact counts.

Constants were chosen on another marketplace (seed 100); nothing is chosen on movielens-1m. Every model that
is learnt is written at once; what is there already, from the same options, is kept (--again runs it anew).

    python benchmarks/federated_sequence.py --set marketplace
    ARCHIPEL_DATA=PATH python benchmarks/federated_sequence.py --set movielens-1m
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from movielens_demo import (
    Check,
    Record,
    are_of_one_state,
    at_least,
    code_version,
    data_folder,
    kept_records,
    target_text,
)
from reporting import Page, Terminal, add_json_option, header, write
from sequence_scene import COLLUDING, METRICS, MOVIELENS, SETTINGS, SILOS, Scene, Setting

from silo.demo.simulation import simulate
from silo.models.recommender import Recommender

EPSILONS = (4.0, 8.0)
METRIC = "ndcg@20"
ABOVE_POPULARITY, ABOVE_ALONE = 0.02, 0.0
NO_PRIVACY, PUBLIC, POPULARITY = "no privacy", "public part", "popularity"


def federated(epsilon: float) -> str:
    """Name of a model."""
    return f"federated, epsilon {epsilon:g}"


def alone(epsilon: float) -> str:
    """Name of a model."""
    return f"alone, epsilon {epsilon:g}"


def from_scratch(epsilon: float) -> str:
    """Name of a model."""
    return f"from scratch, epsilon {epsilon:g}"


def models(scene: Scene) -> dict[str, Callable[[], dict[str, float]]]:
    """How each model is learnt and measured, those with a target first."""

    def popularity() -> dict[str, float]:
        counts = np.asarray(scene.members.matrix().sum(axis=0), dtype=np.float32).ravel()
        return scene.figures(Recommender.of_popularity(counts, {}, is_fallback=False))

    def warm(epsilon: float, **changed: Any) -> dict[str, float]:
        simulation = replace(scene.federation(epsilon), start=scene.start[0], **changed)
        return scene.figures(simulate(simulation))

    def by_itself(epsilon: float) -> dict[str, float]:
        noise = sqrt(len(SILOS) - COLLUDING)
        simulation = replace(scene.federation(epsilon), start=scene.start[0], noise=noise)
        return scene.figures_by_silo([simulate(replace(simulation, parties=(part,))) for part in scene.parts])

    def cold(epsilon: float) -> dict[str, float]:
        return scene.figures(simulate(scene.federation(epsilon)))

    found = {POPULARITY: popularity, PUBLIC: lambda: scene.figures(scene.start[1])}
    for epsilon in EPSILONS:
        found[federated(epsilon)] = partial(warm, epsilon)
        found[alone(epsilon)] = partial(by_itself, epsilon)
    found |= {from_scratch(epsilon): partial(cold, epsilon) for epsilon in EPSILONS}
    found[NO_PRIVACY] = partial(warm, max(EPSILONS), noise=0.0, is_clamped=False)
    return found


def options_of(setting: Setting, seed: int) -> dict[str, Any]:
    """What figures depend on; records of others are not kept."""
    return {**asdict(setting), "seed": seed}


def summarise(records: Mapping[str, Record]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over the finished seeds, by set and model."""
    found: dict[str, dict[str, Any]] = {}
    for name in SETTINGS:
        seeds = [one for one in records.values() if one["options"]["name"] == name and is_finished(one)]
        if seeds:
            found[name] = {
                "options": {key: value for key, value in seeds[0]["options"].items() if key != "seed"},
                "seeds": [one["options"]["seed"] for one in seeds],
                "users": seeds[0]["users"],
                "items": seeds[0]["items"],
                "models": {model: _spreads(model, seeds) for model in seeds[0]["models"]},
                "processor_minutes": fmean(one["processor_seconds"] for one in seeds) / 60,
            }  # fmt: skip
    return found


def is_finished(record: Record) -> bool:
    """Whether all models of a seed are there."""
    return record["state"] == "finished"


def _spreads(model: str, seeds: Sequence[Record]) -> dict[str, dict[str, float]]:
    return {metric: _spread([one["models"][model][metric] for one in seeds]) for metric in METRICS}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else 0.0}


def judge(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Check]]:
    """Means beside their targets, by set."""
    checks: dict[str, dict[str, Check]] = {}
    for name, about in summary.items():
        mean = {model: of[METRIC]["mean"] for model, of in about["models"].items()}
        for epsilon in EPSILONS:
            ours, text = mean[federated(epsilon)], f"epsilon {epsilon:g}: above"
            checks.setdefault(name, {})[f"{text} popularity"] = at_least(
                ours - mean[POPULARITY], ABOVE_POPULARITY
            )
            checks[name][f"{text} silo alone"] = at_least(ours - mean[alone(epsilon)], ABOVE_ALONE)
    return checks


def show(result: dict[str, Any], page: Page) -> None:
    """A table a set, then target by target."""
    for name, about in result["summary"].items():
        asked, count = about["options"], len(about["seeds"])
        size = f"{sum(about['users']):,} people in four silos, {about['items']:,} items"
        held_out = "last item" if asked["split"] == "last" else "a random fifth"
        page.table(
            f"{held_out} of {name}, {asked['architecture']}, {size}, {count} seed{'s' if count > 1 else ''}",
            ["model", *METRICS],
            [
                [model, *(_cell(of[metric], count) for metric in METRICS)]
                for model, of in about["models"].items()
            ],
        )
        page.say(f"{name}: {about['processor_minutes']:.1f} processor minutes a seed")
    page.table(
        f"targets, {METRIC}",
        ["what", "measured", "target", "met"],
        [
            (f"{name}, {what}", f"{check['measured']:.4f}", target_text(check), _met(check))
            for name, checks in result["checks"].items()
            for what, check in checks.items()
        ],
    )  # fmt: skip
    records = result["runs"]
    if not are_of_one_state(record for record in records.values() if is_finished(record)):
        page.say("note: these figures are not all of one committed state; --again makes them so")
    for name, record in records.items():
        if not is_finished(record):
            so_far = "; ".join(f"{model} {of[METRIC]:.4f}" for model, of in record["models"].items())
            page.say(f"{name} is unfinished, {METRIC} so far: {so_far or 'none'}")


def _met(check: Check) -> str:
    return "yes" if check["met"] else "NO"


def _cell(values: Mapping[str, float], seeds: int) -> str:
    return f"{values['mean']:.4f}" + (f" ± {values['std']:.4f}" if seeds > 1 else "")


def result_of(records: dict[str, Record]) -> dict[str, Any]:
    """The whole result file."""
    summary = summarise(records)
    checks = judge(summary)
    is_whole = set(summary) == set(SETTINGS) and all(map(is_finished, records.values()))
    return header("federated_sequence", "ARCHIPEL_DATA=PATH python benchmarks/federated_sequence.py") | {
        "metric": METRIC,
        "all_met": is_whole and all(check["met"] for of in checks.values() for check in of.values()),
        "checks": checks,
        "summary": summary,
        "runs": records,
    }


def run(
    setting: Setting, seed: int, data: Path | None, kept: Record | None, keep: Callable[[Record], None]
) -> None:
    """Measure what is not there yet of one seed; ``keep`` sees the record after every model."""
    options = options_of(setting, seed)
    if kept is None or kept["options"] != options:
        kept = {"options": options, "models": {}, "processor_seconds": 0.0}
    record: Record = kept | code_version() | {"state": "unfinished"}
    scene = Scene(setting, seed, data)
    record |= {"users": [int(own.size) for own in scene.users], "items": scene.members.num_items}
    wanted = models(scene)
    for name, measured in wanted.items():
        if name in record["models"]:
            continue
        start = time.process_time()
        record["models"][name] = measured()
        record["processor_seconds"] = round(record["processor_seconds"] + time.process_time() - start, 1)
        keep(record)
    keep(record | {"state": "finished"})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), dest="sets")
    parser.add_argument(
        "--data", type=Path, help="folder of movielens-1m; default: $ARCHIPEL_DATA/movielens-1m"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    add_json_option(parser, "federated_sequence")
    asked = parser.parse_args(arguments)
    data = data_folder(asked.data)
    if data is None and MOVIELENS in asked.sets:
        parser.error("name the folder of movielens-1m with --data, or its parent in ARCHIPEL_DATA")
    page = Terminal(asked.json)
    records = kept_records(asked.json, "runs")
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        for name in asked.sets:
            where = f"{name}-seed-{seed}"

            def keep(record: Record, where: str = where) -> None:
                records[where] = record
                page.say(f"{where}: {len(record['models'])} models, {record['processor_seconds']:.0f} s")
                if asked.json != "-":
                    write(result_of(records), asked.json)

            run(SETTINGS[name], seed, data, None if asked.again else records.get(where), keep)
    result = result_of(records)
    show(result, page)
    if asked.json == "-":
        write(result, asked.json)
    return 0 if result["all_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
