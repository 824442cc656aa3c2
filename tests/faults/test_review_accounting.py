"""Attacks on the account: many small plans against one large promise."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest

from policies.plans.price import reserved_events
from privacy.accounting import Spending, additive_delta_share, admit
from privacy.budget import Budget, ZcdpFilter
from privacy.errors import BudgetExceededError
from privacy.events import EventCount, GaussianEvent, clamp_probability_of
from tests.contracts.decision_scene import make_plan

PLAN = make_plan(catalogue_items=5_000, target_epsilon=0.25, target_delta=1e-13, max_users_per_silo=1 << 12)
BUDGET = Budget(epsilon=8.0, delta=1e-10, filter=ZcdpFilter())


def as_the_plan_says() -> EventCount:
    (item,) = reserved_events(PLAN)
    return item


def as_if_the_plan_were_alone() -> EventCount:
    """Clamped as often as the plan's own epsilon could pay for with its own 1 % of delta."""
    (item,) = reserved_events(PLAN)
    assert isinstance(item.event, GaussianEvent)
    probability = additive_delta_share(PLAN.privacy.target_delta) / (1 + math.exp(0.25))
    return EventCount(item.event.model_copy(update={"clamp_probability": probability}), item.count)


@pytest.mark.parametrize(
    ("item", "fewest_jobs"), [(as_the_plan_says(), 100), (as_if_the_plan_were_alone(), 0)]
)
def test_many_plans_of_small_epsilon_do_not_hide_the_additive_delta_of_their_composition(
    item: EventCount, fewest_jobs: int
) -> None:
    spending, jobs = Spending.none(BUDGET.filter), 0
    with suppress(BudgetExceededError):
        while True:
            spending = admit(spending.plus(item.event, item.count), BUDGET)
            jobs += 1
    true_delta = jobs * clamp_probability_of(item.event) * (1 + math.exp(spending.epsilon(BUDGET.delta)))
    assert true_delta <= additive_delta_share(BUDGET.delta)
    assert jobs >= fewest_jobs
