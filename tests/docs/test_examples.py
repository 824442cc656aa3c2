"""The worked example is what the product makes, is valid, and fits together."""

from __future__ import annotations

import runpy
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policies.decision import authorize
from policies.files import load_yaml
from policies.plan import Plan
from policies.price import plan_epsilon
from policies.silo_policy import SiloPolicy
from silo.config import load_config
from tests.contracts.decision_scene import make_charter, make_ledger

EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["policy.yaml", "plan.yaml", "plan-autoencoder.yaml", "agent.toml"])
def test_the_file_is_what_the_product_writes(name: str) -> None:
    files = runpy.run_path(str(EXAMPLES / "make.py"))["FILES"]
    assert (EXAMPLES / name).read_text(encoding="utf-8") == files[name]()


@pytest.mark.parametrize("name", ["plan.yaml", "plan-autoencoder.yaml"])
def test_the_policy_accepts_the_plan(name: str) -> None:
    policy, plan = load_yaml(EXAMPLES / "policy.yaml", SiloPolicy), load_yaml(EXAMPLES / name, Plan)
    accepted = authorize(plan, policy, make_ledger(policy), NOW, charter=make_charter(plan.silos))
    assert accepted.dataset == "purchases"
    assert plan_epsilon(plan) <= plan.privacy.target_epsilon


def test_the_settings_are_read() -> None:
    assert load_config(EXAMPLES).log_level == "info"
    assert set(tomllib.loads((EXAMPLES / "agent.toml").read_text(encoding="utf-8"))) == {"log_level"}
