"""Choose the constants of a silo's local network, on public data that no result is reported on.

Two sets only: the synthetic marketplace and movielens-latest-small, the newest item of everybody held out.
Each constant is varied alone, around the defaults in the code; one is replaced only by a value that is better
by ``MARGIN`` in the mean over both sets and all seeds, so that chance does not choose. Qualities are relative
to the defaults of the same set and seed: what is easy to rank weighs no more.

    ARCHIPEL_DATA=PATH python benchmarks/choose_local_sequence_defaults.py
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reporting import RESULTS, Terminal, header, write

from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import PublicSet, load_public_set
from silo.data.splits import hold_out
from silo.data.synthetic import marketplace
from silo.evaluation import per_user_metrics, rank
from silo.local.sequence_training import SequenceOptions, fit_sequence

SET = "movielens-latest-small"
METRIC = "ndcg@10"
DEFAULTS = "defaults"
MARGIN = 0.05
"""A relative gain: about the standard error of one set's mean."""
GRID: dict[str, tuple[Any, ...]] = {
    "width": (32, 64),
    "layers": (1, 2),
    "places": (20, 30, 50),
    "dropout": (0.1, 0.3, 0.5),
    "learning_rate": (1e-3, 3e-3),
}


def candidates(seed: int) -> Iterator[tuple[str, SequenceOptions]]:
    """Yield the code's defaults and each change of one of them."""
    base = SequenceOptions(seed=seed)
    yield DEFAULTS, base
    for name, values in GRID.items():
        for value in values:
            if value != getattr(base, name):
                changes: dict[str, Any] = {name: value}
                yield f"{name}={value}", replace(base, **changes)


def split(public: PublicSet) -> tuple[Interactions, Interactions]:
    """What is learnt from, and everybody's newest item."""
    everything, _ = clean(public.rows, public.catalogue, max_interactions_per_user=len(public.catalogue))
    return hold_out(everything, "last", seed=0)


def quality(train: Interactions, held_out: Interactions, options: SequenceOptions) -> float:
    """Mean ``METRIC`` of a network trained on one set."""
    histories = train.histories()
    popularity = np.asarray(histories.sum(axis=0), dtype=np.float32).ravel()
    model = fit_sequence(histories, popularity, options)
    return float(per_user_metrics(rank(model, train, held_out))[METRIC].mean())


def gains(cells: dict[str, dict[str, float]]) -> dict[str, float]:
    """Candidate -> mean relative gain over the defaults of the same cell."""
    base = cells[DEFAULTS]
    return {
        label: round(float(np.mean([found[cell] / base[cell] - 1 for cell in found])), 4)
        for label, found in cells.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default=str(RESULTS / "local_sequence_defaults.json"))
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    started = time.process_time()
    command = f"python benchmarks/choose_local_sequence_defaults.py --seeds {asked.seeds}"
    result = header("local_sequence_defaults", command)
    cells: dict[str, dict[str, float]] = {}
    for public in (marketplace(0), load_public_set(root / SET)):
        train, held_out = split(public)
        for seed in range(asked.seeds):
            cell = f"{public.name}/seed {seed}"
            for label, options in candidates(seed):
                cells.setdefault(label, {})[cell] = quality(train, held_out, options)
                Terminal(asked.out).say(f"{cell}, {label}: {cells[label][cell]:.4f}")
    found = gains(cells)
    better = {label: gain for label, gain in found.items() if gain >= MARGIN}
    result |= {
        "metric": METRIC,
        "margin": MARGIN,
        "defaults": SequenceOptions().as_json(),
        "cells": cells,
        "gains": found,
        "better_than_the_defaults": better,
        "processor_minutes": round((time.process_time() - started) / 60, 1),
    }
    write(result, asked.out)
    Terminal(asked.out).table(
        "gain over the defaults", ["change", "gain"], [[k, f"{v:+.3f}"] for k, v in found.items()]
    )
    return 1 if better else 0


if __name__ == "__main__":
    sys.exit(main())
