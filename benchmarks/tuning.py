"""What three ways of choosing bring and cost: on public rows, by a silo's own people, and by them in private.

movielens-100k (by default) in four taste-skewed silos, a random 20 % of each person's rows held out, delta
1e-5, one colluding silo covered. Rows of these people are private; each part says what reading them cost.

- ``public``: numbers of an autoencoder's plan are searched on the built-in marketplace, as ``archipel tune
  --plan`` does. What was proposed and the plan as it was are then learnt on the private people.
- ``post-processing``: each silo chooses on half of its people how the federated item graph is used; the
  others say what it brought them.
- ``local-private``: each silo's people choose between what three jobs released, by permute-and-flip. Shares
  and losses are of 200 choices, which only a harness may make: a silo makes, and pays for, one.

    ARCHIPEL_DATA=PATH python benchmarks/tuning.py
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from local_blend import DELTA, SILOS, draft_of, read
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import complete_plan
from policies.plans.models import FamilyName
from policies.plans.plan import Plan
from policies.plans.price import committed_events, schedule, spent_epsilon
from privacy.accounting import Spending
from privacy.events import EventCount, PureEvent
from privacy.selection import PrivateSelection, total_utilities
from silo.data.interactions import Interactions
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import per_user_metrics, rank
from silo.local.fusion import METRIC
from silo.models.shipped import ShippedModel
from silo.tuning.postprocessing import choose
from silo.tuning.search import Search
from silo.tuning.selection import judge
from silo.tuning.space import with_values
from silo.tuning.world import make_world

FAMILIES: tuple[FamilyName, ...] = ("popularity", "item-graph", "autoencoder")
PRICES = (0.05, 0.1, 0.5, 2.0)
DRAWS = 200
PUBLIC_ITEMS = 600


def learn(plan: Plan, parts: Sequence[Interactions]) -> ShippedModel:
    """The model of one job."""
    return simulate(Simulation(plan, tuple(parts), 1, 1.0, is_clamped=True))


def quality(model: ShippedModel, train: Interactions, held_out: Interactions) -> float:
    """Mean ``METRIC`` of everybody."""
    return float(per_user_metrics(rank(model, train, held_out))[METRIC].mean())


def on_public_rows(asked: argparse.Namespace, plan: Plan, seed: int) -> tuple[Plan, dict[str, Any]]:
    """What a search proposes instead of ``plan``, and its own figures."""
    public = marketplace(seed, asked.people, PUBLIC_ITEMS)
    search = Search(plan, make_world(public, len(SILOS), seed), METRIC, seed)
    for _ in range(asked.trials):
        search.try_next()
    found = search.confirm(lambda _: None)
    chosen = found.repeated[found.chosen]
    figures = {
        "chosen": found.chosen,
        "values": chosen.values,
        "public_test": {name: repeated.test for name, repeated in found.repeated.items()},
        "lead": None if found.lead is None else vars(found.lead),
    }
    return with_values(plan, chosen.values), figures


def in_private(
    models: Mapping[FamilyName, ShippedModel], plans: Mapping[FamilyName, Plan], train: Interactions,
    held_out: Interactions,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A record of each price, at one silo whose account has paid for the jobs of these plans."""
    people = list(judge(list(models.values()), train, held_out))
    utilities = total_utilities(people, len(models))
    means = np.mean(people, axis=0)
    jobs = [event for plan in plans.values() for event in events_of(plan)]
    for price in PRICES:
        chosen = [PrivateSelection(price).choose(utilities).index for _ in range(DRAWS)]
        yield {
            "epsilon": price,
            "people": len(people),
            "counted_before": Spending.of(jobs, _filter(plans)).epsilon(DELTA),
            "counted_after": Spending.of([*jobs, EventCount(PureEvent(epsilon=price), 1)], _filter(plans))
            .epsilon(DELTA),
            "share_best": float(np.mean([means[index] == means.max() for index in chosen])),
            "loss": float(np.mean([means.max() - means[index] for index in chosen])),
            "loss_of_chance": float(means.max() - means.mean()),
        }  # fmt: skip


def events_of(plan: Plan) -> tuple[EventCount, ...]:
    """What a job without failures releases."""
    return committed_events(plan, [(place, 0) for place in range(1, len(schedule(plan)) + 1)])


def _filter(plans: Mapping[FamilyName, Plan]) -> Any:
    (kind,) = {plan.privacy.filter_spec for plan in plans.values()}
    return kind


