"""Items that nobody has touched: can a federation that learns over texts rank them?

movielens-100k, 250 items out of all rows, four silos. For everybody with one of the 250, one of them (by
seed) is to be found among the 250, from the history over the other items: by chance hit_rate@10 is 0.04.
*One list*: every silo ranks all other items. *Own lists*: each silo has a quarter of them, and no item is in
two. The rounds are a job's, with its noise, without its encryption. Text is title and genres.

    ARCHIPEL_DATA=PATH python benchmarks/cold_items.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import schedule
from silo.data.catalogue import Catalogue
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import load_public_set
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles
from silo.language.places import vectors_of
from silo.language.space import PlacedCatalogue, Space
from silo.language.store import packaged_encoder
from silo.models.base import State, get_family
from silo.tasks import add_noise

SET, SILOS, NUM_COLD, TOP = "movielens-100k", ("a", "b", "c", "d"), 250, 10
DELTA = 1e-5
NO_NOISE = "no privacy"


def draft(catalogue: Catalogue, encoder_sha256: str, epsilon: float, people: int) -> Plan:
    """A language plan whose model reads no order; people are in one silo each."""
    return complete_plan(
        Draft(
            silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), family="language",
            architecture="bottleneck", encoder_sha256=encoder_sha256, target_epsilon=epsilon,
            target_delta=DELTA, max_silos_per_user=1, max_interactions_per_user=200,
            max_users_per_silo=people,
        )
    )  # fmt: skip


def over(items: PlacedCatalogue, chosen: np.ndarray) -> PlacedCatalogue:
    """Some of the items, where they stand."""
    return PlacedCatalogue(
        tuple(items.items[index] for index in chosen), items.places[chosen], items.space_sha256
    )


def seen(everything: Interactions, users: np.ndarray, items: PlacedCatalogue) -> Interactions:
    """The rows of some people over some items."""
    own = everything.select(users.tolist())
    position = {item_id: index for index, item_id in enumerate(items.item_ids)}
    place = [position.get(item_id, -1) for item_id in everything.catalogue.item_ids]
    frame = own.frame.with_columns(
        pl.Series("item_index", np.array(place)[own.frame["item_index"].to_numpy()])
    )
    return Interactions(own.user_ids, frame.filter(pl.col("item_index") >= 0), items)


def train(plan: Plan, rows: Sequence[Interactions], *, is_noised: bool) -> State:
    """The checkpoint of the plan's rounds, each silo over its own list."""
    families = [get_family(plan)(plan, own.catalogue) for own in rows]
    state = families[0].initial_state()
    for index, shape in enumerate(schedule(plan)):
        sums = np.zeros(shape.values, dtype=np.int64)
        for family, own in zip(families, rows, strict=True):
            signal = family.contribute(own, state, index, shape)
            sums += add_noise(signal, shape, len(rows)).values if is_noised else signal
        state = families[0].absorb(state, sums, index, shape, len(rows))
    checkpoint = families[0].checkpoint(state)
    if checkpoint is None:
        raise AssertionError("a language model has weights")
    return checkpoint


def found(
    plan: Plan, weights: State | None, rows: Sequence[Interactions], cold: PlacedCatalogue,
    wanted: Sequence[np.ndarray],
) -> float:  # fmt: skip
    """hit_rate@10 of the wanted cold item of each person, from the weights or, without, from the plan's seed.

    Both lists stand in one table: a history is over the warm items, the ranking over the cold ones alone.
    """
    hits = []
    for own, targets in zip(rows, wanted, strict=True):
        warm = own.catalogue
        if not isinstance(warm, PlacedCatalogue):
            raise AssertionError("rows are over placed items")
        both = sorted(zip((*warm.items, *cold.items), np.vstack([warm.places, cold.places]), strict=True),
                      key=lambda pair: pair[0].item_id)  # fmt: skip
        joint = PlacedCatalogue(
            tuple(item for item, _ in both), np.array([place for _, place in both]), cold.space_sha256
        )
        family = get_family(plan)(plan, joint, start=weights)
        histories = seen(own, np.arange(own.num_users), joint).matrix()
        at = np.array([joint.index(item_id) for item_id in cold.item_ids])
        scores = family.finish(family.initial_state()).scores(histories)[:, at]
        has = targets >= 0
        target = scores[np.flatnonzero(has), targets[has]]
        hits.append((scores[has] > target[:, None]).sum(axis=1) < TOP)
    return float(np.concatenate(hits).mean())


