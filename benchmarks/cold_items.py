"""Items that nobody has touched: can a federation that learns over texts rank them?

movielens-100k, 250 items out of all rows. For everybody with one of the 250, one of them (by seed) is to be
found among the 250, from the history over the other items: by chance hit_rate@10 is 0.04. *One list*: every
silo ranks all other items. *Own lists*: each silo has a part of them, and no item is in two. *Alone*: each of
the two silos trains by itself, with the same people, list, method, first weights and promise; it pays the
whole noise. The rounds are a job's, with its noise, without its encryption. Text is title and genres.

    ARCHIPEL_DATA=PATH python benchmarks/cold_items.py
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
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
from silo.data.public_sets import load_public_set
from silo.demo.simulation import Simulation, learn
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles
from silo.language.places import vectors_of
from silo.language.space import PlacedCatalogue, Space
from silo.language.store import packaged_encoder
from silo.models.base import State, get_family

SET, NUM_COLD, TOP = "movielens-100k", 250, 10
DELTA, DIMENSIONS = 1e-5, 32
NO_NOISE, UNTRAINED = "no privacy", "untrained"
ONE, OWN, HALVES, ALONE = "4 silos, one list", "4 silos, own lists", "2 silos, own lists", "alone, own lists"
COLD_TARGET = 0.10


@dataclass(frozen=True)
class Scene:
    """Who has which rows of one seed.

    Attributes:
        rows: of each silo, over the items it ranks.
        wanted: by silo, the cold item of each person; -1 where there is none.
        is_alone: whether each silo learns from its own rows only.
    """

    rows: tuple[Interactions, ...]
    wanted: tuple[np.ndarray, ...]
    is_alone: bool = False


def draft(
    catalogue: Catalogue, encoder_sha256: str, architecture: str, epsilon: float, rows: Sequence[Interactions]
) -> Plan:
    """What ``plan new`` would write; people are in one silo each."""
    return complete_plan(
        Draft(
            silos=tuple(f"shop-{number}" for number in range(len(rows))),
            catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), family="language",
            architecture=architecture, encoder_sha256=encoder_sha256, text_dimensions=DIMENSIONS,
            target_epsilon=epsilon, target_delta=DELTA, max_silos_per_user=1,
            max_users_per_silo=max(own.num_users for own in rows),
        )
    )  # fmt: skip


def part_of(items: PlacedCatalogue, chosen: np.ndarray) -> PlacedCatalogue:
    """Some of the items, where they stand."""
    return PlacedCatalogue(
        tuple(items.items[index] for index in chosen), items.places[chosen], items.space_sha256
    )


def train(plan: Plan, scene: Scene, *, is_noised: bool) -> list[State]:
    """Weights that each silo ends with; alone, each pays what the shares of noise add up to."""
    parties = [(own,) for own in scene.rows] if scene.is_alone else [scene.rows]
    noise = (sqrt(plan.num_noise_shares) if scene.is_alone else 1.0) if is_noised else 0.0
    found = [_weights(Simulation(plan, rows, 1, noise, is_clamped=is_noised)) for rows in parties]
    return found if scene.is_alone else found * len(scene.rows)


def _weights(simulation: Simulation) -> State:
    families, state = learn(simulation)
    weights = families[0].checkpoint(state)
    if weights is None:
        raise AssertionError("a language model has weights")
    return weights


def hit_rate(plan: Plan, weights: Sequence[State | None], scene: Scene, cold: PlacedCatalogue) -> float:
    """hit_rate@10 of everybody's wanted item, from their silo's weights or, without, from the plan's seed.

    Both lists stand in one table: a history is over the warm items, the ranking over the cold ones alone.
    """
    hits = []
    for own, targets, learnt in zip(scene.rows, scene.wanted, weights, strict=True):
        joint = joined(PlacedCatalogue.of(own.catalogue), cold)
        family = get_family(plan)(plan, joint, start=learnt)
        histories = own.over(joint).histories()
        at = np.array([joint.index(item_id) for item_id in cold.item_ids])
        scores = family.finish(family.initial_state()).scores(histories)[:, at]
        has = targets >= 0
        target = scores[np.flatnonzero(has), targets[has]]
        hits.append((scores[has] > target[:, None]).sum(axis=1) < TOP)
    return float(np.concatenate(hits).mean())


def joined(warm: PlacedCatalogue, cold: PlacedCatalogue) -> PlacedCatalogue:
    """Both lists as one, in the order of ids."""
    both = sorted(
        zip((*warm.items, *cold.items), np.vstack([warm.places, cold.places]), strict=True),
        key=lambda pair: pair[0].item_id,
    )
    return PlacedCatalogue(
        tuple(item for item, _ in both), np.array([place for _, place in both]), cold.space_sha256
    )


def scenes(
    everything: Interactions, items: PlacedCatalogue, seed: int
) -> tuple[dict[str, Scene], PlacedCatalogue]:
    """All scenes of one seed, and its cold items."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(items))
    cold, warm = part_of(items, np.sort(order[:NUM_COLD])), np.sort(order[NUM_COLD:])
    touched = everything.over(cold).matrix()
    ones = [touched[user].indices for user in range(everything.num_users)]
    target = np.array([rng.choice(own) if own.size else -1 for own in ones])

    def scene(num_silos: int, lists: Sequence[np.ndarray]) -> Scene:
        silo_of = np.random.default_rng([seed, num_silos]).integers(num_silos, size=everything.num_users)
        users = [np.flatnonzero(silo_of == silo) for silo in range(num_silos)]
        rows = (
            everything.select(own).over(part_of(items, np.sort(chosen)))
            for own, chosen in zip(users, lists, strict=True)
        )
        return Scene(tuple(rows), tuple(target[own] for own in users))

    shuffled = rng.permutation(warm)
    halves = scene(2, np.array_split(shuffled, 2))
    return {
        ONE: scene(4, [warm] * 4),
        OWN: scene(4, np.array_split(shuffled, 4)),
        HALVES: halves,
        ALONE: replace(halves, is_alone=True),
    }, cold


