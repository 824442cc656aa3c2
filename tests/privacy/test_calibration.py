from __future__ import annotations

import pytest

from privacy.accounting import Spending, UnsupportedEventError, admit, epsilon_of
from privacy.budget import Budget, FilterSpec, RenyiFilter, ZcdpFilter
from privacy.calibration import CalibrationError, calibrate_noise_multiplier, release_event
from privacy.errors import BudgetExceededError
from privacy.events import EventCount, GaussianEvent, PoissonSampledGaussianEvent, PureEvent

ZCDP = ZcdpFilter()
SIX_ORDERS = RenyiFilter(orders=(2, 4, 8, 16, 32, 64))
BOTH = pytest.mark.parametrize("spec", [ZCDP, SIX_ORDERS], ids=lambda spec: spec.kind)


def test_known_values() -> None:
    assert calibrate_noise_multiplier(4.0, 1e-5, ZCDP, releases=1) == 1.15807
    assert calibrate_noise_multiplier(4.0, 1e-5, SIX_ORDERS, releases=1) == 1.25777


@BOTH
def test_a_hair_less_noise_breaks_the_promise(spec: FilterSpec) -> None:
    budget = Budget(epsilon=4.0, delta=1e-5, filter=spec)
    noise = calibrate_noise_multiplier(4.0, 1e-5, spec, releases=3)
    admit(Spending.of([EventCount(release_event(noise), 3)], spec), budget)
    with pytest.raises(BudgetExceededError):
        admit(Spending.of([EventCount(release_event(noise - 3e-5), 3)], spec), budget)


@BOTH
def test_what_is_fixed_is_paid_first(spec: FilterSpec) -> None:
    fixed = [EventCount(release_event(12.0), 1), EventCount(PureEvent(epsilon=0.1), 1)]
    alone = calibrate_noise_multiplier(2.0, 1e-6, spec, releases=1)
    noise = calibrate_noise_multiplier(2.0, 1e-6, spec, releases=1, fixed=fixed)
    assert noise > alone
    total = epsilon_of([*fixed, EventCount(release_event(noise), 1)], 1e-6, spec)
    assert 2.0 - 1e-3 < total <= 2.0


def test_sampling_and_silos_of_one_person() -> None:
    options = {"releases": 100, "sample_rate": 0.05}
    one = calibrate_noise_multiplier(4.0, 1e-5, SIX_ORDERS, max_silos_per_user=1, **options)  # type: ignore[arg-type]
    two = calibrate_noise_multiplier(4.0, 1e-5, SIX_ORDERS, max_silos_per_user=2, **options)  # type: ignore[arg-type]
    everybody = calibrate_noise_multiplier(4.0, 1e-5, SIX_ORDERS, releases=100)
    # Over full sensitivity, being in two silos seldom coincides; over one silo's it costs more.
    assert two < one < everybody
    assert 2 * two > one


def test_release_event_is_sampled_only_below_rate_one() -> None:
    assert isinstance(release_event(1.0), GaussianEvent)
    assert release_event(1.0, max_silos_per_user=3) == release_event(1.0)
    event = release_event(1.0, sample_rate=0.5, max_silos_per_user=3, clamp_probability=1e-12)
    assert isinstance(event, PoissonSampledGaussianEvent)
    assert (event.sample_rate, event.max_silos_per_user, event.clamp_probability) == (0.5, 3, 1e-12)


def test_sampled_plans_on_zcdp_are_refused() -> None:
    with pytest.raises(UnsupportedEventError):
        calibrate_noise_multiplier(4.0, 1e-5, ZCDP, releases=1, sample_rate=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"target_epsilon": 0.0},
        {"target_epsilon": -1.0},
        {"target_epsilon": float("inf")},
        {"target_epsilon": float("nan")},
        {"target_delta": 0.0},
        {"target_delta": 1.0},
        {"releases": 0},
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"max_silos_per_user": 0},
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, float]) -> None:
    usual = {"target_epsilon": 1.0, "target_delta": 1e-6, "releases": 1}
    with pytest.raises(CalibrationError) as caught:
        calibrate_noise_multiplier(filter=SIX_ORDERS, **(usual | arguments))  # type: ignore[arg-type]
    assert caught.value.where in arguments
    assert caught.value.remedy


def test_a_promise_that_no_noise_keeps() -> None:
    with pytest.raises(CalibrationError, match="no noise keeps"):
        calibrate_noise_multiplier(1.0, 1e-6, ZCDP, releases=1, fixed=[EventCount(release_event(1.0), 1)])


def test_orders_without_room_for_anything_are_no_calibration() -> None:
    # At order 2 and delta 1e-6 the conversion alone costs more than epsilon 1.
    with pytest.raises(CalibrationError, match="no noise keeps"):
        calibrate_noise_multiplier(1.0, 1e-6, RenyiFilter(orders=(2.0,)), releases=1)


def test_additive_terms_beyond_their_account() -> None:
    with pytest.raises(CalibrationError, match="additive delta"):
        calibrate_noise_multiplier(1.0, 1e-6, ZCDP, releases=10, clamp_probability=1e-9)
    # cheap at epsilon 1, and dear at epsilon 8
    calibrate_noise_multiplier(1.0, 1e-6, ZCDP, releases=10, clamp_probability=1e-10)
    with pytest.raises(CalibrationError, match="additive delta"):
        calibrate_noise_multiplier(8.0, 1e-6, ZCDP, releases=10, clamp_probability=1e-10)
