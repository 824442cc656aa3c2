"""What numbers of each person would bring if a cross-moments job released them, beside the moments.

movielens-1m, items halved at random between two silos, as in vertical_movielens.py; delta 1e-5 under zCDP.
The same epsilon pays for a basis (30 % of the zCDP) and then either for the moments, as a plan of the family
cross-moments does, or for everybody's k numbers, noised once: what serving.mode dp_release would take.
"Alone" is the best of ridge and EASE; weights are chosen on half of the users, figures are of the other half.

    ARCHIPEL_DATA=PATH python benchmarks/vertical_released.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reporting import Page, Terminal, add_json_option, header, write
from vertical_encoder import on_numbers
from vertical_movielens import DELTA, LABEL_ITEMS, bring, figures, world_of

from privacy.accounting import ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from privacy.moments import GramNoise, feature_events, private_basis
from silo.demo.vertical.dataset import VerticalData
from silo.vertical.joint.selection import choose_alone, choose_joint, rankings

DIMENSIONS = (16, 8)
NOISE_SEED = 0


def run_seed(world: VerticalData, epsilons: Sequence[float], page: Page) -> dict[str, Any]:
    users, (partner,) = world.users, world.partners
    alone = choose_alone(users)
    found = {"alone": figures(rankings(users, users.test, alone.model, ()))}
    rng = np.random.default_rng(NOISE_SEED)  # a comparison, not a release
    for epsilon in epsilons:
        multiplier = calibrate_noise_multiplier(epsilon, DELTA, ZcdpFilter(), releases=1)
        events = feature_events(multiplier)
        for k in DIMENSIONS:
            basis = private_basis(GramNoise(events.basis).noised_gram(partner.columns()), k)
            exact = basis.project(partner.columns())
            noised = exact + events.moments.noise_multiplier * rng.standard_normal(exact.shape)
            found[f"{k} released numbers, epsilon {epsilon:g}"] = on_numbers(world, alone, noised)
        brought, _ = bring(world, f"{epsilon:g}", False, page)
        joint = choose_joint(users, alone, [brought[0].moments], [brought[0].features])
        ranked = rankings(users, users.test, joint.model, [brought[0].features])
        found[f"cross-moments, epsilon {epsilon:g}"] = figures(ranked)
    return found


def table_of(runs: Sequence[dict[str, Any]]) -> list[tuple[str, float, float, float]]:
    """Row, mean NDCG@20, mean lift over alone in percent, its spread over seeds."""
    base = np.array([run["alone"]["ndcg@20"] for run in runs])
    rows = []
    for name in runs[0]:
        values = np.array([run[name]["ndcg@20"] for run in runs])
        lifts = 100 * (values / base - 1)
        rows.append((name, float(values.mean()), float(lifts.mean()), float(lifts.std())))
    return rows


def show(result: dict[str, Any], page: Page) -> None:
    """Print the table."""
    page.say(f"delta {result['delta']:g}, {len(result['runs'])} seed(s).")
    rows = [
        (name, f"{value:.4f}", f"{lift:+.1f}", f"{std:.1f}") for name, value, lift, std in result["table"]
    ]
    page.table(result["set"], ("row", "NDCG@20", "lift over alone %", "spread"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("movielens-1m", "movielens-latest-small"), default="movielens-1m")
    parser.add_argument("--data", type=Path, help="folder of the sets; default ARCHIPEL_DATA")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilon", nargs="+", type=float, default=[8.0, 4.0], metavar="E")
    add_json_option(parser, "vertical_released")
    options = parser.parse_args(arguments)
    root = options.data or os.environ.get("ARCHIPEL_DATA")
    if not root:
        sys.stderr.write("Say where the data is: --data PATH or ARCHIPEL_DATA.\n")
        return 2
    page = Terminal(options.json)
    given = sys.argv[1:] if arguments is None else arguments
    result = header("vertical_released", " ".join(["python benchmarks/vertical_released.py", *given]).strip())
    result |= {"set": options.set, "delta": DELTA, "label_items": LABEL_ITEMS, "runs": []}
    for seed in range(options.seeds):
        page.say(f"{options.set}, seed {seed}")
        world = world_of(Path(root) / options.set, seed)
        result["runs"].append(run_seed(world, options.epsilon, page))
        result["table"] = table_of(result["runs"])
        if options.json != "-":
            write(result, options.json)
    show(result, page)
    write(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
