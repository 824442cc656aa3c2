"""Choose the autoencoder's defaults, on synthetic marketplaces that no result is reported on.

Each constant is varied alone, around those of ``policies/plans/recipes.py`` and
``silo/models/autoencoder.py``; one is replaced only by a value that is better by ``MARGIN`` in the mean
over all cells: by more than runs of the same plan differ. The production family trains on the production
schedule, on pooled rows, with the noise that the shares of four silos add up to (one colluding silo
covered). The result says what was tried and whether the code's constants are the chosen ones.

    python benchmarks/choose_autoencoder_defaults.py
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.recipes import RECIPES
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import PublicSet
from silo.data.splits import split
from silo.data.synthetic import marketplace
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import fast_metrics, rank
from silo.models import autoencoder
from silo.models.recommender import Recommender

RESULTS = Path(__file__).parent / "results" / "autoencoder_defaults.json"
METRIC = "ndcg@20"
MARGIN = 0.005
CAP = 200
DELTA = 1e-5
SILOS = ("a", "b", "c", "d")
USERS = 4096
CELLS = ((0, 2.0), (1, 4.0), (2, 2.0))  # marketplace, epsilon
RECIPE = RECIPES["autoencoder"]

# In the plan: a plan may say otherwise.
PLAN_GRID: dict[str, tuple[Any, ...]] = {
    "features": (40,),
    "hidden": (16, 64),
    "input_dropout": (0.0, 0.2, 0.6),
    "popularity_share": (0.1, 0.4),
    "rounds": (30, 120),
    "learning_rate": (0.015, 0.06),
    "decay": ("none",),
    "second_moment_decay": (0.95, 0.999),
    "clipping": ("flat",),
}
# In the code.
CODE_GRID: dict[str, tuple[float, ...]] = {
    "POPULARITY_POWER": (0.0, 0.5),
    "DECODER_SCALE": (0.03, 0.3),
}


@dataclass(frozen=True)
class Bench:
    """One marketplace, split."""

    train: Interactions
    capped: Interactions
    held_out: Interactions

    @classmethod
    def of(cls, public: PublicSet) -> Bench:
        """Hold out a fifth of everybody's rows; cap what is trained on, as an agent does."""
        rows, held = split(public.rows, "random", 0.2, 0)
        everything = len(public.catalogue)
        train, _ = clean(rows, public.catalogue, max_interactions_per_user=everything)
        held_out, _ = clean(held, public.catalogue, max_interactions_per_user=everything)
        capped, _ = clean(rows, public.catalogue, max_interactions_per_user=CAP)
        return cls(train, capped, held_out)

    def quality(self, model: Recommender) -> float:
        """Rank everybody's unseen items with ``model``."""
        return fast_metrics(rank(model, self.train, self.held_out))[METRIC]

    def plan(self, epsilon: float, changes: dict[str, Any]) -> Plan:
        """What ``archipel plan new`` writes, with some fields changed."""
        fields = dict(changes)
        if "popularity_share" in fields:
            fields["bias_epsilon"] = fields.pop("popularity_share") * epsilon
        draft = Draft(
            silos=SILOS,
            catalogue_sha256=self.capped.catalogue.sha256,
            catalogue_items=self.capped.num_items,
            family="autoencoder",
            target_epsilon=epsilon,
            target_delta=DELTA,
            max_users_per_silo=math.ceil(self.capped.num_users / len(SILOS)),
            max_silos_per_user=1,
            **fields,
        )
        return complete_plan(draft)

    def score(self, epsilon: float, changes: dict[str, Any]) -> float:
        """Learn once, with the noise of all silos' shares together."""
        plan = self.plan(epsilon, changes)
        noise = math.sqrt(len(SILOS))
        return self.quality(simulate(Simulation(plan, (self.capped,), len(SILOS), noise, is_clamped=True)))

    def popularity(self) -> float:
        """Rank by how often an item occurs, without noise."""
        counts = np.bincount(self.train.frame["item_index"].to_numpy(), minlength=self.train.num_items)
        return self.quality(Recommender.of_popularity(counts.astype(np.float32), {}, is_fallback=False))


@contextmanager
def code_with(**constants: float) -> Iterator[None]:
    """Change constants of the code for a while."""
    kept = {name: getattr(autoencoder, name) for name in constants}
    for name, value in constants.items():
        setattr(autoencoder, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(autoencoder, name, value)


def candidates() -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
    """Yield label, changed fields of the plan, changed constants of the code."""
    yield "defaults", {}, {}
    yield "defaults, other noise", {}, {}
    for name, values in PLAN_GRID.items():
        yield from ((f"{name}={value}", {name: value}, {}) for value in values)
    for name, constants in CODE_GRID.items():
        yield from ((f"{name}={value}", {}, {name: value}) for value in constants)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started, cpu = time.monotonic(), time.process_time()
    benches = {seed: Bench.of(marketplace(seed, num_users=USERS)) for seed, _ in CELLS}
    cells: dict[str, dict[str, float]] = {}
    for label, changes, constants in candidates():
        with code_with(**constants):
            cells[label] = {
                f"marketplace-{seed}/epsilon {epsilon:g}": round(benches[seed].score(epsilon, changes), 5)
                for seed, epsilon in CELLS
            }
        print(f"{label}: {cells[label]}", flush=True)
    means = {label: round(float(np.mean(list(found.values()))), 5) for label, found in cells.items()}
    again = [means.pop("defaults"), means.pop("defaults, other noise")]
    base = round(float(np.mean(again)), 5)
    better = {label: round(mean - base, 5) for label, mean in means.items() if mean >= base + MARGIN}
    report = {
        "sets": [f"marketplace-{seed}, {USERS} users" for seed in benches],
        "metric": METRIC,
        "margin": MARGIN,
        "defaults": {
            **{name: getattr(RECIPE, name) for name in PLAN_GRID},
            **{name: getattr(autoencoder, name) for name in CODE_GRID},
        },
        "popularity": {f"marketplace-{seed}": round(b.popularity(), 5) for seed, b in benches.items()},
        "defaults_twice": again,
        "means": means,
        "better_than_the_defaults": better,
        "cells": cells,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(
        json.dumps({key: report[key] for key in ("means", "better_than_the_defaults", "seconds")}, indent=2)
    )
    return 1 if better else 0


if __name__ == "__main__":
    sys.exit(main())