def one_seed(everything: Interactions, asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All figures of one partition."""
    train, held_out = hold_out(everything, "random", seed=seed)
    silo_of = partition_by_taste(train.matrix(), len(SILOS), seed)
    users = [np.flatnonzero(silo_of == silo) for silo in range(len(SILOS))]
    parts, held = ([rows.select(own) for own in users] for rows in (train, held_out))
    drafts = {family: draft_of(parts, asked.epsilon, family) for family in FAMILIES}
    drafts["autoencoder"] = replace(drafts["autoencoder"], rounds=asked.rounds)
    plans = {family: complete_plan(draft) for family, draft in drafts.items()}
    models = {family: learn(plan, parts) for family, plan in plans.items()}
    given = plans["autoencoder"]
    proposed, public = on_public_rows(asked, given, seed)
    tuned = models["autoencoder"] if proposed == given else learn(proposed, parts)
    public |= {
        "given": quality(models["autoencoder"], train, held_out),
        "proposed": quality(tuned, train, held_out),
        "epsilon_given": spent_epsilon(given, events_of(given)),
        "epsilon_proposed": spent_epsilon(proposed, events_of(proposed)),
    }
    graph = models["item-graph"]
    own = [choose(graph, train.catalogue, *rows) for rows in zip(parts, held, strict=True)]
    return {
        "seed": seed,
        "models": {family: quality(model, train, held_out) for family, model in models.items()},
        "public": public,
        "post_processing": [vars(chosen) for chosen in own],
        "local_private": [
            record for rows in zip(parts, held, strict=True) for record in in_private(models, plans, *rows)
        ],
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Three tables."""
    seeds = result["seeds"]
    page.table(
        f"a plan searched on public rows, {result['trials']} trials: {METRIC} on {result['set']}",
        ["seed", "proposed", "plan as it was", "as proposed", "epsilon charged", "for the search"],
        [
            [
                seed["seed"], seed["public"]["chosen"], f"{seed['public']['given']:.4f}",
                f"{seed['public']['proposed']:.4f}",
                f"{seed['public']['epsilon_given']:.2f} / {seed['public']['epsilon_proposed']:.2f}", "0",
            ]
            for seed in seeds
        ],
    )  # fmt: skip
    choices = [choice for seed in seeds for choice in seed["post_processing"]]
    gains = [choice["gain"] for choice in choices]
    page.table(
        f"how the item graph is used, chosen by {len(choices)} silos: {METRIC} of people who did not choose",
        ["as released", "as chosen", "gain", "worst silo", "silos that gained", "epsilon charged"],
        [
            [
                _mean(choices, "as_released"), _mean(choices, "as_chosen"), f"{np.mean(gains):+.4f}",
                f"{min(gains):+.4f}", f"{sum(gain > 0 for gain in gains)} of {len(gains)}", "0",
            ]
        ],
    )  # fmt: skip
    records = [record for seed in seeds for record in seed["local_private"]]
    by_price = {price: [one for one in records if one["epsilon"] == price] for price in PRICES}
    page.table(
        f"one of {len(FAMILIES)} released models, chosen in private by "
        f"{min(one['people'] for one in records)} to {max(one['people'] for one in records)} people",
        ["epsilon", "counted before", "counted after", "best chosen", f"{METRIC} lost", "lost by chance"],
        [
            [
                f"{price:g}", f"{found[0]['counted_before']:.3f}", f"{found[0]['counted_after']:.3f}",
                f"{np.mean([one['share_best'] for one in found]):.0%}", _mean(found, "loss"),
                _mean(found, "loss_of_chance"),
            ]
            for price, found in by_price.items()
        ],
    )  # fmt: skip


def _mean(records: Sequence[Mapping[str, float]], name: str) -> str:
    return f"{np.mean([record[name] for record in records]):.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--set", default="movielens-100k")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--people", type=int, default=1_000, help="of the marketplace")
    parser.add_argument("--rounds", type=int, help="of the autoencoder; left out: as many as its recipe has")
    add_json_option(parser, "tuning")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    start = time.process_time()
    command = (
        f"python benchmarks/tuning.py --set {asked.set} --epsilon {asked.epsilon:g} --seeds {asked.seeds} "
        f"--trials {asked.trials} --people {asked.people}"
    ) + (f" --rounds {asked.rounds}" if asked.rounds else "")
    result = header("tuning", command) | {"set": asked.set, "epsilon": asked.epsilon, "trials": asked.trials}
    everything = read(root / asked.set)
    result["seeds"] = [one_seed(everything, asked, seed) for seed in range(asked.seeds)]
    result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
