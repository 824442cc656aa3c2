"""What following new rows brings after a training, and what it does not mend: people of a set, by time.

movielens-100k (by default), all rows in order of time. The first 60 % are what a training saw: a federated
item graph of four taste-skewed silos at one epsilon (delta 1e-5, one colluding silo covered), and local parts
of each silo. Everybody's last row of the rest is asked for, among all items they had not seen then:

- ``as it was``: histories end where the training did; whoever came later gets the popularity list;
- ``followed``: the same model, histories as they are when the list is made (``archipel adapt`` measures it);
- ``learnt anew``: local parts from all rows (``adapt --refresh``), the federated part by a second job,
  charged like the first. Both jobs are of the same people: their epsilon composes, and both is shown.

Drift is what ``adapt`` reports of the same people: the share of new people, the shift of popularity beside
that of the stretch before, and NDCG@20 of last rows then and since.

    ARCHIPEL_DATA=PATH python benchmarks/adapting.py
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from local_blend import DELTA, SILOS, draft_of, read
from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import complete_plan
from policies.plans.plan import Plan
from policies.plans.price import committed_events, schedule, spent_epsilon
from silo.adapting.drift import measure
from silo.adapting.windows import Windows, last_rows
from silo.data.interactions import Interactions
from silo.data.splits import hold_out, partition_by_taste
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import Scorer, aligned_rows, per_user_metrics, rank_scores
from silo.local.models import LocalModels
from silo.models.shipped import ShippedModel

METRICS = ("hit_rate@10", "ndcg@20")
TRAINED_SHARE = 0.6
FEDERATED = "federated"
Values = Mapping[str, np.ndarray]


def windows_of(everything: Interactions, share: float) -> Windows:
    """Everybody's rows parted where ``share`` of them had come."""
    since = int(everything.frame["timestamp"].quantile(share, "nearest") or 0)
    is_recent = pl.col("timestamp") >= since
    before, recent = (
        Interactions(everything.user_ids, everything.frame.filter(part), everything.catalogue)
        for part in (~is_recent, is_recent)
    )
    train, held_out = hold_out(before, "last")
    return Windows(
        since=since,
        before=before,
        recent=recent,
        targets=last_rows(recent),
        train=train,
        held_out=held_out,
        outside_rows=0,
        recent_rows=recent.num_interactions,
    )


def values(model: Scorer, histories: Interactions, seen: Interactions, targets: Interactions) -> Values:
    """Metrics of each person with a target, scored by one history; whatever is seen is not shown."""
    known, relevant = aligned_rows(histories, targets)
    hidden, _ = aligned_rows(seen, targets)
    found = per_user_metrics(rank_scores(np.asarray(model.scores(known)), hidden, relevant))
    return {metric: found[metric] for metric in METRICS}


def federate(parts: Sequence[Interactions], epsilon: float) -> tuple[Plan, ShippedModel]:
    """The plan that these silos would agree on, and the model of its job."""
    plan = complete_plan(draft_of(parts, epsilon))
    return plan, simulate(Simulation(plan, tuple(parts), 1, 1.0, is_clamped=True))


def one_seed(everything: Interactions, epsilon: float, seed: int) -> dict[str, Any]:
    """All figures of one partition and one drawing of noise."""
    windows = windows_of(everything, TRAINED_SHARE)
    silo_of = partition_by_taste(everything.matrix(), len(SILOS), seed)
    silos = [np.flatnonzero(silo_of == silo) for silo in range(len(SILOS))]

    def dealt(rows: Interactions) -> list[Interactions]:
        return [rows.select(own) for own in silos]

    plan, first = federate(dealt(windows.train), epsilon)
    _, second = federate(dealt(windows.followed), epsilon)
    frozen, followed, targets = windows.before, windows.followed, windows.targets
    found = {
        FEDERATED: {
            "as it was": values(first, frozen, followed, targets),
            "followed": values(first, followed, followed, targets),
            "learnt anew": values(second, followed, followed, targets),
        }
    } | _local(dealt(frozen), dealt(followed), dealt(targets))
    events = list(committed_events(plan, [(place, 0) for place in range(1, len(schedule(plan)) + 1)]))
    return {
        "seed": seed,
        "people": int(np.unique(targets.frame["user_index"].to_numpy()).size),
        "epsilon_of_one_job": spent_epsilon(plan, events),
        "epsilon_of_two_jobs": spent_epsilon(plan, [*events, *events]),
        "models": {
            name: {way: {metric: float(of[metric].mean()) for metric in METRICS} for way, of in ways.items()}
            for name, ways in found.items()
        },
        "drift": measure(first, windows),
    }


