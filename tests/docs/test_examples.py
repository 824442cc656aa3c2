"""The worked example is what the product makes, is valid, and fits together."""

from __future__ import annotations

import runpy
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policies.catalog import TEMPLATES
from policies.decisions.decision import authorize
from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from policies.silo_policy import SiloPolicy
from silo.config import load_config
from tests.contracts.decision_scene import make_charter, make_ledger

EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


FILES = runpy.run_path(str(EXAMPLES / "make.py"))["FILES"]
PLANS = sorted(name for name in FILES if Path(name).name.startswith("plan"))


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_product_writes(name: str) -> None:
    assert (EXAMPLES / name).read_text(encoding="utf-8") == FILES[name]()


def test_every_template_is_shown() -> None:
    assert {Path(name).parent.name for name in FILES} == {"", *TEMPLATES} - {"retailer"}


@pytest.mark.parametrize("name", PLANS)
def test_the_policy_accepts_the_plan(name: str) -> None:
    path = EXAMPLES / name
    policy, plan = load_yaml(path.with_name("policy.yaml"), SiloPolicy), load_yaml(path, Plan)
    accepted = authorize(plan, policy, make_ledger(policy), NOW, charter=make_charter(plan.silos))
    assert accepted.dataset in policy.datasets
    assert plan_epsilon(plan) <= plan.privacy.target_epsilon


def test_the_settings_are_read() -> None:
    assert load_config(EXAMPLES).log_level == "info"
    assert set(tomllib.loads((EXAMPLES / "agent.toml").read_text(encoding="utf-8"))) == {"log_level"}
