from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from privacy.accounting import Spending, admit, epsilon_of, epsilon_pld
from privacy.budget import Budget, FilterSpec, RenyiFilter, ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier, release_event
from privacy.errors import BudgetExceededError
from privacy.events import (
    Event,
    EventCount,
    GaussianEvent,
    PureEvent,
    SelfComposedEvent,
    Step,
    clamp_probability_of,
    parse_event,
)

ZCDP = ZcdpFilter()
SIX_ORDERS = RenyiFilter(orders=(2, 4, 8, 16, 32, 64))
FILTERS = st.sampled_from([ZCDP, SIX_ORDERS, RenyiFilter(orders=(3.5, 20.0))])
EPSILONS = st.floats(0.5, 20.0)
DELTAS = st.floats(1e-8, 1e-3)
NOISED = st.builds(release_event, st.floats(0.3, 300.0), clamp_probability=st.sampled_from([0.0, 1e-30]))
UNSAMPLED = st.one_of(
    NOISED,
    st.builds(PureEvent, epsilon=st.floats(1e-3, 2.0)),
)
SAMPLED = st.builds(
    release_event,
    st.floats(0.5, 20.0),
    sample_rate=st.sampled_from([0.01, 0.2, 0.7]),
    max_silos_per_user=st.integers(1, 3),
)


def counted(events: st.SearchStrategy[Event], most: int = 50) -> st.SearchStrategy[list[EventCount]]:
    return st.lists(st.builds(EventCount, events, st.integers(1, most)), max_size=5)


@settings(max_examples=150, deadline=None)
@given(FILTERS, EPSILONS, DELTAS, st.integers(1, 200), st.floats(0, 1))
def test_a_plan_of_epsilon_fits_an_untouched_budget_of_the_same_epsilon(
    spec: FilterSpec, epsilon: float, delta: float, releases: int, additive: float
) -> None:
    clamped = additive * 0.0099 * delta / (1 + math.exp(epsilon)) / releases
    if min(epsilon_of([EventCount(release_event(1e6), 1)], delta, spec), epsilon) == epsilon:
        return  # these orders have no room for anything at this delta
    noise = calibrate_noise_multiplier(epsilon, delta, spec, releases=releases, clamp_probability=clamped)
    event = release_event(noise, clamp_probability=clamped)
    budget = Budget(epsilon=epsilon, delta=delta, filter=spec)
    at_once = admit(Spending.of([EventCount(event, releases)], spec), budget)
    one_by_one = Spending.none(spec)
    for _ in range(releases):
        one_by_one = admit(one_by_one.plus(event), budget)
    assert one_by_one == at_once


@settings(max_examples=20, deadline=None)
@given(st.floats(1.0, 8.0), st.sampled_from([0.01, 0.1, 0.5]), st.integers(1, 3), st.integers(1, 60))
def test_a_sampled_plan_fits_an_untouched_budget_of_the_same_epsilon(
    epsilon: float, rate: float, silos: int, releases: int
) -> None:
    noise = calibrate_noise_multiplier(
        epsilon, 1e-6, SIX_ORDERS, releases=releases, sample_rate=rate, max_silos_per_user=silos
    )
    event = release_event(noise, sample_rate=rate, max_silos_per_user=silos)
    admit(
        Spending.of([EventCount(event, releases)], SIX_ORDERS),
        Budget(epsilon=epsilon, delta=1e-6, filter=SIX_ORDERS),
    )


def check_the_least_budget_that_admits(spec: FilterSpec, events: list[EventCount], delta: float) -> None:
    """The filter's own boundary is where a mistake would show: just inside must still be truly private."""
    epsilon = epsilon_of(events, delta, spec)
    assume(1e-3 < epsilon < 40)
    spending = Spending.of(events, spec)
    admit(spending, Budget(epsilon=epsilon, delta=delta, filter=spec))
    with pytest.raises(BudgetExceededError):
        admit(spending, Budget(epsilon=epsilon * (1 - 1e-9), delta=delta, filter=spec))
    # The second accountant rounds losses up to its discretisation, once for each self-composed release.
    num_rounded = 1 + sum(count for event, count in events if event.kind != "gaussian")
    assert epsilon_pld(events, delta) <= epsilon + 1e-3 * num_rounded


