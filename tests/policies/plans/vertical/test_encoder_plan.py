"""Plans with a private encoder: which contradict themselves, and what the two releases cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon, plan_epsilon_pld, reserved_events
from policies.plans.shapes import MAX_ENCODER_COLUMNS, PlanImpossibleError
from policies.plans.summary import describe, summarise
from policies.plans.text import render_plan
from policies.plans.vertical.drafting import VerticalDraft, recalibrate_vertical
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_step
from policies.validation import parse_yaml
from privacy.accounting import epsilon_of
from privacy.budget import RenyiFilter, ZcdpFilter
from privacy.errors import UsageError
from privacy.events import (
    EventCount,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PureEvent,
    SelfComposedEvent,
)
from silo.vertical.columns import MAX_COLUMNS
from tests.contracts.decision_scene import CATALOGUE, ORDERS, altered
from tests.policies.plans.vertical.test_vertical_plan import make_vertical

SILOS = ("shop-a", "content", "social")
CAPACITIES = {"shop-a": 4096, "content": 4096, "social": 2048}
RENYI = RenyiFilter(orders=ORDERS)


def make_encoder(encoder: EncoderDraft | None = None, **changes: Any) -> Plan:
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
    return complete_encoder_plan(VerticalDraft(**{**fields, **changes}), encoder or EncoderDraft())


def test_the_file_reads_back_to_the_same_plan() -> None:
    plan = make_encoder()
    assert parse_yaml(render_plan(plan).encode(), Plan, "plan.yaml") == plan


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model.release_epsilon": 4.0}, "model.release_epsilon"),
        (
            {
                "roles.features.social": {"unit": "user_node", "max_degree": 9},
                "training.sample_rate": 0.5,
                "privacy.filter": "renyi",
                "privacy.orders": list(ORDERS),
            },
            "roles.features.social.unit",
        ),
        ({"privacy.max_grad_norm": None}, "privacy.max_grad_norm"),
        ({"privacy.contribution_norm": 1.0}, "privacy.contribution_norm"),
        ({"training.optimizer": None}, "training.optimizer"),
        ({"training.expected_batch_size": None}, "training.expected_batch_size"),
        ({"training.rounds": 1}, "training.rounds"),
        ({"training.local_steps": 2}, "training.local_steps"),
        ({"training.max_burned_rounds": 1}, "training.local_steps"),
        ({"training.sample_rate": 0.5}, "privacy.filter"),
        ({"model.label_items": 301}, "model.label_items"),
        ({"privacy.noise_placement": "federation"}, "privacy.noise_placement"),
        ({"partition": "horizontal", "roles": None, "alignment": None}, "model.family"),
    ],
)
def test_a_contradiction_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=rf"\b{field}: "):
        altered(make_encoder(), changes)


@pytest.mark.parametrize("filter_", [None, RENYI])
@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_promise_is_kept_with_little_to_spare(
    filter_: RenyiFilter | None, epsilon: float, share: float
) -> None:
    rate = 1.0 if filter_ is None else 0.25
    plan = make_encoder(
        EncoderDraft(release_share=share, sample_rate=rate), target_epsilon=epsilon, filter=filter_
    )
    assert 0.99 * epsilon < plan_epsilon(plan) <= epsilon
    assert plan_epsilon_pld(plan) <= plan_epsilon(plan)


def test_each_role_pays_for_what_it_releases() -> None:
    plan = make_encoder()
    assert reserved_events(plan, "shop-a") == (EventCount(PureEvent(epsilon=0.1), 1),)
    alignment, training, release = reserved_events(plan, "content")
    assert alignment.event == PureEvent(epsilon=0.1)
    assert isinstance(training.event, SelfComposedEvent)
    assert training.event.count == plan.training.rounds
    assert isinstance(release.event, GaussianEvent)
    assert (alignment.count, training.count, release.count) == (1, 1, 1)


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
def test_the_release_is_never_amplified_by_what_the_training_samples(rate: float) -> None:
    plan = make_encoder(EncoderDraft(sample_rate=rate), filter=RENYI)
    release = encoder_release_event(plan)
    assert release == encoder_release_event(make_encoder(filter=RENYI))
    alone = epsilon_of([EventCount(release, 1)], 1e-6, RENYI)
    assert 0.99 * 3.2 < alone <= 3.2  # the share of the promise that the draft gives the release
    step = encoder_step(plan).event
    assert isinstance(step, PoissonSampledGaussianEvent) == (rate < 1)


def test_a_step_is_priced_for_its_rounding_and_for_one_silo() -> None:
    plan = make_encoder()
    step = encoder_step(plan)
    assert step.max_values == 2 * MAX_COLUMNS * 8
    assert step.sensitivity == pytest.approx(step.grid * (1 + 1e-5) + math.sqrt(step.max_values))
    assert step.event.noise_multiplier == pytest.approx(step.noise_std / step.sensitivity)
    assert MAX_ENCODER_COLUMNS == MAX_COLUMNS


def test_a_node_of_a_graph_counts_once_for_itself_and_twice_for_each_list_it_is_in() -> None:
    plan = make_encoder(features={"content": "user", "social": "user_node:3"})
    one, node = encoder_step(plan, "content"), encoder_step(plan, "social")
    assert one == encoder_step(plan)
    assert node.sensitivity == 7 * one.sensitivity
    assert node.noise_std == 7 * one.noise_std
    assert node.event == one.event


@pytest.mark.parametrize("grid", [100, 2**30])
def test_a_grid_on_which_nothing_can_be_summed_is_refused(grid: int) -> None:
    with pytest.raises(PlanImpossibleError, match="grid"):
        encoder_step(altered(make_encoder(), {"privacy.grid": grid}))


def test_a_plan_of_moments_has_no_encoder() -> None:
    with pytest.raises(UsageError, match="encoder"):
        encoder_step(make_vertical())


def test_a_release_that_no_noise_makes_private_is_refused() -> None:
    plan = altered(make_encoder(filter=RENYI), {"model.release_epsilon": 0.01})
    with pytest.raises(PlanImpossibleError, match="release_epsilon"):
        encoder_release_event(plan)


def test_people_are_told_of_both_releases() -> None:
    plan = make_encoder()
    summary = summarise(plan)
    assert summary["release_noise_multiplier"] == encoder_release_event(plan).noise_multiplier
    assert summary["training_noise_multiplier"] == encoder_step(plan).event.noise_multiplier
    text = "\n".join(describe(plan, summary))
    assert "released once" in text
    assert "its rows stay with it" in text
    assert summary["serving"] == ["own_features_only", "dp_release", "consented_session"]
    assert "from the noised numbers that this job releases (dp_release)" in text


def test_zcdp_prices_both_alike_by_two_accountants() -> None:
    plan = make_encoder()
    events = reserved_events(plan, "content")
    assert epsilon_of(events, 1e-6, ZcdpFilter()) == plan_epsilon(plan)


def test_the_noise_of_another_promise_keeps_the_releases_share() -> None:
    plan = make_encoder()
    stricter = recalibrate_vertical(plan, 2.0)
    assert stricter.model == plan.model.model_copy(update={"release_epsilon": pytest.approx(1.6)})
    assert 1.98 < plan_epsilon(stricter) <= 2.0
    assert stricter == make_encoder(target_epsilon=2.0)
