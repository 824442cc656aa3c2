"""What order is worth to a federation under differential privacy: the ``sequence`` family on a marketplace.

Synthetic people whose items of one taste fall into the same visits, in four taste-skewed silos; the last item
by time is held out, every unseen item competes. Sequence models are learnt by the production families on the
plan's own schedule (``silo.demo.simulation``), delta 1e-5, one colluding silo covered:

- ``federated``: the four silos' noised sum; ``alone``: each silo with all the noise by itself;
- ``warm``: federated, from a checkpoint that a *public* part of the people (an eighth, in no silo) made
  without noise; ``public part``: that checkpoint as it is;
- ``no privacy``: federated without noise; ``popularity``: exact counts of everybody.

    python benchmarks/sequence_marketplace.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.simulation import Simulation, learn, simulate
from silo.evaluation import Scorer, per_user_metrics, rank
from silo.models.base import State
from silo.models.recommender import Recommender

SILOS = ("a", "b", "c", "d")
COLLUDING = 1
DELTA = 1e-5
METRICS = ("hit_rate@10", "ndcg@10")
PUBLIC_SHARE = 8
"""One in so many people is public."""


def plan_of(parts: Sequence[Interactions], asked: argparse.Namespace, epsilon: float) -> Plan:
    """What the silos would agree on."""
    catalogue = parts[0].catalogue
    return complete_plan(
        Draft(
            silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), family="sequence",
            architecture=asked.architecture, hidden=16, places=asked.places, features=40, rounds=asked.rounds,
            target_epsilon=epsilon, target_delta=DELTA, max_silos_per_user=1, colluding_silos=COLLUDING,
            max_users_per_silo=max(part.num_users for part in parts),
            expected_batch_size=float(sum(part.num_users for part in parts)),
        )
    )  # fmt: skip


def measure(asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All models of one marketplace."""
    public = marketplace(seed, asked.users, asked.items)
    everything, _ = clean(public.rows, public.catalogue, max_interactions_per_user=200)
    train, held_out = hold_out(everything, "last", seed=seed)
    is_public = np.arange(train.num_users) % PUBLIC_SHARE == 0
    common, members = train.select(np.flatnonzero(is_public)), train.select(np.flatnonzero(~is_public))
    held_out = held_out.select(np.flatnonzero(~is_public))
    silo_of = partition_by_taste(members.matrix(), len(SILOS), seed)
    users = [np.flatnonzero(silo_of == silo) for silo in range(len(SILOS))]
    parts = tuple(members.select(own) for own in users)

    def figures(model: Scorer) -> dict[str, float]:
        values = per_user_metrics(rank(model, members, held_out))
        return {metric: float(values[metric].mean()) for metric in METRICS}

    counts = np.asarray(members.matrix().sum(axis=0), dtype=np.float32).ravel()
    found = {"popularity": figures(Recommender.of_popularity(counts, {}, is_fallback=False))}
    warm = _checkpoint(common, plan_of((common,) * len(SILOS), asked, 8.0))
    found["public part"] = figures(warm[1])
    for epsilon in asked.epsilons:
        plan = plan_of(parts, asked, epsilon)
        federated = Simulation(plan, parts, 1, 1.0, is_clamped=True)
        found[f"federated, epsilon {epsilon:g}"] = figures(simulate(federated))
        found[f"warm, epsilon {epsilon:g}"] = figures(simulate(replace(federated, start=warm[0])))
        alone = [
            simulate(replace(federated, parties=(part,), noise=sqrt(len(SILOS) - COLLUDING)))
            for part in parts
        ]
        found[f"alone, epsilon {epsilon:g}"] = _by_silo(alone, users, members, held_out)
    found["no privacy"] = figures(simulate(replace(federated, noise=0.0, is_clamped=False)))
    return {"seed": seed, "users": [part.num_users for part in parts], "models": found}


def _checkpoint(rows: Interactions, plan: Plan) -> tuple[State, Scorer]:
    """Weights that public people are trained to, without noise, and the model they make."""
    people = plan.training.model_copy(update={"expected_batch_size": float(len(SILOS) * rows.num_users)})
    plan = plan.model_copy(update={"training": people})
    family, state = learn(Simulation(plan, (rows,), 1, 0.0, is_clamped=False))
    return family.checkpoint(state) or {}, family.finish(state)


def _by_silo(
    models: Sequence[Scorer], users: Sequence[Any], train: Interactions, held_out: Interactions
) -> dict[str, float]:
    """Each silo's people ranked by its own model."""
    values = [
        per_user_metrics(rank(model, train.select(own), held_out.select(own)))
        for model, own in zip(models, users, strict=True)
    ]
    return {metric: float(np.concatenate([one[metric] for one in values]).mean()) for metric in METRICS}


def show(result: dict[str, Any], page: Page) -> None:
    """One table."""
    seeds = result["seeds"]
    rows = [
        [name, *(_spread([seed["models"][name][metric] for seed in seeds]) for metric in METRICS)]
        for name in seeds[0]["models"]
    ]
    size = f"{sum(seeds[0]['users']):,} people in four silos, {result['items']:,} items"
    page.table(
        f"last item on the marketplace, {result['architecture']}, {size}, {len(seeds)} "
        + ("seed" if len(seeds) == 1 else "seeds"),
        ["model", *METRICS],
        rows,
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values):.4f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=4_096)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--places", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--architecture", default="transformer")
    add_json_option(parser, "sequence_marketplace")
    words = sys.argv[1:] if arguments is None else list(arguments)
    asked = parser.parse_args(words)
    start = time.process_time()
    result = header("sequence_marketplace", " ".join(["python benchmarks/sequence_marketplace.py", *words]))
    result |= {"architecture": asked.architecture, "items": asked.items}
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    result["seeds"] = [measure(asked, seed) for seed in seeds]
    result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