def _local(
    frozen: Sequence[Interactions], followed: Sequence[Interactions], targets: Sequence[Interactions]
) -> dict[str, dict[str, Values]]:
    """Each local model of each silo's own rows, its own people together."""
    by_silo = [_of_silo(*rows) for rows in zip(frozen, followed, targets, strict=True)]
    return {
        name: {
            way: {metric: np.concatenate([one[name][way][metric] for one in by_silo]) for metric in METRICS}
            for way in by_silo[0][name]
        }
        for name in by_silo[0]
    }


def _of_silo(
    frozen: Interactions, followed: Interactions, targets: Interactions
) -> dict[str, dict[str, Values]]:
    old, new = (LocalModels.fit(rows.weights()).scorers() for rows in (frozen, followed))
    return {
        f"local {name}": {
            "as it was": values(old[name], frozen, followed, targets),
            "followed": values(old[name], followed, followed, targets),
            "learnt anew": values(new[name], followed, followed, targets),
        }
        for name in old
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Two tables."""
    seeds = result["seeds"]
    rows = [
        [name, way, *(_spread([seed["models"][name][way][metric] for seed in seeds]) for metric in METRICS)]
        for name, ways in seeds[0]["models"].items()
        for way in ways
    ]
    page.table(
        f"last row of {seeds[0]['people']:,} people of {result['set']} since the training, epsilon "
        f"{result['epsilon']:g}, {len(seeds)} seeds",
        ["model", "history", *METRICS],
        rows,
    )
    page.say(
        f"One job counts epsilon {seeds[0]['epsilon_of_one_job']:.2f}, both together "
        f"{seeds[0]['epsilon_of_two_jobs']:.2f}; following and local parts learnt anew count nothing."
    )
    drifts = [seed["drift"] for seed in seeds]
    recent, shift = drifts[0]["recent"], drifts[0]["shift"]
    quality = {
        when: _spread([drift["quality"][when]["value"] for drift in drifts])
        for when in ("then", "now", "popularity_then", "popularity_now")
    }
    page.table(
        "what `archipel adapt` says of the federated model",
        ["figure", "before the training", "since"],
        [
            ["ndcg@20 of last rows", quality["then"], quality["now"]],
            ["the same by its popularity alone", quality["popularity_then"], quality["popularity_now"]],
            ["people of these", *(f"{drifts[0]['quality'][when]['people']:,}" for when in ("then", "now"))],
            ["shift of popularity, bits", f"{shift['then']:.3f}", f"{shift['now']:.3f}"],
            ["rows of new people", "–", f"{recent['new_people_share']:.1%}"],
            ["has aged, seeds", "–", f"{sum(bool(drift['reasons']) for drift in drifts)} of {len(drifts)}"],
        ],
    )


def _spread(found: Sequence[float]) -> str:
    return f"{np.mean(found):.4f}" + (f" ± {np.std(found):.4f}" if len(found) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--set", default="movielens-100k")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=3)
    add_json_option(parser, "adapting")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    start = time.process_time()
    command = (
        f"python benchmarks/adapting.py --set {asked.set} --epsilon {asked.epsilon:g} --seeds {asked.seeds}"
    )
    result = header("adapting", command) | {"set": asked.set, "epsilon": asked.epsilon, "delta": DELTA}
    everything = read(root / asked.set)
    result["seeds"] = [one_seed(everything, asked.epsilon, seed) for seed in range(asked.seeds)]
    result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
