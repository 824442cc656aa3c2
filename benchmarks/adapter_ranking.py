"""Do adapters on the text encoder rank items better than the encoder as it is?

The scene of ``cold_items.py`` with one list: movielens-100k, 250 items out of all rows, four silos; for
everybody with one of the 250, one of them (by seed) is to be found among the 250, from the history over the
other items. All plans of a table take as many rounds, on the recipe's schedule; rounds are a job's, with its
noise, without its encryption. Few rounds, and few items of a history in a step: a step of adapters is some
hundred times as dear as one without.

    ARCHIPEL_DATA=PATH python benchmarks/adapter_ranking.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cold_items
import numpy as np
import torch
from cold_items import DELTA, DIMENSIONS, NO_NOISE, NUM_COLD, SET, TOP, UNTRAINED
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.language.adapters.texts import AdaptableTexts
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles
from silo.language.places import item_text, vectors_of
from silo.language.space import PlacedCatalogue, Space
from silo.models.base import State, get_family

MODES = ("frozen", "fed_sb", "ffa_lora")
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Texts:
    """All items where the packaged encoder puts them, with what adapts it.

    Attributes:
        encoder: the network.
        space: of the whole list, which is its own reference.
        items: in it.
    """

    encoder: TextEncoder
    space: Space
    items: PlacedCatalogue

    @staticmethod
    def of(catalogue: Catalogue, files: EncoderFiles) -> Texts:
        """The encoder over a list."""
        encoder = TextEncoder(files)
        with TemporaryDirectory() as scratch:
            vectors = vectors_of(Path(scratch), files.sha256, catalogue, lambda: encoder)
        space = Space.fit(vectors, DIMENSIONS)
        items = PlacedCatalogue(catalogue.items, space.place(vectors), "00" * 32)
        return Texts(encoder, space, Texts(encoder, space, items).over(np.arange(len(items))))

    def over(self, chosen: np.ndarray) -> PlacedCatalogue:
        """Some of the items, with their texts."""
        items = tuple(self.items.items[index] for index in chosen)
        texts = AdaptableTexts(self.encoder, self.space, tuple(map(item_text, items)), CACHE_BYTES)
        return PlacedCatalogue(items, self.items.places[chosen], self.items.space_sha256, texts)


@dataclass(frozen=True)
class Scene:
    """The first scene of ``cold_items``, with texts that can be read anew.

    Attributes:
        texts: of all items.
        cold: (cold,) their indices among all items.
        played: who has which rows over the others, and what is to be found.
    """

    texts: Texts
    cold: np.ndarray
    played: cold_items.Scene

    @staticmethod
    def of(everything: Interactions, texts: Texts, seed: int) -> Scene:
        """Cold items, silos and what is to be found, as ``cold_items`` draws them."""
        scenes, cold = cold_items.scenes(everything, texts.items, seed)
        played, is_cold = scenes[cold_items.ONE], np.isin(texts.items.item_ids, cold.item_ids)
        warm = texts.over(np.flatnonzero(~is_cold))
        rows = tuple(own.over(warm) for own in played.rows)
        return Scene(texts, np.flatnonzero(is_cold), cold_items.Scene(rows, played.wanted))

    def hit_rate(self, plan: Plan, weights: State | None) -> float:
        """hit_rate@10 from the weights or, without, from the plan's seed; the ranking is over cold items."""
        family = get_family(plan)(plan, self.texts.items, start=weights)
        model = family.finish(family.initial_state())
        hits = []
        for own, targets in zip(self.played.rows, self.played.wanted, strict=True):
            scores = model.scores(own.over(self.texts.items).histories())[:, self.cold]
            has = targets >= 0
            target = scores[np.flatnonzero(has), targets[has]]
            hits.append((scores[has] > target[:, None]).sum(axis=1) < TOP)
        return float(np.concatenate(hits).mean())


