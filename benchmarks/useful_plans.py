"""From how many people on a plan is worth its epsilon: the runs behind ``docs/explanation-useful-plans.md``.

    python benchmarks/useful_plans.py FOLDER --family item-graph --people 500,1000,2000 --epsilon 1,2,4

Random subsets of a public set's users, four silos with one colluder, learned by the production family on
the schedule of ``archipel plan new``, with the noise of the federation's aggregate; NDCG@20 beside the list
of what is popular. One run each.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.prospects import need_of
from silo.data.interactions import Interactions
from silo.demo.dataset import DemoData, load_set, prepare
from silo.demo.settings import DemoSettings
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import rank, reported_metrics
from silo.models.recommender import Recommender

SILOS = ("a", "b", "c", "d")
DELTA = 1e-5
SEED = 0
ROW = "| {family} | {people:,} | {epsilon:g} | {needed:,} | {score:.3f} | {popularity:.3f} |"


def read(folder: Path) -> DemoData:
    """The set, split as in the demo."""
    settings = DemoSettings(
        data=folder, format=None, min_rating=None, num_silos=len(SILOS), epsilon=1.0, delta=DELTA,
        colluding_silos=1, family="item-graph", split="random", seed=SEED, num_seeds=1, out=Path(),
    )  # fmt: skip
    return prepare(settings, load_set(settings, SEED), SEED)


def plan_for(family: Any, people: int, epsilon: float, data: DemoData) -> Plan:
    """What ``plan new`` writes for so many people, all of them in the bounds."""
    draft = Draft(
        silos=SILOS, catalogue_sha256=data.catalogue.sha256, catalogue_items=len(data.catalogue),
        family=family, target_epsilon=epsilon, target_delta=DELTA,
        max_users_per_silo=math.ceil(people / len(SILOS)),
        max_silos_per_user=1,
    )  # fmt: skip
    return complete_plan(draft)


def score(model: Recommender, train: Interactions, held_out: Interactions) -> float:
    """NDCG@20."""
    return reported_metrics(rank(model, train, held_out))["ndcg@20"]


def measure(family: str, people: int, epsilon: float, data: DemoData) -> str:
    """One line of the table."""
    users = np.sort(np.random.default_rng(SEED).permutation(data.train.num_users)[:people])
    train, held_out = data.train.select(users), data.held_out.select(users)
    plan = plan_for(family, people, epsilon, data)
    one_party = Simulation(plan, (train,), len(SILOS), math.sqrt(len(SILOS)), is_clamped=False)
    counts = np.bincount(train.frame["item_index"].to_numpy(), minlength=train.num_items)
    popular = Recommender.of_popularity(
        counts.astype(np.float32), {"family": "popularity"}, is_fallback=False
    )
    return ROW.format(
        family=family, people=people, epsilon=epsilon, needed=need_of(plan).people,
        score=score(simulate(one_party), train, held_out), popularity=score(popular, train, held_out),
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", default="item-graph")
    parser.add_argument("--people", default="500,1000,2000")
    parser.add_argument("--epsilon", default="1,2,4")
    asked = parser.parse_args()
    data = read(asked.folder)
    print("| family | people | epsilon | people needed | NDCG@20 | popularity |")
    print("|---|---:|---:|---:|---:|---:|")
    for people in map(int, asked.people.split(",")):
        for epsilon in map(float, asked.epsilon.split(",")):
            print(measure(asked.family, people, epsilon, data), flush=True)


if __name__ == "__main__":
    main()
