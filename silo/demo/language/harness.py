"""The rows of the table where no two shops have an item in common.

``federated_private`` is scored from the model files that the agents wrote, ``newcomer_adopted`` from the one
that `archipel silo adopt` wrote. The others are computed here with the same plan, caps, schedule and trainer,
and charged to no ledger:

* ``silo_alone``: each shop's own rows with the whole promised noise;
* ``federated_plain``: all shops' steps added up without noise, each over its own list;
* ``untrained``: the plan's first weights, which rank by likeness of texts;
* ``popularity``: each shop's own rows counted, no noise: what never leaves it;
* ``…_and_popularity``: both, standardised for each person and added up half and half. Nothing was chosen.

Nothing is pooled: all rows in one place would rank another list, of everybody's items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

from policies.plans.plan import Plan
from silo.data.interactions import Interactions
from silo.demo.harness import Report, learn_all
from silo.demo.language.dataset import LanguageData, Shop
from silo.demo.outcome import Metrics
from silo.demo.simulation import Simulation, simulate_each
from silo.demo.world import World
from silo.evaluation import METRICS, rank, reported_metrics
from silo.finished import load_finished
from silo.language.places import place_items
from silo.local.fusion import Blend
from silo.local.models import RankingModel
from silo.models.base import get_family
from silo.models.recommender import Recommender
from silo.rows import load_rows

COLUMNS = (
    "silo_alone",
    "federated_private",
    "federated_plain",
    "untrained",
    "popularity",
    "alone_and_popularity",
    "federated_and_popularity",
)
NEWCOMER_COLUMNS = (
    "newcomer_adopted",
    "newcomer_untrained",
    "newcomer_popularity",
    "newcomer_and_popularity",
)
PLAIN = "federated_plain"

Models = Sequence[RankingModel]


def measure(world: World, data: LanguageData, job: str, report: Report) -> dict[str, Metrics]:
    """All rows of one federation, in the order of ``COLUMNS`` and ``NEWCOMER_COLUMNS``."""
    plan, members = world.plan(), data.members
    rows = tuple(_placed_rows(world, plan, shop) for shop in members)
    learnt = learn_all(simulate_each, simulations(plan, rows), report)
    report("scoring the model files that the shops have")
    counts = [_popularity(shop) for shop in members]
    alone = [learnt[shop.name][0] for shop in members]
    federated = [load_finished(world.silo(shop.name), job).recommender for shop in members]
    models: dict[str, Models] = {
        "silo_alone": alone,
        "federated_private": federated,
        "federated_plain": learnt[PLAIN],
        "untrained": [_untrained(plan, own) for own in rows],
        "popularity": counts,
        "alone_and_popularity": _together(alone, counts),
        "federated_and_popularity": _together(federated, counts),
    }
    return _scored(models, members) | _scored(_newcomers_models(world, plan, data), [data.newcomer])


def simulations(plan: Plan, rows: tuple[Interactions, ...]) -> dict[str, Simulation]:
    """What is learnt outside the federation, by shop (alone) or by row of the table.

    Args:
        plan: the federation's.
        rows: of each shop over its own placed items, in the roster's order.
    """
    promised = sqrt(plan.num_noise_shares)
    alone = {
        name: Simulation(plan, (own,), 1, promised, is_clamped=True)
        for name, own in zip(plan.silos, rows, strict=True)
    }
    return alone | {PLAIN: Simulation(plan, rows, 1, 0.0, is_clamped=False)}


def _newcomers_models(world: World, plan: Plan, data: LanguageData) -> dict[str, Models]:
    shop = data.newcomer
    adopted, counts = [load_finished(world.silo(shop.name)).recommender], [_popularity(shop)]
    return {
        "newcomer_adopted": adopted,
        "newcomer_untrained": [_untrained(plan, _placed_rows(world, plan, shop))],
        "newcomer_popularity": counts,
        "newcomer_and_popularity": _together(adopted, counts),
    }


def _placed_rows(world: World, plan: Plan, shop: Shop) -> Interactions:
    """What contributions are made of, from the rows and vectors in a shop's directory."""
    directory = world.silo(shop.name)
    rows = load_rows(directory, plan, load_finished(directory).dataset).train
    return Interactions(rows.user_ids, rows.frame, place_items(directory, plan, rows.catalogue))


def _untrained(plan: Plan, rows: Interactions) -> RankingModel:
    family = get_family(plan)(plan, rows.catalogue)
    return family.finish(family.initial_state())


def _popularity(shop: Shop) -> RankingModel:
    counts = np.asarray(shop.train.matrix().sum(axis=0), dtype=np.float32).ravel()
    return Recommender.of_popularity(counts, {"family": "popularity"}, is_fallback=False)


def _together(models: Models, counts: Models) -> Models:
    return [
        Blend({"texts": model, "popularity": count}, {"texts": 0.5, "popularity": 0.5})
        for model, count in zip(models, counts, strict=True)
    ]


def _scored(models: Mapping[str, Models], shops: Sequence[Shop]) -> dict[str, Metrics]:
    return {name: _over_shops(own, shops) for name, own in models.items()}


def _over_shops(models: Models, shops: Sequence[Shop]) -> Metrics:
    """Mean over the people of all shops, each ranked by the shop's own model over its own list.

    Coverage, which is no person's own, is averaged with the same weights.
    """
    rankings = [rank(model, shop.train, shop.held_out) for model, shop in zip(models, shops, strict=True)]
    people = [ranking.relevant.shape[0] for ranking in rankings]
    found = [reported_metrics(ranking) for ranking in rankings]
    return {name: float(np.average([one[name] for one in found], weights=people)) for name in METRICS}