def plan_of(scene: Scene, encoder_sha256: str, mode: str, asked: argparse.Namespace) -> Plan:
    """What the silos would agree on; people are in one silo each."""
    items, rows = scene.texts.items, scene.played.rows
    size = {"adapter_places": asked.places, "adapter_tokens": asked.tokens}
    adapter: dict[str, Any] = {} if mode == "frozen" else {"adapter": mode} | size
    return complete_plan(
        Draft(
            silos=tuple(f"shop-{number}" for number in range(len(rows))),
            catalogue_sha256=items.sha256, catalogue_items=len(items), family="language",
            architecture="bottleneck", text_dimensions=DIMENSIONS, encoder_sha256=encoder_sha256,
            target_epsilon=asked.epsilon, target_delta=DELTA, max_silos_per_user=1, rounds=asked.rounds,
            max_users_per_silo=max(own.num_users for own in rows), **adapter,
        )
    )  # fmt: skip


def one_seed(scene: Scene, encoder_sha256: str, asked: argparse.Namespace, page: Page) -> dict[str, Any]:
    """hit_rate@10 by mode and by promise, with the processor seconds of a mode's two trainings."""
    modes: dict[str, dict[str, float]] = {}
    for mode in MODES:
        plan, start = plan_of(scene, encoder_sha256, mode, asked), time.process_time()
        modes[mode] = {}
        for name, is_noised in ((f"epsilon {asked.epsilon:g}", True), (NO_NOISE, False)):
            weights, *_ = cold_items.train(plan, scene.played, is_noised=is_noised)
            modes[mode][name] = scene.hit_rate(plan, weights)
            page.say(f"{mode}, {name}: {modes[mode][name]:.3f}")
        modes[mode]["cpu_seconds"] = round(time.process_time() - start, 1)
    frozen = plan_of(scene, encoder_sha256, "frozen", asked)
    return {UNTRAINED: scene.hit_rate(frozen, None), "modes": modes}


def show(result: dict[str, Any], page: Page) -> None:
    """One row a mode."""
    seeds = result["seeds"]
    first: dict[str, dict[str, float]] = seeds[0]["modes"]
    *promises, seconds = first["frozen"]

    def mean(mode: str, column: str) -> float:
        return float(np.mean([seed["modes"][mode][column] for seed in seeds]))

    untrained = f"{np.mean([seed[UNTRAINED] for seed in seeds]):.3f}"
    page.table(
        f"hit_rate@{TOP} of {NUM_COLD} cold items among themselves, {SET}, {result['rounds']} rounds, "
        f"{result['places']} items of a history read by adapters, seeds: {len(seeds)}",
        ["encoder", *promises, "both trainings, CPU s"],
        [
            ["chance", *[f"{TOP / NUM_COLD:.3f}"] * len(promises), ""],
            [UNTRAINED, *[untrained] * len(promises), ""],
            *(
                [mode, *(f"{mean(mode, name):.3f}" for name in promises), f"{mean(mode, seconds):,.0f}"]
                for mode in first
            ),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the set; default: $ARCHIPEL_DATA")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--places", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    add_json_option(parser, "adapter_ranking")
    asked = parser.parse_args(arguments)
    given = cold_items.read(asked.data)
    if given is None:
        return 2
    everything, catalogue, files = given
    torch.set_num_threads(1)
    page = Terminal(asked.json)
    texts = Texts.of(catalogue, files)
    command = (
        f"python benchmarks/adapter_ranking.py --epsilon {asked.epsilon:g} --rounds {asked.rounds} "
        f"--places {asked.places} --tokens {asked.tokens} --seeds {asked.seeds}"
    )
    result = header("adapter_ranking", command) | {
        "rounds": asked.rounds,
        "places": asked.places,
        "tokens": asked.tokens,
    }
    result["seeds"] = [
        one_seed(Scene.of(everything, texts, seed), files.sha256, asked, page) for seed in range(asked.seeds)
    ]
    show(result, page)
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