def one_seed(
    everything: Interactions,
    items: PlacedCatalogue,
    asked: argparse.Namespace,
    encoder: str,
    architecture: str,
    seed: int,
) -> dict[str, dict[str, float]]:
    """hit_rate@10 by scene and by promise."""
    played, cold = scenes(everything, items, seed)
    measured = {}
    for name, scene in played.items():
        plans = {
            epsilon: draft(everything.catalogue, encoder, architecture, epsilon, scene.rows)
            for epsilon in asked.epsilon
        }
        first = next(iter(plans.values()))
        found = {UNTRAINED: hit_rate(first, [None] * len(scene.rows), scene, cold)}
        for epsilon, plan in plans.items():
            found[f"epsilon {epsilon:g}"] = hit_rate(plan, train(plan, scene, is_noised=True), scene, cold)
        found[NO_NOISE] = hit_rate(first, train(first, scene, is_noised=False), scene, cold)
        measured[name] = found
    return measured


def show(result: dict[str, Any], page: Page) -> None:
    """A table for each architecture, then what was aimed at."""
    by_architecture = result["architectures"]
    for architecture, seeds in by_architecture.items():
        names, promises = list(seeds[0]), list(seeds[0][ONE])
        cells = [
            [promise, *(_spread([seed[name][promise] for seed in seeds]) for name in names)]
            for promise in promises
        ]
        page.table(
            f"hit_rate@10 of {NUM_COLD} cold items among themselves, {SET}, {architecture}, "
            f"seeds: {len(seeds)}",
            ["weights", *names],
            [["chance", *[f"{TOP / NUM_COLD:.3f}"] * len(names)], *cells],
        )
    targets = [row for name, seeds in by_architecture.items() for row in _targets(name, seeds)]
    page.table("targets", ["architecture", "weights", "what", "measured", "target", "met"], targets)


def _targets(architecture: str, seeds: Sequence[dict[str, dict[str, float]]]) -> list[list[str]]:
    rows = []
    for promise in (name for name in seeds[0][ONE] if name != UNTRAINED):
        for name in (ONE, OWN):
            found = float(np.mean([seed[name][promise] for seed in seeds]))
            is_met = _met(found >= COLD_TARGET)
            rows.append([architecture, promise, name, f"{found:.3f}", f">= {COLD_TARGET:.2f}", is_met])
        ahead = [seed[HALVES][promise] - seed[ALONE][promise] for seed in seeds]
        is_met = _met(np.mean(ahead) > np.std(ahead)) if len(ahead) > 1 else "one seed"
        rows.append(
            [architecture, promise, "2 silos above alone", _spread(ahead), "> 0 by more than ±", is_met]
        )
    return rows


def _met(is_met: bool | np.bool_) -> str:
    return "yes" if is_met else "**no**"


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def read(data: Path | None) -> tuple[Interactions, Catalogue, EncoderFiles] | None:
    """The set's rows and items, and the packaged encoder; says what is missing where something is."""
    root = data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    packaged = packaged_encoder()
    if root is None or packaged is None:
        sys.stderr.write("name the folder of the set: --data, ARCHIPEL_DATA; install archipel[language]\n")
        return None
    public = load_public_set(root / SET)
    everything, _ = clean(public.rows, public.catalogue, max_interactions_per_user=len(public.catalogue))
    return everything, public.catalogue, EncoderFiles.check(packaged)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the set; default: $ARCHIPEL_DATA")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--architecture", nargs="+", default=["bottleneck", "transformer"])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    add_json_option(parser, "cold_items")
    asked = parser.parse_args(arguments)
    given = read(asked.data)
    if given is None:
        return 2
    everything, catalogue, files = given
    start = time.process_time()
    epsilons = " ".join(f"{epsilon:g}" for epsilon in asked.epsilon)
    command = f"ARCHIPEL_DATA=PATH python benchmarks/cold_items.py --epsilon {epsilons} --seeds {asked.seeds}"
    with TemporaryDirectory() as scratch:
        vectors = vectors_of(Path(scratch), files.sha256, catalogue, lambda: TextEncoder(files))
    items = PlacedCatalogue(catalogue.items, Space.fit(vectors, DIMENSIONS).place(vectors), catalogue.sha256)
    result = header("cold_items", command) | {"architectures": {}}
    for architecture in asked.architecture:
        seeds = result["architectures"][architecture] = []
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            seeds.append(one_seed(everything, items, asked, files.sha256, architecture, seed))
            result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
            write(result, asked.json)
    show(result, Terminal(asked.json))
    return 0


if __name__ == "__main__":
    sys.exit(main())
