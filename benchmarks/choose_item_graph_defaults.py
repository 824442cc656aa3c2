"""Choose the item graph's post-processing defaults, on public data that no result is reported on.

Two sets only: the synthetic marketplace and movielens-latest-small. Each constant is varied alone, around the
defaults in the code; one is replaced only by a value that is better by ``MARGIN`` in the mean over both sets
(each over epsilons and noise seeds), so that chance does not choose. Noise is simulated with numpy: nothing
private is at stake. The result says what was tried and whether the code's constants are the chosen ones.

    python benchmarks/choose_item_graph_defaults.py --data PATH/movielens-latest-small
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from privacy.budget import ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import PublicSet, load_public_set
from silo.data.splits import split
from silo.data.synthetic import marketplace
from silo.evaluation import fast_metrics, rank
from silo.models.base import user_weights
from silo.models.denoising import DenoiseSettings, denoise
from silo.models.item_graph import (
    EXACT_RIDGE,
    ItemGraphSettings,
    exact_ease,
    factored_ease,
    score_scale,
    symmetric_gram,
    triangle_sums,
)
from silo.models.recommender import Recommender

RESULTS = Path(__file__).parent / "results" / "item_graph_defaults.json"
METRIC = "ndcg@20"
MARGIN = 0.001
GRID = 4096
CAP = 200
DELTA = 1e-5
NOISE_GROWTH = sqrt(4 / 3)  # four silos, one colluding

DENOISE_GRID: dict[str, tuple[Any, ...]] = {
    "popularity_sweeps": (0, 1, 2),
    "popularity_power": (0.7, 1.0, 1.5),
    "max_communality": (0.8, 0.95),
    "steps": (20, 40),
}
SCORE_GRID: dict[str, tuple[Any, ...]] = {
    "ridge": (1.0, 2.0, 4.0),
    "min_uniqueness": (0.02, 0.1),
    "popularity_discount": (0.0, 0.1, 0.2, 0.3),
}
EXACT_RIDGES = (8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Bench:
    """One set, split and summed, with the noise it is tried at."""

    name: str
    train: Interactions
    held_out: Interactions
    sums: np.ndarray
    epsilons: tuple[float, ...]
    noise_seeds: tuple[int, ...]

    def quality(self, model: Recommender) -> float:
        """Rank everybody's unseen items with ``model``."""
        return fast_metrics(rank(model, self.train, self.held_out))[METRIC]

    def cells(self) -> Iterator[tuple[str, float, np.ndarray]]:
        """Yield a label, the noise's standard deviation and a noised Gram for every (epsilon, seed)."""
        for epsilon in self.epsilons:
            sigma = calibrate_noise_multiplier(epsilon, DELTA, ZcdpFilter(kind="zcdp"), releases=1)
            std = sigma * NOISE_GROWTH
            for seed in self.noise_seeds:
                noise = np.random.default_rng(seed).standard_normal(len(self.sums)) * std * GRID
                gram = symmetric_gram(self.sums + np.rint(noise).astype(np.int64), GRID)
                yield f"{self.name}/epsilon {epsilon:g}/seed {seed}", std, gram


def make_bench(public: PublicSet, epsilons: tuple[float, ...], noise_seeds: tuple[int, ...]) -> Bench:
    rows, held = split(public.rows, "random", 0.2, 0)
    everything = len(public.catalogue)
    train, _ = clean(rows, public.catalogue, max_interactions_per_user=everything)
    held_out, _ = clean(held, public.catalogue, max_interactions_per_user=everything)
    capped, _ = clean(rows, public.catalogue, max_interactions_per_user=CAP)
    histories = capped.matrix()
    weights = user_weights("item-graph", GRID, np.diff(histories.indptr))
    return Bench(public.name, train, held_out, triangle_sums(histories, weights), epsilons, noise_seeds)


