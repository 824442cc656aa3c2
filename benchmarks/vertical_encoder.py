"""What the numbers of a private encoder bring the label silo, beside encrypted cross-moments.

movielens-1m, items halved at random between two silos, five training items a user at the label silo, as in
vertical_movielens.py. One epsilon pays for an encoder's training and the release of everybody's numbers, or
for a basis and moments; delta 1e-5 under zCDP, without the alignment, which both pay alike. "Alone" is the
best of ridge and EASE; weights are chosen on half of the users, figures are of the other half.

Rows: popularity; alone; the label silo's network without a partner; the network on released numbers; ridge or
EASE on released numbers; the same on numbers with the noise of one of 20 releases at the same price, which is
what live split learning has in an epoch of 20; cross-moments.

    ARCHIPEL_DATA=PATH python benchmarks/vertical_encoder.py --seeds 1 --epsilon 8
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
from vertical_movielens import (
    DELTA,
    LABEL_ITEMS,
    bring,
    figures,
    world_of,
)

from policies.plans.plan import Plan
from policies.plans.vertical.drafting import VerticalDraft
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_step
from silo.demo.vertical.dataset import VerticalData
from silo.vertical.encoder.simulation import simulate_release
from silo.vertical.encoder.top_model import TopSettings, top_rankings, train_top_model
from silo.vertical.joint.model import FeatureMoments, Matrix
from silo.vertical.joint.selection import Chosen, choose_alone, choose_joint, popularity_rankings, rankings

LEAST_ALIGNMENT = 0.001
EPOCHS = 20
SPLIT_SEED = 0


def plan_of(world: VerticalData, epsilon: float, encoder: EncoderDraft) -> Plan:
    people, items = world.users.rows.shape
    draft = VerticalDraft(
        label="label",
        features={"partner": "user"},
        catalogue_sha256="0" * 64,
        catalogue_items=items,
        target_epsilon=epsilon,
        target_delta=DELTA,
        capacities={"label": people, "partner": people},
        min_intersection=1,
        alignment_epsilon=LEAST_ALIGNMENT,
    )
    return complete_encoder_plan(draft, encoder)


def on_numbers(world: VerticalData, alone: Chosen, numbers: Matrix) -> dict[str, float]:
    """Ridge or EASE on own items and these numbers, trained and served with the same ones."""
    users = world.users
    moments = FeatureMoments(np.asarray(users.rows.T @ numbers), numbers.T @ numbers)
    chosen = choose_joint(users, alone, [moments], [numbers])
    return figures(rankings(users, users.test, chosen.model, [numbers]))


def on_network(world: VerticalData, alone: Chosen, numbers: Matrix, settings: TopSettings) -> dict[str, Any]:
    users = world.users
    model = train_top_model(users, alone.model, numbers, settings)
    return figures(top_rankings(users, users.test, model, numbers)) | {"mixing": model.mixing}


def run_seed(
    world: VerticalData,
    epsilons: Sequence[float],
    encoder: EncoderDraft,
    settings: TopSettings,
    page: Page,
) -> dict[str, Any]:
    users, (partner,) = world.users, world.partners
    alone = choose_alone(users)
    nothing = np.zeros((users.rows.shape[0], encoder.dimensions))
    result: dict[str, Any] = {
        "users": users.rows.shape[0],
        "popularity": figures(popularity_rankings(users, users.test)),
        "silo_alone": figures(rankings(users, users.test, alone.model, ())),
        "network_alone": on_network(world, alone, nothing, settings),
        "epsilon": {},
    }
    page.say(
        f"  alone {result['silo_alone']['ndcg@20']:.4f}, network {result['network_alone']['ndcg@20']:.4f}"
    )
    for epsilon in epsilons:
        begun = time.perf_counter()
        plan = plan_of(world, epsilon, encoder)
        made = simulate_release(plan, "partner", partner.rows)
        seconds = time.perf_counter() - begun
        std = encoder_release_event(plan).noise_multiplier
        rng = np.random.default_rng(SPLIT_SEED)  # a comparison, not a release
        an_epoch = made.exact + std * EPOCHS**0.5 * rng.standard_normal(made.exact.shape)
        brought, _ = bring(world, f"{epsilon:g}", False, page)
        joint = choose_joint(users, alone, [brought[0].moments], [brought[0].features])
        cross_moments = figures(rankings(users, users.test, joint.model, [brought[0].features]))
        result["epsilon"][f"{epsilon:g}"] = {
            "network_on_numbers": on_network(world, alone, made.released, settings),
            "ridge_on_numbers": on_numbers(world, alone, made.released),
            "ridge_on_numbers_of_one_epoch": on_numbers(world, alone, an_epoch),
            "ridge_on_numbers_without_release_noise": on_numbers(world, alone, made.exact),
            "cross_moments": cross_moments,
            "training_noise_multiplier": encoder_step(plan).event.noise_multiplier,
            "release_noise_multiplier": std,
            "seconds_of_training_and_release": seconds,
        }
        page.say(f"  epsilon {epsilon:g} done, {seconds:.0f} s of training and release")
    return result


def table_of(runs: Sequence[dict[str, Any]], epsilons: Sequence[float]) -> list[tuple[str, float, float]]:
    """Row, mean NDCG@20, mean lift over alone in percent."""
    found = []

    def add(name: str, values: Sequence[float]) -> None:
        base = [run["silo_alone"]["ndcg@20"] for run in runs]
        lifts = [100 * (value / of - 1) for value, of in zip(values, base, strict=True)]
        found.append((name, float(np.mean(values)), float(np.mean(lifts))))

    for name in ("popularity", "silo_alone", "network_alone"):
        add(name.replace("_", " "), [run[name]["ndcg@20"] for run in runs])
    for epsilon in epsilons:
        first = runs[0]["epsilon"][f"{epsilon:g}"]
        for name in [name for name, value in first.items() if isinstance(value, dict)]:
            values = [run["epsilon"][f"{epsilon:g}"][name]["ndcg@20"] for run in runs]
            add(f"{name.replace('_', ' ')}, epsilon {epsilon:g}", values)
    return found


def show(result: dict[str, Any], page: Page) -> None:
    """Print the table."""
    page.say(f"delta {result['delta']:g}, {len(result['runs'])} seed(s).")
    rows = [(name, f"{value:.4f}", f"{lift:+.1f}") for name, value, lift in result["table"]]
    page.table(result["set"], ("row", "NDCG@20", "lift over alone %"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=("movielens-1m", "movielens-latest-small"), default="movielens-1m")
    parser.add_argument("--data", type=Path, help="folder of the sets; default ARCHIPEL_DATA")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epsilon", nargs="+", type=float, default=[8.0], metavar="E")
    parser.add_argument("--steps", type=int, default=EncoderDraft.steps, help="of the encoder's training")
    parser.add_argument("--dimensions", type=int, default=EncoderDraft.dimensions)
    parser.add_argument("--release-share", type=float, default=EncoderDraft.release_share)
    parser.add_argument("--learning-rate", type=float, default=EncoderDraft.learning_rate)
    parser.add_argument("--epochs", type=int, default=TopSettings.epochs, help="of the label silo's network")
    add_json_option(parser, "vertical_encoder")
    options = parser.parse_args(arguments)
    root = options.data or os.environ.get("ARCHIPEL_DATA")
    if not root:
        sys.stderr.write("Say where the data is: --data PATH or ARCHIPEL_DATA.\n")
        return 2
    page = Terminal(options.json)
    given = sys.argv[1:] if arguments is None else arguments
    result = header("vertical_encoder", " ".join(["python benchmarks/vertical_encoder.py", *given]))
    encoder = EncoderDraft(
        dimensions=options.dimensions,
        steps=options.steps,
        release_share=options.release_share,
        learning_rate=options.learning_rate,
    )
    settings = TopSettings(epochs=options.epochs)
    result |= {"set": options.set, "delta": DELTA, "label_items": LABEL_ITEMS, "runs": []}
    for seed in range(options.seeds):
        page.say(f"{options.set}, seed {seed}")
        world = world_of(Path(root) / options.set, seed)
        result["runs"].append(run_seed(world, options.epsilon, encoder, settings, page))
        result["table"] = table_of(result["runs"], options.epsilon)
        if options.json != "-":
            write(result, options.json)
    show(result, page)
    write(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
