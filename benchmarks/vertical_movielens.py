"""What a partner's features bring the label silo, on movielens-1m and on ciao.

movielens-1m: items halved at random between two silos, five training items a user at the label silo. ciao:
three silos about the same people: the label silo has every second category (by size), the first feature silo
the others, the second each person's own row of the trust graph; the label silo keeps its 2,000 most frequent
items, and columns of the feature silos are folded to 1,024 by public hashing.

"Alone" is the best of ridge and EASE of the label silo's own rows, chosen on half of its users like
everything else; figures are of the other half. Noise is drawn by the product's code for delta 1e-5 under
zCDP, 30 % for the basis. By default the moments are computed in the clear with that noise; --encrypted sends
them through CKKS; --processes runs ``archipel demo --partition vertical`` instead, where every party is an
agent of its own and epsilon covers finding the people, too.

    ARCHIPEL_DATA=PATH python benchmarks/vertical_movielens.py
    ARCHIPEL_DATA=PATH python benchmarks/vertical_ciao.py
    ARCHIPEL_DATA=PATH python benchmarks/vertical_movielens.py --seeds 1 --epsilon 8 --encrypted --json -
    ARCHIPEL_DATA=PATH python benchmarks/vertical_movielens.py --processes --seeds 3 --epsilon none 8 4
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reporting import Page, Terminal, add_json_option, header, write
from vertical_processes import run_epsilons, runs_of

from privacy.budget import ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from privacy.encryption.crossmoments.parameters import MomentsShape
from privacy.moments import feature_events
from silo.demo.vertical.dataset import VerticalData, prepare
from silo.demo.vertical.harness import only_members
from silo.demo.vertical.settings import VerticalSettings
from silo.evaluation import per_user_metrics
from silo.vertical.joint.model import JointModel
from silo.vertical.joint.selection import choose_alone, choose_joint, popularity_rankings, rankings
from silo.vertical.moments.simulation import SimulatedFeatures, with_privacy, without_privacy

DELTA, NUM_FEATURES, LABEL_ITEMS, SEEDS = 1e-5, 16, 5, 3
SETS = ("ciao", "movielens-1m", "movielens-latest-small")
METRICS = ("ndcg@20", "recall@20")
ASKED = {"none": 30.0, "8": 20.0, "4": 10.0}


def world_of(folder: Path, seed: int) -> VerticalData:
    """The world of the demo on the same set and seed."""
    settings = VerticalSettings(
        data=folder, format=None, min_rating=None, epsilon=1.0, delta=DELTA, seed=seed, num_seeds=1,
        out=Path(), label_items=LABEL_ITEMS,
    )  # fmt: skip
    return prepare(settings, seed)


def figures(users_rankings: Any) -> dict[str, float]:
    metrics = per_user_metrics(users_rankings)
    return {name: float(np.mean(metrics[name])) for name in METRICS}


def bring(
    world: VerticalData, epsilon: str, encrypted: bool, page: Page
) -> tuple[list[SimulatedFeatures], float | None]:
    """What all feature silos bring at one epsilon each, and the noise multiplier of their whole budget."""
    rows = world.users.rows
    if epsilon == "none":
        return [without_privacy(rows, silo.columns(), NUM_FEATURES) for silo in world.partners], None
    multiplier = calibrate_noise_multiplier(float(epsilon), DELTA, ZcdpFilter(), releases=1)
    shape = MomentsShape(rows.shape[0], rows.shape[1], NUM_FEATURES, max_row_norm=LABEL_ITEMS**0.5)
    brought = []
    for silo in world.partners:
        start = time.perf_counter()
        brought.append(
            with_privacy(
                rows,
                silo.columns(),
                NUM_FEATURES,
                feature_events(multiplier),
                shape=shape,
                is_encrypted=encrypted,
            )
        )
        page.say(f"  epsilon {epsilon}, {silo.name}: {time.perf_counter() - start:.0f} s")
    return brought, multiplier


def run_seed(world: VerticalData, epsilons: Sequence[str], encrypted: bool, page: Page) -> dict[str, Any]:
    users = world.users
    alone = choose_alone(users)
    result: dict[str, Any] = {
        "users": len(world.people),
        "items": users.rows.shape[1],
        "evaluated_users": int(users.test.size),
        "coverage": world.coverage,
        "popularity": figures(popularity_rankings(users, users.test)),
        "silo_alone": figures(rankings(users, users.test, alone.model, ()))
        | {"item_ridge": alone.weights.item_ridge, "normalisation": alone.weights.normalisation},
        "with_partners": {},
    }
    for epsilon in epsilons:
        brought, multiplier = bring(world, epsilon, encrypted, page)
        moments = [one.moments for one in brought]
        features = [
            only_members(one.features, silo) for one, silo in zip(brought, world.partners, strict=True)
        ]
        chosen = choose_joint(users, alone, moments, features)
        model: JointModel = chosen.model
        found = figures(rankings(users, users.test, model, features))
        lift = 100 * (found["ndcg@20"] / result["silo_alone"]["ndcg@20"] - 1)
        result["with_partners"][epsilon] = found | {
            "lift_percent": lift,
            "noise_multiplier": multiplier,
            "feature_ridges": chosen.weights.feature_ridges,
            "mixing": chosen.weights.mixing,
        }
        page.say(f"  epsilon {epsilon}: NDCG@20 {found['ndcg@20']:.4f}, {lift:+.1f} % above alone")
    return result


def summary(runs: Sequence[dict[str, Any]], epsilons: Sequence[str], name: str) -> dict[str, Any]:
    def over_seeds(values: Sequence[float]) -> dict[str, float]:
        return {"mean": float(np.mean(values)), "std": float(np.std(values))}

    table = {row: over_seeds([run[row]["ndcg@20"] for run in runs]) for row in ("popularity", "silo_alone")}
    lifts: dict[str, Any] = {}
    for epsilon in epsilons:
        of_epsilon = [run["with_partners"][epsilon] for run in runs]
        table[f"epsilon {epsilon}"] = over_seeds([one["ndcg@20"] for one in of_epsilon])
        lift = over_seeds([one["lift_percent"] for one in of_epsilon])
        asked = ASKED.get(epsilon) if name == "movielens-1m" else None
        lifts[epsilon] = lift | ({} if asked is None else {"asked": asked, "is_met": lift["mean"] >= asked})
    return {"ndcg@20": table, "lift_percent": lifts}


def show(result: dict[str, Any], page: Page) -> None:
    """Print the table of one set."""
    lifts = result["summary"]["lift_percent"]
    rows = []
    for name, value in result["summary"]["ndcg@20"].items():
        lift = lifts.get(name.removeprefix("epsilon "))
        shown = "" if lift is None else f"{lift['mean']:+.1f} ± {lift['std']:.1f}"
        asked = "" if lift is None or "asked" not in lift else f"{lift['asked']:.0f}"
        rows.append((name, f"{value['mean']:.4f} ± {value['std']:.4f}", shown, asked))
    ways = {
        "clear": "moments in the clear with the same noise",
        "encrypted": "through the encryption",
        "processes": "every party an agent of its own, through the whole protocol",
    }
    way = ways[result.get("way", "encrypted" if result["is_encrypted"] else "clear")]
    page.say(f"k = {result['num_features']}, delta {result['delta']:g}, {len(result['runs'])} seeds, {way}.")
    coverage = result["runs"][0]["coverage"]
    if coverage < 1:
        page.say(f"The label silo's kept items hold {100 * coverage:.0f} % of its interactions.")
    page.table(result["set"], ("model", "NDCG@20", "lift over alone %", "asked %"), rows)


def parse(arguments: Sequence[str] | None, name: str, default_set: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=SETS, default=default_set)
    parser.add_argument("--data", type=Path, help="folder of the sets; default ARCHIPEL_DATA")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epsilon", nargs="+", default=["none", "8", "4"], metavar="E", help="or none")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--encrypted", action="store_true", help="through the real encryption")
    way.add_argument("--processes", action="store_true", help="through real agents: archipel demo")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("run/vertical"),
        help="--processes: folder for the federations; default: %(default)s",
    )
    add_json_option(parser, name)
    return parser.parse_args(arguments)


def run_processes(result: dict[str, Any], data: Path, options: argparse.Namespace, page: Page) -> None:
    """Fill in the figures of real agents, and what each demo told of itself."""
    told = run_epsilons(
        data,
        options.epsilon,
        options.out / options.set,
        page,
        seeds=options.seeds,
        delta=DELTA,
        label_items=LABEL_ITEMS,
    )
    result["demos"] = told
    result["runs"] = runs_of(told, options.epsilon)
    result["summary"] = summary(result["runs"], options.epsilon, options.set)


def main(
    arguments: Sequence[str] | None = None,
    *,
    name: str = "vertical_movielens",
    default_set: str = "movielens-1m",
) -> int:
    options = parse(arguments, name, default_set)
    root = options.data or os.environ.get("ARCHIPEL_DATA")
    if not root:
        sys.stderr.write("Say where the data is: --data PATH or ARCHIPEL_DATA.\n")
        return 2
    page = Terminal(options.json)
    given = sys.argv[1:] if arguments is None else arguments
    result = header(name, " ".join([f"python benchmarks/{name}.py", *given]))
    result |= {
        "set": options.set,
        "delta": DELTA,
        "num_features": NUM_FEATURES,
        "label_items": LABEL_ITEMS,
        "is_encrypted": options.encrypted or options.processes,
        "way": "processes" if options.processes else "encrypted" if options.encrypted else "clear",
        "runs": [],
    }
    if options.processes:
        run_processes(result, Path(root) / options.set, options, page)
    for seed in range(0 if options.processes else options.seeds):
        page.say(f"{options.set}, seed {seed}")
        world = world_of(Path(root) / options.set, seed)
        result["runs"].append({"seed": seed} | run_seed(world, options.epsilon, options.encrypted, page))
        result["summary"] = summary(result["runs"], options.epsilon, options.set)
        if options.json != "-":
            write(result, options.json)
    show(result, page)
    write(result, options.json)
    unmet = [one for one in result["summary"]["lift_percent"].values() if not one.get("is_met", True)]
    return 1 if unmet else 0


if __name__ == "__main__":
    sys.exit(main())
