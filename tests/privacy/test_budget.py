from __future__ import annotations

import pytest
from pydantic import ValidationError

from privacy.budget import Budget, RenyiFilter, ZcdpFilter


def test_a_budget_reads_back_from_json() -> None:
    budget = Budget(epsilon=8.0, delta=1e-6, filter=RenyiFilter(orders=(2, 4, 8)))
    assert Budget.model_validate_json(budget.model_dump_json()) == budget
    assert (
        Budget.model_validate({"epsilon": 1, "delta": 1e-6, "filter": {"kind": "zcdp"}}).filter
        == ZcdpFilter()
    )


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 1e-6), (-1.0, 1e-6), (float("nan"), 1e-6), (float("inf"), 1e-6), (1.0, 0.0), (1.0, 1.0)],
)
def test_a_budget_that_promises_nothing_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValidationError):
        Budget(epsilon=epsilon, delta=delta, filter=ZcdpFilter())


@pytest.mark.parametrize(
    "orders",
    [(), (1.0,), (0.5, 2.0), (4.0, 2.0), (2.0, 2.0), tuple(range(2, 11)), (float("inf"),), (float("nan"),)],
)
def test_orders_are_at_most_eight_above_one_and_ascending(orders: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        RenyiFilter(orders=orders)


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate({"epsilon": 1, "delta": 1e-6, "filter": {"kind": "gdp"}})
