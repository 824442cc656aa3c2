"""What the order of histories is worth to one silo: a network over ids beside the local models without order.

One silo holds everybody; the last item by time is held out (ties by seed), every unseen item competes. Each
network stops by the newest *training* item of validation people; its constants are those of ``archipel fit
--local --architecture`` on all sets. Weights of the blend are chosen on half of the people by a hash of their
ids; its figure, and those beside it, are of the other half.

    ARCHIPEL_DATA=PATH python benchmarks/local_sequence.py --set movielens-100k --seeds 3
    ARCHIPEL_DATA=PATH python benchmarks/local_sequence.py --set amazon-beauty --seeds 1
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from reporting import RESULTS, Page, Terminal, add_json_option, header, write

from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import load_public_set
from silo.data.splits import hold_out
from silo.evaluation import per_user_metrics, rank
from silo.local.fusion import Blend, choose_weights, halves
from silo.local.models import LocalModels
from silo.local.sequence_training import Look, SequenceOptions
from silo.models.sequence.trunk import TRUNKS

BEAUTY = "amazon-beauty"
METRICS = ("hit_rate@10", "ndcg@10")
BLEND = "blend"


def read(root: Path, name: str) -> Interactions:
    """A whole set with times; in ``amazon-beauty`` a line is a person, and the place in it the time."""
    if name == BEAUTY:
        lines = (line.split() for line in (root / name / "Beauty.txt").read_text().splitlines())
        records = [(user, item, at) for user, *items in lines for at, item in enumerate(items)]
        rows = pl.DataFrame(records, schema=["user_id", "item_id", "timestamp"], orient="row")
        ids = rows["item_id"].unique().sort()
        catalogue = Catalogue.from_items(CatalogueItem(item_id=item_id) for item_id in ids)
    else:
        public = load_public_set(root / name)
        rows, catalogue = public.rows, public.catalogue
    everything, _ = clean(rows, catalogue, max_interactions_per_user=len(catalogue))
    return everything


def measure(everything: Interactions, options: SequenceOptions) -> dict[str, Any]:
    """All local models of one split."""
    train, held_out = hold_out(everything, "last", seed=options.seed)
    looks: list[Look] = []
    start = time.process_time()
    models = LocalModels.fit(train.histories(), options, looks.append).scorers()
    seconds = time.process_time() - start
    found = {name: _figures(model, train, held_out) for name, model in models.items()}
    validation, test = halves(held_out)
    weights = choose_weights(models, train, validation)
    compared = {**models, BLEND: Blend(models, weights)}
    return {
        "seed": options.seed,
        "models": found,
        "weights": weights,
        "other_half": {name: _figures(model, train, test) for name, model in compared.items()},
        "epochs": looks[-1].epoch,
        "processor_seconds": round(seconds, 1),
    }


def _figures(model: Any, train: Interactions, held_out: Interactions) -> dict[str, float]:
    values = per_user_metrics(rank(model, train, held_out))
    return {metric: float(values[metric].mean()) for metric in METRICS}


def show(result: dict[str, Any], page: Page) -> None:
    """A table for each set."""
    for name, measured in result["sets"].items():
        seeds = measured["seeds"]
        rows = [
            [model, *(_spread([seed["models"][model][metric] for seed in seeds]) for metric in METRICS)]
            for model in seeds[0]["models"]
        ]
        size = f"{measured['users']:,} people, {measured['items']:,} items"
        title = f"last item of {name}, {size}, {len(seeds)} " + ("seed" if len(seeds) == 1 else "seeds")
        page.table(title, ["model", *METRICS], rows)
        half = [seed["other_half"] for seed in seeds]
        best = [max(one[model]["ndcg@10"] for model in one if model != BLEND) for one in half]
        page.say(
            f"ndcg@10 of the half that chose no weights: blend "
            f"{_spread([one[BLEND]['ndcg@10'] for one in half])}, best single model {_spread(best)}. "
            f"`{measured['command']}`, {measured['made']}: {measured['architecture']}, on average "
            f"{np.mean([seed['epochs'] for seed in seeds]):.0f} epochs and "
            f"{np.mean([seed['processor_seconds'] for seed in seeds]) / 60:.1f} processor minutes a seed"
            + (f", ended after {measured['max_epochs']} epochs at most." if measured["max_epochs"] else ".")
        )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values):.4f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--set", default="movielens-100k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--architecture", choices=list(TRUNKS), default="transformer")
    parser.add_argument("--max-epochs", type=int, help="for a look: ends the training early")
    add_json_option(parser, "local_sequence")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    command = f"python benchmarks/local_sequence.py --set {asked.set} --seeds {asked.seeds}"
    command += f" --max-epochs {asked.max_epochs}" if asked.max_epochs else ""
    result = header("local_sequence", command)
    everything = read(root, asked.set)
    bounds = {"max_epochs": asked.max_epochs} if asked.max_epochs else {}
    measured: dict[str, Any] = {
        "command": command,
        "made": result["made"],
        "users": everything.num_users,
        "items": everything.num_items,
        "architecture": asked.architecture,
        "max_epochs": asked.max_epochs,
        "seeds": [],
    }
    for seed in range(asked.seeds):
        options = SequenceOptions(architecture=asked.architecture, seed=seed, **bounds)
        measured["seeds"].append(measure(everything, options))
        result["sets"] = {**_earlier(asked.json), asked.set: measured}
        write(result, asked.json)  # after every seed: one may take an hour
    show(result, Terminal(asked.json))
    return 0


def _earlier(target: str) -> dict[str, Any]:
    """Other sets of the same file stay in it: one run takes hours."""
    path = RESULTS / "local_sequence.json" if target == "-" else Path(target)
    return dict(json.loads(path.read_text())["sets"]) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