def candidates() -> Iterator[tuple[str, ItemGraphSettings]]:
    """Yield the code's defaults and each change of one of them, those that share a denoising together."""
    base = ItemGraphSettings()
    yield "defaults", base
    for name, values in SCORE_GRID.items():
        for value in values:
            if value != getattr(base, name):
                changes: dict[str, Any] = {name: value}
                yield f"{name}={value}", replace(base, **changes)
    for name, values in DENOISE_GRID.items():
        for value in values:
            if value != getattr(base.denoise, name):
                changes = {name: value}
                yield f"{name}={value}", replace(base, denoise=replace(base.denoise, **changes))


def model_of(gram: np.ndarray, left: np.ndarray, right: np.ndarray, popularity: np.ndarray) -> Recommender:
    return Recommender(
        left=left.astype(np.float32),
        right=right.astype(np.float32),
        bias=np.zeros(len(gram), np.float32),
        popularity=popularity.astype(np.float32),
    )


def try_bench(bench: Bench) -> dict[str, dict[str, float]]:
    """Candidate -> cell -> quality."""
    found: dict[str, dict[str, float]] = {}
    features = bench.train.catalogue.features()
    for cell, std, gram in bench.cells():
        known: tuple[DenoiseSettings, Any] | None = None
        for label, settings in candidates():
            if known is None or known[0] != settings.denoise:
                known = settings.denoise, denoise(gram, std, features, settings=settings.denoise)
            left, right = factored_ease(known[1], settings)
            right *= score_scale(known[1].diagonal, settings.popularity_discount)[:, None]
            quality = bench.quality(model_of(gram, left, right, known[1].diagonal))
            found.setdefault(label, {})[cell] = quality
        print(f"  {cell}: {found['defaults'][cell]:.4f}", flush=True)
    return found


def try_exact(bench: Bench) -> dict[str, dict[str, float]]:
    """Quality of EASE without noise, by ridge."""
    gram = symmetric_gram(bench.sums, GRID)
    return {f"{ridge:g}": {bench.name: bench.quality(exact_ease(gram, ridge))} for ridge in EXACT_RIDGES}


def merged(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {label: {cell: q for table in tables for cell, q in table[label].items()} for label in tables[0]}


def means(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean over sets of the mean over a set's cells, for every label."""
    found = {}
    for label, cells in table.items():
        by_set: dict[str, list[float]] = {}
        for cell, quality in cells.items():
            by_set.setdefault(cell.split("/")[0], []).append(quality)
        found[label] = round(float(np.mean([np.mean(values) for values in by_set.values()])), 5)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of movielens-latest-small")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.monotonic()
    if "1m" in arguments.data.name:
        parser.error("results are reported on movielens-1m, so nothing is chosen on it")
    benches = [
        make_bench(marketplace(0), (2.0, 4.0, 8.0), (1, 2)),
        make_bench(load_public_set(arguments.data, "movielens"), (4.0, 8.0), (1,)),
    ]
    noised = merged([try_bench(bench) for bench in benches])
    exact = merged([try_exact(bench) for bench in benches])
    noised_means, exact_means = means(noised), means(exact)
    better = {
        label: round(quality - noised_means["defaults"], 5)
        for label, quality in noised_means.items()
        if quality >= noised_means["defaults"] + MARGIN
    }
    best_ridge = float(max(exact_means, key=lambda label: exact_means[label]))
    report = {
        "sets": [bench.name for bench in benches],
        "metric": METRIC,
        "margin": MARGIN,
        "defaults": {**asdict(ItemGraphSettings()), "exact_ridge": EXACT_RIDGE},
        "means": noised_means,
        "better_than_the_defaults": better,
        "cells": {label: {cell: round(q, 5) for cell, q in cells.items()} for label, cells in noised.items()},
        "exact": {"means": exact_means, "best": best_ridge, "cells": exact},
        "seconds": round(time.monotonic() - started, 1),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(
        json.dumps({key: report[key] for key in ("means", "better_than_the_defaults", "seconds")}, indent=2)
    )
    print(json.dumps(exact_means))
    return 1 if better or best_ridge != EXACT_RIDGE else 0


if __name__ == "__main__":
    sys.exit(main())
