"""How well a silo's models tell likes from dislikes, and how near its predictors come to ratings.

Real sets with ratings, everybody in one silo, a random 20 % of each person's liked rows held out and as many
of the others. Liked is rated 4 or better; lists are learnt from likes only. Thresholds and slopes are fitted
on half of the people, figures are of the other half. No constant was chosen on these sets.

    ARCHIPEL_DATA=PATH python benchmarks/ratings.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reporting import Page, Terminal, add_json_option, header, write

from policies.plans.drafting import Draft, complete_plan
from policies.silo_policy import Columns, Dataset, Source
from silo.data.public_sets import load_public_set
from silo.local.comparing import compare_models
from silo.local.files import Source as LocalSource
from silo.local.fitting import fit_local
from silo.local.rating_metrics import RATING_METRICS

SETS = ("movielens-100k", "movielens-latest-small")
LIKED_FROM = 4.0


def measure(folder: Path) -> dict[str, Any]:
    """Fit a silo's own models to one set, and compare them."""
    public = load_public_set(folder)
    rows, catalogue = public.rows, public.catalogue
    draft = Draft(
        silos=("a", "b", "c"), catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue),
        family="popularity", target_epsilon=1.0, target_delta=1e-6, max_silos_per_user=1,
        max_interactions_per_user=10_000, max_users_per_silo=100_000, holdout="random",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        catalogue.save(directory / "catalogues")
        rows.write_parquet(directory / "rows.parquet")
        dataset = Dataset(
            source=Source(parquet="rows.parquet"),
            columns=Columns(timestamp="timestamp", rating="rating"),
            min_rating=LIKED_FROM,
            max_interactions_per_user=10_000,
            population="people",
            max_silos_per_user=1,
        )
        now = datetime.now(UTC)
        fit_local(directory, LocalSource("people", dataset, complete_plan(draft)), now)
        found = compare_models(directory, None, now, keep=False)
    models = {row["name"]: row["ratings"] for row in (*found["models"], found["blend"])}
    return {
        "set": folder.name,
        "rows": rows.height,
        "facts": {name: value for name, value in found["ratings"].items() if name != "predictors"},
        "figures": {**found["ratings"]["predictors"], **models},
    }


def show(result: dict[str, Any], page: Page) -> None:
    """A table a set."""
    for record in result["sets"]:
        facts = record["facts"]
        page.table(
            f"{record['set']}, {facts['test_ratings']:,} held-out ratings; always the more frequent answer: "
            f"accuracy {facts['majority']:.4f}",
            ["model", *RATING_METRICS],
            [
                [name, *("–" if of[key] is None else f"{of[key]:.4f}" for key in RATING_METRICS)]
                for name, of in record["figures"].items()
            ],
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--sets", nargs="+", default=SETS, help="folders below it")
    add_json_option(parser, "ratings")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    command = f"python benchmarks/ratings.py --sets {' '.join(asked.sets)}"
    result = header("ratings", command) | {"sets": [measure(root / name) for name in asked.sets]}
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