@settings(max_examples=60, deadline=None)
@given(FILTERS, counted(UNSAMPLED), DELTAS)
def test_what_exact_composition_forbids_is_never_accepted(
    spec: FilterSpec, events: list[EventCount], delta: float
) -> None:
    check_the_least_budget_that_admits(spec, events, delta)


@settings(max_examples=6, deadline=None)
@given(counted(st.one_of(UNSAMPLED, SAMPLED), most=20), DELTAS)
def test_sampled_events_that_exact_composition_forbids_are_never_accepted(
    events: list[EventCount], delta: float
) -> None:
    check_the_least_budget_that_admits(SIX_ORDERS, events, delta)


@settings(max_examples=60, deadline=None)
@given(FILTERS, counted(UNSAMPLED))
def test_the_filter_is_never_below_the_rdp_accountant_of_another_hand(
    spec: FilterSpec, events: list[EventCount]
) -> None:
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    # The more orders the other accountant has, the lower its figure; with this many it is as low as it gets.
    orders = [1 + step / 20 for step in range(1, 400)] + [21 * 1.01**step for step in range(1200)]
    second = RdpAccountant(orders)
    for event, count in events:
        if isinstance(event, PureEvent):
            second.compose(dp_event.LaplaceDpEvent(1 / event.epsilon), count)
        else:
            second.compose(dp_event.GaussianDpEvent(event.noise_multiplier), count)
    bound = Spending.of(events, spec).epsilon(1e-4)
    assert bound >= second.get_epsilon(1e-4) * (1 - 1e-3) - 1e-9


@settings(max_examples=100, deadline=None)
@given(FILTERS, counted(UNSAMPLED))
def test_composition_is_exact_in_any_order_and_any_grouping(
    spec: FilterSpec, events: list[EventCount]
) -> None:
    at_once = Spending.of(events, spec)
    assert Spending.of(list(reversed(events)), spec) == at_once
    singly = Spending.none(spec)
    for event, count in events:
        for _ in itertools.repeat(None, count):
            singly = singly.plus(event)
    assert singly == at_once


@settings(max_examples=60, deadline=None)
@given(
    FILTERS, counted(UNSAMPLED), st.one_of(NOISED, SAMPLED), st.integers(2, 1000), st.integers(0, 20), DELTAS
)
def test_a_self_composed_release_is_its_steps(
    spec: FilterSpec, others: list[EventCount], step: Step, steps: int, count: int, delta: float
) -> None:
    assume(spec.kind == "renyi" or isinstance(step, GaussianEvent))
    event = SelfComposedEvent.model_validate({"event": step, "count": steps})
    base = Spending.of(others, spec)
    together, one_by_one = base.plus(event, count), base.plus(step, count * steps)
    assert together == one_by_one
    assert together.epsilon(delta) == one_by_one.epsilon(delta)
    assert clamp_probability_of(event) >= clamp_probability_of(step)
    assert parse_event(event.model_dump(mode="json")) == event


@settings(max_examples=100, deadline=None)
@given(FILTERS, counted(UNSAMPLED), UNSAMPLED, DELTAS)
def test_one_more_event_never_lowers_epsilon(
    spec: FilterSpec, events: list[EventCount], event: Event, delta: float
) -> None:
    before = Spending.of(events, spec)
    assert before.plus(event).epsilon(delta) >= before.epsilon(delta) * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(counted(UNSAMPLED), DELTAS)
def test_each_order_is_converted_at_its_share_of_delta(events: list[EventCount], delta: float) -> None:
    """Stopping at whichever of k orders has room costs k deltas, so each order gets delta / k."""
    single = [RenyiFilter(orders=(order,)) for order in SIX_ORDERS.orders]
    plain = [
        EventCount(e.model_copy(update={"clamp_probability": 0.0}), c) for e, c in events if e.kind != "pure"
    ]
    shares = [epsilon_of(plain, delta / 6, spec) for spec in single]
    assert epsilon_of(plain, delta, SIX_ORDERS) == pytest.approx(min(shares), rel=1e-12)
