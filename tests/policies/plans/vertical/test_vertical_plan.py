"""Vertical plans: which contradict themselves, what each role pays, and what a policy has against them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from policies.decisions.vertical_reasons import alignment_reasons
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon, plan_epsilon_pld, reserved_events, schedule
from policies.plans.summary import describe, summarise
from policies.plans.text import render_plan
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.validation import parse_yaml
from privacy.accounting import Spending
from privacy.budget import RenyiFilter, ZcdpFilter
from privacy.events import GaussianEvent, PureEvent
from tests.contracts.decision_scene import CATALOGUE, ORDERS, altered, make_policy

SILOS = ("shop-a", "content", "social")
CAPACITIES = {"shop-a": 4096, "content": 4096, "social": 2048}
ALIGNMENT = {"capacity": 4096, "min_intersection": 500, "max_runs_per_30_days": 2}


def make_vertical(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "label": SILOS[0],
        "features": {"content": "user", "social": "user_row"},
        "catalogue_sha256": CATALOGUE,
        "catalogue_items": 300,
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "capacities": CAPACITIES,
        "min_intersection": 500,
    }
    return complete_vertical_plan(VerticalDraft(**{**fields, **changes}))


def reasons(plan: Plan, recent: int = 0, **alignment: Any) -> set[str]:
    policy = altered(make_policy(), {"alignment": {**ALIGNMENT, **alignment}})
    return {reason.code for reason in alignment_reasons(plan, policy, recent)}


def test_the_file_reads_back_to_the_same_plan() -> None:
    plan = make_vertical()
    text = render_plan(plan)
    assert parse_yaml(text.encode(), Plan, "plan.yaml") == plan
    assert "same users, different data" in text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"silos": ["content", "shop-a", "social"]}, "roles.label"),
        ({"silos": ["shop-a", "content", "content", "social"]}, "silos"),
        ({"roles": None}, "roles"),
        ({"roles.features.shop-a": {"unit": "user"}}, "roles.features"),
        ({"roles.features.social": None}, "roles.features"),
        ({"roles.features.social": {"unit": "user_node"}}, "roles.features.social.max_degree"),
        ({"roles.features.social": {"unit": "user", "max_degree": 9}}, "roles.features.social.max_degree"),
        (
            {
                "roles.features.social": {"unit": "user_node", "max_degree": 260},
                "alignment.reveal": "both",
                "alignment.epsilon": 1.0,
            },
            "roles.features.social.max_degree",
        ),
        ({"alignment": None}, "alignment"),
        ({"alignment.capacities.social": None}, "alignment.capacities"),
        ({"alignment.capacities.social": 5000}, "alignment.capacities"),
        ({"alignment.min_intersection": 3000}, "alignment.min_intersection"),
        ({"alignment.epsilon": 4.0}, "alignment.epsilon"),
        ({"model": {"family": "item-graph"}}, "model.family"),
        ({"model.label_items": 301}, "model.label_items"),
        ({"training.rounds": 2}, "training"),
        ({"training.max_burned_rounds": 1}, "training"),
        ({"protection.min_silos": 2}, "protection.min_silos"),
        ({"protection.round_minutes": 5.0}, "protection.min_silos"),
        ({"releases.model": "members"}, "releases.model"),
        ({"releases.metrics": {"noised": True, "epsilon": 0.2}}, "releases.metrics"),
        ({"privacy.contribution_norm": 2.0}, "privacy.contribution_norm"),
        ({"privacy.max_grad_norm": 1.0}, "privacy.max_grad_norm"),
        ({"privacy.noise_placement": "federation"}, "privacy.noise_placement"),
        ({"privacy.colluding_silos": 1}, "privacy.noise_placement"),
        ({"privacy.max_silos_per_user": 1}, "privacy.max_silos_per_user"),
    ],
)
def test_a_contradiction_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=rf"\b{field}: "):
        altered(make_vertical(), changes)


@pytest.mark.parametrize("field", ["roles", "alignment"])
def test_a_horizontal_plan_aligns_nobody(field: str) -> None:
    from tests.contracts.decision_scene import make_plan

    value = make_vertical().model_dump(mode="json")[field]
    with pytest.raises(ValidationError, match=f"{field}: only vertical plans"):
        altered(make_plan(), {field: value})


def test_cross_moments_are_vertical_only() -> None:
    from tests.contracts.decision_scene import make_plan

    with pytest.raises(ValidationError, match=r"model\.family: cross-moments"):
        altered(make_plan(), {"model": {"family": "cross-moments", "label_items": 100}})


def test_it_has_no_secure_sum() -> None:
    assert schedule(make_vertical()) == ()


def test_each_role_pays_for_what_it_releases() -> None:
    plan = make_vertical()
    (alignment,) = reserved_events(plan, "shop-a")
    assert alignment == (PureEvent(epsilon=0.1), 1)
    for silo in ("content", "social", None, "stranger"):
        first, *noised = reserved_events(plan, silo)
        assert first == alignment
        assert [type(item.event) for item in noised] == [GaussianEvent, GaussianEvent]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_basis_and_moments_share_the_zcdp_of_one_release(share: float) -> None:
    plan = make_vertical(basis_share=share)
    gaussians = [item for item in reserved_events(plan, "content") if isinstance(item.event, GaussianEvent)]
    assert sum(item.count for item in gaussians) == 2
    rho = sum(item.count / (2 * item.event.noise_multiplier**2) for item in gaussians)  # type: ignore[union-attr]
    promised = 1 / (2 * plan.privacy.noise_multiplier**2)
    assert promised * (1 - 1e-4) < rho <= promised


@pytest.mark.parametrize("spec", [ZcdpFilter(), RenyiFilter(orders=ORDERS)])
@pytest.mark.parametrize("epsilon", [0.5, 4.0, 20.0])
def test_the_promise_is_kept_and_hardly_more(spec: ZcdpFilter | RenyiFilter, epsilon: float) -> None:
    plan = make_vertical(target_epsilon=epsilon, filter=spec, alignment_epsilon=0.1)
    assert 0.995 * epsilon < plan_epsilon(plan) <= epsilon
    assert plan_epsilon_pld(plan) <= plan_epsilon(plan)
    assert Spending.of(reserved_events(plan, "content"), spec).epsilon(1e-6) <= epsilon


def test_less_noise_than_the_promise_needs_is_seen() -> None:
    plan = make_vertical()
    weaker = altered(plan, {"privacy.noise_multiplier": plan.privacy.noise_multiplier * 0.99})
    assert plan_epsilon(weaker) > plan.privacy.target_epsilon


def test_a_policy_without_alignment_aligns_nobody() -> None:
    assert [reason.code for reason in alignment_reasons(make_vertical(), make_policy(), 0)] == [
        "alignment_not_accepted"
    ]


def test_a_policy_with_fitting_limits_has_nothing_against_it() -> None:
    assert reasons(make_vertical()) == set()


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"capacity": 8192}, "capacity_mismatch"),
        ({"capacity": 2048}, "capacity_mismatch"),
        ({"min_intersection": 501}, "min_intersection_too_small"),
    ],
)
def test_what_a_policy_limits(limits: dict[str, Any], code: str) -> None:
    assert reasons(make_vertical(), **limits) == {code}


def test_revealing_whom_silos_share_needs_a_policy_that_says_so() -> None:
    plan = make_vertical(reveal="both")
    assert reasons(plan) == {"reveal_not_accepted"}
    assert reasons(plan, reveal="both") == set()


def test_alignments_are_limited_within_thirty_days() -> None:
    assert reasons(make_vertical(), recent=1) == set()
    assert reasons(make_vertical(), recent=2) == {"too_many_alignments"}


def test_a_graph_is_protected_as_its_dataset_declares() -> None:
    plan = make_vertical()
    assert (plan.unit_of("content"), plan.unit_of("social"), plan.unit_of("shop-a")) == (
        "user",
        "user_row",
        "user",
    )
    assert plan.roles is not None
    assert plan.roles.features["social"].rows_per_unit == 1
    node = make_vertical(features={"content": "user", "social": "user_node:20"})
    assert node.roles is not None
    assert node.roles.features["social"].rows_per_unit == 41


def test_the_multiplier_is_written_with_five_digits() -> None:
    multiplier = make_vertical().privacy.noise_multiplier
    assert math.isclose(multiplier, round(multiplier, 5), rel_tol=0, abs_tol=1e-12)


def test_the_summary_says_what_each_role_pays() -> None:
    plan = make_vertical(features={"content": "user", "social": "user_node:20"})
    summary = summarise(plan)
    assert summary["epsilon_by_silo"]["content"] == summary["epsilon"] == plan_epsilon(plan)
    assert summary["epsilon_by_silo"]["shop-a"] < 0.6
    text = "\n".join(describe(plan, summary))
    assert "up to 20 others'" in text
    assert "10,240 slots" in text
    assert summary["serving"] == ["own_features_only", "consented_session", "user_side_merge"]
    assert "serving without asking takes a plan of the family private-encoder (dp_release)" in text
