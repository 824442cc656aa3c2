"""One silo's directory with rows, a policy and finished jobs, made without a federation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from policies.files import save_yaml
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from silo.data.catalogue import Catalogue
from silo.models.shipped import ShippedModel

POLICY = """\
kind: SiloPolicy
schema_version: 1
version: 1
silo: shop-a
expires: 2027-06-30
datasets:
  purchases:
    source: {parquet: rows.parquet}
    columns: {user_id: user_id, item_id: item_id, timestamp: timestamp}
    max_interactions_per_user: 100000
    population: customers
    max_silos_per_user: 1
    exclude_users: no.csv
budgets:
  customers: {epsilon: 8.0, delta: 1.0e-6, scope: lifetime, filter: zcdp}
accepts:
  purposes: {product-recommendation: purchases}
  with_members: [shop-b, shop-c]
  max_epsilon_per_plan: 4.0
  min_silos: 3
  min_colluding_silos: 1
"""


def local_plan(catalogue: Catalogue, **changes: Any) -> Plan:
    """A plan of three silos over ``catalogue`` that holds out everybody's last row."""
    fields: dict[str, Any] = {
        "silos": ("shop-a", "shop-b", "shop-c"),
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "family": "popularity",
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 10_000,
        "max_silos_per_user": 1,
        "max_interactions_per_user": 1000,
        "holdout": "last",
    }
    return complete_plan(Draft(**{**fields, **changes}))


def make_local_silo(directory: Path, catalogue: Catalogue, rows: pl.DataFrame, **changes: Any) -> Path:
    """Write rows (``user_id``, ``item_id``, ``timestamp``), policy, catalogue and ``plan.yaml``."""
    directory.mkdir(parents=True, exist_ok=True)
    catalogue.save(directory / "catalogues")
    rows.write_parquet(directory / "rows.parquet")
    (directory / "no.csv").write_text("user_id\n")
    (directory / "policy.yaml").write_text(POLICY)
    save_yaml(directory / "plan.yaml", local_plan(catalogue, **changes))
    return directory


def finish_job(directory: Path, job: str, plan: Plan, model: ShippedModel) -> None:
    """What a job leaves: its plan, the policy it was answered under, its model and card."""
    place = directory / "jobs" / job
    place.mkdir(parents=True)
    save_yaml(place / "plan.yaml", plan)
    policy = parse_yaml(POLICY.encode(), SiloPolicy, "policy.yaml")
    (place / "policy.json").write_text(policy.model_dump_json())
    (place / "model-card.json").write_text(json.dumps({"note": None}))
    model.save(place / "model.safetensors")
