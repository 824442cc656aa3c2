"""Attacks on the account: many small plans against one large promise."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest

from policies.price import reserved_events
from privacy.accounting import Spending, additive_delta_share, admit
from privacy.budget import Budget, ZcdpFilter
from privacy.errors import BudgetExceededError
from privacy.events import additive_delta_of
from tests.contracts.decision_scene import make_plan


@pytest.mark.xfail(
    strict=True,
    reason="clamped noise of probability p is priced (1 + e^epsilon) p with the epsilon of its *plan*; what "
    "the account promises is the composition, whose epsilon is larger and costs (1 + e^spent) p",
)
def test_many_plans_of_small_epsilon_do_not_hide_the_additive_delta_of_their_composition() -> None:
    plan = make_plan(
        catalogue_items=5_000, target_epsilon=0.25, target_delta=1e-13, max_users_per_silo=1 << 12
    )
    (item,) = reserved_events(plan)
    budget = Budget(epsilon=8.0, delta=1e-10, filter=ZcdpFilter())
    spending, jobs = Spending.none(budget.filter), 0
    with suppress(BudgetExceededError):
        while True:
            spending = admit(spending.plus(item.event, item.count), budget)
            jobs += 1
    probability = additive_delta_of(item.event) / (1 + math.exp(plan.privacy.target_epsilon))
    true_delta = jobs * probability * (1 + math.exp(spending.epsilon(budget.delta)))
    assert true_delta <= additive_delta_share(budget.delta)
