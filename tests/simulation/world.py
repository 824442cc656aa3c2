"""The disks that simulations begin with: made once by the product's own functions, then copied.

Four silos have joined one charter; a job's roster is all of them or the first three. Everything is as small
as the product allows: six items, ten people a silo, one ciphertext a contribution.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from policies.administration import sign_policy
from policies.catalog import render_template
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from silo.data.catalogue import Catalogue, CatalogueItem
from tests.contracts.federation_directories import Federation, make_federation
from tests.simulation.clock import EPOCH

HUB = "hub"
SILOS = ("shop-a", "shop-b", "shop-c", "shop-d")
NUM_ITEMS, NUM_USERS, MAX_USERS = 6, 10, 16
CAPACITY = 70
"""Of a silo's list in a vertical job: two blocks of slots."""
EPSILON, DELTA = 8.0, 1e-5
EXPIRES = date(2031, 1, 1)
CHECKING = ("shop-b", "shop-d")
"""Silos that recompute every sum; the others never do: no coin of theirs depends on chance."""

_GRADIENTS: dict[str, Any] = {
    "features": 2,
    "rounds": 2,
    "expected_batch_size": 30.0,
    "learning_rate": 0.1,
    "max_burned_rounds": 3,
}
SCENARIOS: dict[str, dict[str, Any]] = {
    # one sum of counts and one of metrics; every silo is waited for
    "statistics": {
        "silos": SILOS[:3], "family": "popularity", "holdout": "random", "metrics_epsilon": 1.0,
        "max_burned_rounds": 1,
    },
    # one sum for each noised step; every silo is waited for
    "steps": {"silos": SILOS[:3], "family": "linear", **_GRADIENTS},
    # shared noise of four silos, where three may go on alone
    "absences": {
        "silos": SILOS, "family": "linear", **_GRADIENTS, "min_silos": 3, "round_minutes": 0.25,
    },
    # popularity, then rounds of local steps under each silo's own noise, where two of three may go on alone
    "local-steps": {
        "silos": SILOS[:3], "family": "autoencoder", **_GRADIENTS, "hidden": 1, "bias_epsilon": 1.0,
        "local_steps": 2, "local_learning_rate": 0.1, "noise_placement": "silo", "min_silos": 2,
        "round_minutes": 0.25,
    },
}  # fmt: skip
VERTICAL: dict[str, dict[str, Any]] = {
    # lists of people round the ring, slots, a key, blocks, moments: what travels is opaque
    "alignment": {"silos": SILOS[:3]},
}
ALL = SCENARIOS | VERTICAL


@dataclass(frozen=True)
class Template:
    """Disks of a coordinator and four silos that have joined, and a plan for each scenario.

    Attributes:
        root: holds a directory for each party.
        parties: their keys and charter.
        plans: by scenario.
        catalogue: the public items.
    """

    root: Path
    parties: Federation
    plans: dict[str, Plan]
    catalogue: Path


@contextmanager
def template(*, vertical: bool = False) -> Iterator[Template]:
    """Make the disks, in memory where the machine has a file system for that."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="archipel-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield _make(root, vertical=vertical)
    finally:
        shutil.rmtree(root)


def _make(root: Path, *, vertical: bool) -> Template:
    parties = make_federation(root / "template", silos=SILOS)
    parties.install_charter()
    items = (
        CatalogueItem(item_id=f"i{number}", title=f"Item {number}", attributes=(f"genre:{number % 2}",))
        for number in range(NUM_ITEMS)
    )
    catalogue = Catalogue.from_items(items)
    path = catalogue.save(root / "catalogues")
    for seed, name in enumerate(SILOS):
        _furnish(parties.parties[name].directory, name, seed, vertical=vertical)
    if vertical:
        plans = {name: _vertical_plan(catalogue, **fields) for name, fields in VERTICAL.items()}
    else:
        plans = {name: _plan(catalogue, **fields) for name, fields in SCENARIOS.items()}
    return Template(root, parties, plans, path)


def _furnish(directory: Path, name: str, seed: int, *, vertical: bool) -> None:
    """Rows and a signed policy."""
    rows = [
        (f"{name}-{user}", f"i{(user * (seed + 1) + step * (1 + user % 2)) % NUM_ITEMS}")
        for user in range(NUM_USERS)
        for step in range(3)
    ]
    (directory / "data").mkdir()
    table = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    table.write_parquet(directory / "data" / "rows.parquet")
    policy = render_template(
        "retailer", silo=name, expires=EXPIRES, with_members=[other for other in SILOS if other != name],
        source={"parquet": "data/*.parquet"}, columns={"user_id": "user_id", "item_id": "item_id"},
        epsilon=EPSILON, delta=DELTA, max_epsilon_per_plan=EPSILON, min_silos=2,
        max_silos_per_user=3 if vertical else 1, min_colluding_silos=1,
        verify_sums=1.0 if name in CHECKING else 0.0,
    )  # fmt: skip
    if vertical:
        policy += f"\nalignment: {{capacity: {CAPACITY}, min_intersection: 20, max_runs_per_30_days: 9}}\n"
    (directory / "policy.yaml").write_text(policy)
    sign_policy(directory, EPOCH)


def _plan(catalogue: Catalogue, **fields: Any) -> Plan:
    return complete_plan(
        Draft(
            catalogue_sha256=catalogue.sha256, catalogue_items=NUM_ITEMS, target_epsilon=EPSILON,
            target_delta=DELTA, max_users_per_silo=MAX_USERS, max_silos_per_user=1,
            max_interactions_per_user=4, **fields,
        )
    )  # fmt: skip


def _vertical_plan(catalogue: Catalogue, silos: tuple[str, ...]) -> Plan:
    return complete_vertical_plan(
        VerticalDraft(
            label=silos[0], features=dict.fromkeys(silos[1:], "user"), catalogue_sha256=catalogue.sha256,
            catalogue_items=NUM_ITEMS, target_epsilon=EPSILON, target_delta=DELTA,
            capacities=dict.fromkeys(silos, CAPACITY), min_intersection=20,
        )
    )  # fmt: skip


def copy_disk(source: Path, target: Path) -> None:
    """Copy a party's directory as a kill leaves it: what was written, nothing that was only in memory.

    Files that production code replaces and never alters share their bytes with the copy. SQLite's index of
    its write-ahead log is memory; a new process makes it anew.
    """
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir():
                copy_disk(source / entry.name, target / entry.name)
            elif _is_altered_in_place(entry.name):
                shutil.copyfile(entry.path, target / entry.name)
            elif not entry.name.endswith("-shm"):
                os.link(entry.path, target / entry.name)


def _is_altered_in_place(name: str) -> bool:
    return name.endswith((".db", "-wal", ".part", ".partial", ".jsonl", ".lock"))
