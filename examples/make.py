"""Write the worked example with the product's own templates and calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

from policies.catalog import render_template
from policies.drafting import Draft, complete_plan
from policies.plan_text import render_plan
from silo.config import DEFAULT_AGENT_TOML

HERE = Path(__file__).parent
SHOPS = ("shop-a", "shop-b", "shop-c", "shop-d")
CATALOGUE_SHA256 = "85e5a5d3838ed10b075023cc9e64d8da5d8c3717112af35afe529bf27f40391c"
"""Of the built-in marketplace's item list, seed 0."""


def policy() -> str:
    """The ``retailer`` template as shop-a's administrator edited it."""
    return render_template(
        "retailer",
        silo="shop-a",
        expires=date(2027, 6, 30),
        with_members=list(SHOPS[1:]),
        source={"parquet": "data/purchases/*.parquet"},
        columns={"user_id": "customer", "item_id": "sku", "timestamp": "bought_at"},
        delta=1e-5,
        min_silos=4,
    )


DRAFT = Draft(
    silos=SHOPS,
    catalogue_sha256=CATALOGUE_SHA256,
    catalogue_items=1200,
    family="item-graph",
    target_epsilon=4.0,
    target_delta=1e-5,
    max_users_per_silo=4096,
    max_silos_per_user=1,
    holdout="random",
    holdout_seed=7,
)


def plan() -> str:
    """What ``archipel plan new`` writes for these options."""
    return render_plan(complete_plan(DRAFT))


def trained_plan() -> str:
    """What it writes for a model trained over many rounds, a few of which may fail."""
    return render_plan(complete_plan(replace(DRAFT, family="autoencoder", max_burned_rounds=3)))


FILES: dict[str, Callable[[], str]] = {
    "policy.yaml": policy,
    "plan.yaml": plan,
    "plan-autoencoder.yaml": trained_plan,
    "agent.toml": lambda: DEFAULT_AGENT_TOML,
}

if __name__ == "__main__":
    for name, render in FILES.items():
        (HERE / name).write_text(render(), encoding="utf-8")
