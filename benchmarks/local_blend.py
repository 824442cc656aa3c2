"""What a silo gains by blending its own exact models with the federation's noised one.

Two measurements, nothing chosen on the sets:

- movielens-1m, four taste-skewed silos, a federated item graph at one epsilon (delta 1e-5, one colluding silo
  covered), a random 20 % of each person's rows held out. In each silo weights are chosen on half of its
  people; NDCG@20 of the other half.
- movielens-100k, everybody in one silo, the last item by time held out (ties in time by seed): the local
  models alone, of all people.

    ARCHIPEL_DATA=PATH python benchmarks/local_blend.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import Draft, complete_plan
from policies.plans.models import FamilyName
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import load_public_set
from silo.data.splits import hold_out, partition_by_taste
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import per_user_metrics, rank
from silo.local.fusion import METRIC, Blend, choose_weights, halves
from silo.local.models import LocalModels
from silo.models.recommender import Recommender

SILOS = ("a", "b", "c", "d")
DELTA = 1e-5
FEDERATED, BLEND = "federated", "blend"


def read(folder: Path) -> Interactions:
    """A whole set."""
    public = load_public_set(folder)
    everything, _ = clean(public.rows, public.catalogue, max_interactions_per_user=len(public.catalogue))
    return everything


def draft_of(parts: Sequence[Interactions], epsilon: float, family: FamilyName = "item-graph") -> Draft:
    """What these silos would agree on."""
    catalogue = parts[0].catalogue
    return Draft(
        silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), family=family,
        target_epsilon=epsilon, target_delta=DELTA, max_silos_per_user=1, max_interactions_per_user=200,
        max_users_per_silo=max(part.num_users for part in parts),
    )  # fmt: skip


def federate(parts: Sequence[Interactions], epsilon: float) -> Recommender:
    """The model that a job of these silos would make."""
    plan = complete_plan(draft_of(parts, epsilon))
    return simulate(Simulation(plan, tuple(parts), 1, 1.0, is_clamped=True))


def blended(train: Interactions, held_out: Interactions, federated: Recommender) -> dict[str, Any]:
    """Weights, and ``METRIC`` of each model and the blend, at one silo."""
    models = {**LocalModels.fit(train.matrix()).scorers(), FEDERATED: federated}
    validation, test = halves(held_out)
    weights = choose_weights(models, train, validation)
    compared = {**models, BLEND: Blend(models, weights)}
    values = {name: per_user_metrics(rank(model, train, test))[METRIC] for name, model in compared.items()}
    return {
        "users": train.num_users,
        "weights": weights,
        METRIC: {name: float(found.mean()) for name, found in values.items()},
        "standard_error": float(values[BLEND].std() / np.sqrt(values[BLEND].size)),
    }


def federation(everything: Interactions, epsilon: float, seed: int) -> list[dict[str, Any]]:
    """One federation; a record for each silo."""
    train, held_out = hold_out(everything, "random", seed=seed)
    silo_of = partition_by_taste(train.matrix(), len(SILOS), seed)
    users = [np.flatnonzero(silo_of == silo) for silo in range(len(SILOS))]
    parts = [train.select(own) for own in users]
    model = federate(parts, epsilon)
    return [blended(part, held_out.select(own), model) for part, own in zip(parts, users, strict=True)]


def alone(everything: Interactions, seed: int) -> dict[str, dict[str, float]]:
    """Each local model on everybody's last item."""
    train, held_out = hold_out(everything, "last", seed=seed)
    found = {}
    for name, model in LocalModels.fit(train.matrix()).scorers().items():
        values = per_user_metrics(rank(model, train, held_out))
        found[name] = {metric: float(values[metric].mean()) for metric in ("hit_rate@10", "ndcg@10")}
    return found


def show(result: dict[str, Any], page: Page) -> None:
    """Both tables."""
    columns = list(result["federations"][0][0][METRIC])
    rows = []
    for silo, name in enumerate(SILOS):
        records = [seed[silo] for seed in result["federations"]]
        means = {column: np.mean([record[METRIC][column] for record in records]) for column in columns}
        people = round(float(np.mean([record["users"] for record in records])))
        rows.append([name, f"{people:,}", *(f"{means[column]:.4f}" for column in columns)])
    seeds = len(result["federations"])
    page.table(
        f"{METRIC} on {result['set']}, epsilon {result['epsilon']:g}, mean of {seeds} seeds",
        ["silo", "people", *columns],
        rows,
    )
    gains = [
        record[METRIC][BLEND] - max(value for name, value in record[METRIC].items() if name != BLEND)
        for seed in result["federations"]
        for record in seed
    ]
    page.say(
        f"The blend against the best single model of the same silo and seed: {np.mean(gains):+.4f} on "
        f"average, {min(gains):+.4f} at worst; better in {sum(gain > 0 for gain in gains)} of {len(gains)}."
    )
    page.table(
        f"last item of movielens-100k, one silo, mean ± spread of {len(result['alone'])} seeds",
        ["model", "hit_rate@10", "ndcg@10"],
        [
            [name, *(_mean(result["alone"], name, metric) for metric in ("hit_rate@10", "ndcg@10"))]
            for name in result["alone"][0]
        ],
    )


def _mean(records: Sequence[dict[str, dict[str, float]]], name: str, metric: str) -> str:
    values = [record[name][metric] for record in records]
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of both sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--set", default="movielens-1m", help="the federation's")
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3)
    add_json_option(parser, "local_blend")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    command = f"python benchmarks/local_blend.py --epsilon {asked.epsilon:g} --seeds {asked.seeds}"
    result = header("local_blend", command) | {"set": asked.set, "epsilon": asked.epsilon}
    everything, small = read(root / asked.set), read(root / "movielens-100k")
    seeds = range(asked.seeds)
    result["federations"] = [federation(everything, asked.epsilon, seed) for seed in seeds]
    result["alone"] = [alone(small, seed) for seed in seeds]
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
