"""Write the worked examples with the product's own templates and calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from policies.catalog import render_template
from policies.plans.drafting import Draft, complete_plan
from policies.plans.text import render_plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from privacy.budget import RenyiFilter
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


class Scene(NamedTuple):
    """A template in use: whose policy it is, the partners, and a plan that it accepts.

    Attributes:
        silos: the roster; the first one's policy is shown.
        draft: what the plan decides apart from the roster.
    """

    silos: tuple[str, ...]
    draft: dict[str, Any]


ORDERS = RenyiFilter(orders=(2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
SCENES = {
    "strict": Scene(
        ("clinic-a", "clinic-b", "clinic-c", "clinic-d"),
        {
            "purpose": "care-recommendation",
            "family": "popularity",
            "target_epsilon": 1.0,
            "target_delta": 1e-7,
            "max_silos_per_user": 4,
            "colluding_silos": 2,
            "max_interactions_per_user": 100,
            "holdout": "none",
        },
    ),
    "social-network": Scene(
        ("platform", "shop-b", "shop-c", "shop-d"),
        {
            "purpose": "content-recommendation",
            "family": "autoencoder",
            "target_epsilon": 3.0,
            "target_delta": 1e-7,
            "max_silos_per_user": 4,
            "max_users_per_silo": 200_000,
            "filter": ORDERS,
            "sample_rate": 0.05,
            "rounds": 100,
        },
    ),
    "research": Scene(
        ("uni-a", "uni-b", "uni-c"),
        {"purpose": "research", "target_epsilon": 8.0, "filter": ORDERS, "metrics_epsilon": 1.0},
    ),
}


def scene_policy(template: str) -> str:
    """A template with its partners named and nothing else changed."""
    me, *partners = SCENES[template].silos
    return render_template(template, silo=me, expires=date(2027, 6, 30), with_members=partners)


def scene_plan(template: str) -> str:
    """A plan that the first silo's policy accepts."""
    scene = SCENES[template]
    return render_plan(complete_plan(replace(DRAFT, silos=scene.silos, **scene.draft)))


VERTICAL_PARTNERS = ("content", "shop", "social")
VERTICAL_DRAFT = VerticalDraft(
    label="shop",
    features={"content": "user", "social": "user_row"},
    catalogue_sha256=CATALOGUE_SHA256,
    catalogue_items=1200,
    target_epsilon=4.0,
    target_delta=1e-6,
    capacities={"shop": 20_000, "content": 10_000, "social": 15_000},
    min_intersection=1_000,
    holdout="random",
    holdout_seed=7,
)


def vertical_policy() -> str:
    """The ``vertical-partner`` template of a content platform beside a shop and a social network."""
    me, *partners = VERTICAL_PARTNERS
    return render_template("vertical-partner", silo=me, expires=date(2027, 6, 30), with_members=partners)


def vertical_plan() -> str:
    """A plan in which the shop recommends better by what the others know."""
    return render_plan(complete_vertical_plan(VERTICAL_DRAFT))


FILES: dict[str, Callable[[], str]] = {
    "policy.yaml": policy,
    "plan.yaml": plan,
    "plan-autoencoder.yaml": trained_plan,
    "agent.toml": lambda: DEFAULT_AGENT_TOML,
    **{f"{name}/policy.yaml": partial(scene_policy, name) for name in SCENES},
    **{f"{name}/plan.yaml": partial(scene_plan, name) for name in SCENES},
    "vertical-partner/policy.yaml": vertical_policy,
    "vertical-partner/plan.yaml": vertical_plan,
}

if __name__ == "__main__":
    for name, render in FILES.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_text(render(), encoding="utf-8")