def one_seed(
    everything: Interactions, items: PlacedCatalogue, epsilons: Sequence[float], encoder: str, seed: int
) -> dict[str, dict[str, float]]:
    """hit_rate@10 by kind of lists and by promise."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(items))
    cold, warm = over(items, np.sort(order[:NUM_COLD])), np.sort(order[NUM_COLD:])
    silo_of = rng.integers(len(SILOS), size=everything.num_users)
    users = [np.flatnonzero(silo_of == silo) for silo in range(len(SILOS))]
    touched = seen(everything, np.arange(everything.num_users), cold).matrix()
    ones = [touched[user].indices for user in range(everything.num_users)]
    target = np.array([rng.choice(own) if own.size else -1 for own in ones])
    quarters = np.array_split(rng.permutation(warm), len(SILOS))
    lists = {"one list": [warm] * len(SILOS), "own lists": [np.sort(own) for own in quarters]}
    people = max(len(own) for own in users)
    measured = {}
    for name, chosen in lists.items():
        rows = [seen(everything, own, over(items, part)) for own, part in zip(users, chosen, strict=True)]
        plans = {f"epsilon {epsilon:g}": draft(items, encoder, epsilon, people) for epsilon in epsilons}
        first = next(iter(plans.values()))
        wanted = [target[own] for own in users]
        measured[name] = {"untrained": found(first, None, rows, cold, wanted)}
        for promise, plan in plans.items():
            weights = train(plan, rows, is_noised=True)
            measured[name][promise] = found(plan, weights, rows, cold, wanted)
        weights = train(first, rows, is_noised=False)
        measured[name][NO_NOISE] = found(first, weights, rows, cold, wanted)
    return measured


def show(result: dict[str, Any], page: Page) -> None:
    """One row a promise."""
    first, seeds = result["seeds"][0], result["seeds"]
    cells = [
        [promise, *(f"{np.mean([one[name][promise] for one in seeds]):.3f} ± "
                    f"{np.std([one[name][promise] for one in seeds]):.3f}" for name in first)]
        for promise in first["one list"]
    ]  # fmt: skip
    page.table(
        f"hit_rate@10 of {NUM_COLD} cold items among themselves, {SET}, seeds: {len(seeds)}",
        ["weights", *first],
        [["chance", *[f"{TOP / NUM_COLD:.3f}"] * len(first)], *cells],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the set; default: $ARCHIPEL_DATA")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[2.0, 8.0])
    parser.add_argument("--seeds", type=int, default=3)
    add_json_option(parser, "cold_items")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    packaged = packaged_encoder()
    if root is None or packaged is None:
        sys.stderr.write("name the folder of the set: --data, ARCHIPEL_DATA; install archipel[language]\n")
        return 2
    epsilons = " ".join(f"{epsilon:g}" for epsilon in asked.epsilon)
    command = f"python benchmarks/cold_items.py --epsilon {epsilons} --seeds {asked.seeds}"
    public, files = load_public_set(root / SET), EncoderFiles.check(packaged)
    everything, _ = clean(public.rows, public.catalogue, max_interactions_per_user=len(public.catalogue))
    with TemporaryDirectory() as scratch:
        vectors = vectors_of(Path(scratch), files.sha256, public.catalogue, lambda: TextEncoder(files))
    plan = draft(public.catalogue, files.sha256, 1.0, everything.num_users)
    if plan.model.family != "language":
        raise AssertionError("the plan is of family language")
    places = Space.fit(vectors, plan.model.dimensions).place(vectors)
    items = PlacedCatalogue(public.catalogue.items, places, "00" * 32)
    result = header("cold_items", command)
    result["seeds"] = [
        one_seed(everything, items, asked.epsilon, files.sha256, seed) for seed in range(asked.seeds)
    ]
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
