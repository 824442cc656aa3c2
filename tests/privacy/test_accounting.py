from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction

import pytest

from privacy.accounting import (
    MECHANISM_DELTA_SHARE,
    Spending,
    UnsupportedEventError,
    additive_delta,
    additive_delta_share,
    admit,
    epsilon_of,
    epsilon_pld,
)
from privacy.budget import Budget, FilterSpec, RenyiFilter, ZcdpFilter
from privacy.divergence import epsilon_of_rho, renyi_sampled_gaussian
from privacy.errors import BudgetExceededError
from privacy.events import (
    SAMPLER,
    EventCount,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PureEvent,
    SelfComposedEvent,
)

ZCDP = ZcdpFilter()
SIX_ORDERS = RenyiFilter(orders=(2, 4, 8, 16, 32, 64))
PLD_TOLERANCE = 0.02


def gaussian(noise_multiplier: float, clamped: float = 0.0) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER, clamp_probability=clamped)


def sampled(noise_multiplier: float, sample_rate: float, max_silos: int = 1) -> PoissonSampledGaussianEvent:
    return PoissonSampledGaussianEvent(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        max_silos_per_user=max_silos,
        sampler=SAMPLER,
    )


@pytest.mark.parametrize("rho", [1e-6, 1e-3, 0.05, 0.37, 2.0, 40.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-2])
def test_zcdp_conversion_finds_the_least_bound_over_all_orders(rho: float, delta: float) -> None:
    excesses = [10 ** (exponent / 2000) for exponent in range(-12000, 14000)]
    by_hand = min(
        rho * (1 + x) + math.log(1 / ((1 + x) * delta)) / x + math.log1p(-1 / (1 + x)) for x in excesses
    )
    assert epsilon_of_rho(rho, delta) == pytest.approx(max(0.0, by_hand), rel=2e-5, abs=1e-12)


def test_the_worked_example_of_the_design() -> None:
    assert epsilon_of([EventCount(gaussian(1.1581), 1)], 1e-5, ZCDP) == pytest.approx(4.0, abs=2e-3)
    assert epsilon_of([EventCount(gaussian(1.2577), 1)], 1e-5, SIX_ORDERS) == pytest.approx(4.0, abs=3e-3)


def test_conversion_uses_ninety_nine_hundredths_of_delta() -> None:
    event = gaussian(1.5)
    assert epsilon_of([EventCount(event, 1)], 1e-5, ZCDP) == pytest.approx(
        epsilon_of_rho(0.5 / 1.5**2, MECHANISM_DELTA_SHARE * 1e-5), abs=1e-9
    )


def test_nothing_spent_costs_nothing() -> None:
    for spec in (ZCDP, SIX_ORDERS):
        assert Spending.none(spec).epsilon(1e-6) == 0
        assert epsilon_of([], 1e-6, spec) == 0
        assert epsilon_of([EventCount(gaussian(1.0), 0)], 1e-6, spec) == 0


def test_sensitivities_of_a_person_in_two_silos_add() -> None:
    one = [EventCount(gaussian(2.0), 1)]
    both_by_composition = [EventCount(gaussian(2.0), 2)]
    both_under_one_noise = [EventCount(gaussian(1.0), 1)]
    epsilons = [epsilon_of(e, 1e-5, ZCDP) for e in (one, both_by_composition, both_under_one_noise)]
    assert epsilons == sorted(epsilons)
    assert epsilons[2] > 1.4 * epsilons[1]


@pytest.mark.parametrize("order", [2, 3, 8, 32])
@pytest.mark.parametrize(("noise", "rate"), [(0.6, 0.01), (1.0, 0.1), (2.0, 0.5), (5.0, 0.999), (1.0, 1.0)])
def test_sampled_divergence_equals_the_closed_form_of_integer_orders(
    noise: float, rate: float, order: int
) -> None:
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    second = RdpAccountant([order])
    second.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)))
    assert renyi_sampled_gaussian(noise, rate, 1, order) == pytest.approx(
        float(second.rdp[0]), abs=2e-11, rel=1e-9
    )
    assert renyi_sampled_gaussian(noise, rate, 1, order) >= float(second.rdp[0])


@pytest.mark.parametrize(("noise", "rate", "silos", "order"), [(1.3, 0.2, 3, 3.5), (0.7, 0.6, 2, 6.0)])
def test_sampled_divergence_of_several_silos_equals_adaptive_quadrature(
    noise: float, rate: float, silos: int, order: float
) -> None:
    from scipy.integrate import quad
    from scipy.stats import binom, norm

    def moment(x: float, power: float) -> float:
        ratio = sum(
            binom.pmf(j, silos, rate) * math.exp((2 * x - j / silos) * (j / silos) / (2 * noise**2))
            for j in range(silos + 1)
        )
        return float(math.exp(power * math.log(ratio)) * norm.pdf(x, scale=noise))

    reach = order + 10 * noise
    forward = math.log(quad(moment, -reach, reach, args=(order,), limit=500, epsabs=0)[0])
    backward = math.log(quad(moment, -reach, reach, args=(1 - order,), limit=500, epsabs=0)[0])
    by_quadrature = max(forward, backward) / (order - 1)
    assert renyi_sampled_gaussian(noise, rate, silos, order) == pytest.approx(by_quadrature, rel=1e-7)


def test_more_silos_without_sampling_change_nothing_once_sensitivity_is_full() -> None:
    for silos in (1, 2, 5):
        assert renyi_sampled_gaussian(1.5, 1.0, silos, 4.0) == pytest.approx(4 / (2 * 1.5**2), abs=2e-11)


def test_sampled_divergence_grows_with_the_rate_and_stays_below_the_unsampled() -> None:
    values = [renyi_sampled_gaussian(1.0, rate, 2, 8.0) for rate in (1e-3, 0.01, 0.1, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[0] < 1e-3 * values[-1]


def test_sampled_event_on_a_zcdp_account_is_refused_with_the_remedy() -> None:
    spent = Spending.none(ZCDP)
    with pytest.raises(UnsupportedEventError, match="Poisson-sampled") as caught:
        spent.plus(sampled(1.0, 0.1))
    assert caught.value.remedy is not None
    assert "renyi" in caught.value.remedy


def test_pure_events_fit_both_filters() -> None:
    event = EventCount(PureEvent(epsilon=0.3), 1)
    assert Spending.of([event], ZCDP).divergences == pytest.approx((0.045,), abs=1e-11)
    assert Spending.of([event], SIX_ORDERS).divergences == pytest.approx(
        (0.09, 0.18, 0.3, 0.3, 0.3, 0.3), abs=1e-11
    )


def test_a_refused_spending_leaves_the_state_as_it_was() -> None:
    budget = Budget(epsilon=1.0, delta=1e-6, filter=ZCDP)
    spent = admit(Spending.none(ZCDP).plus(gaussian(6.0)), budget)
    before = spent.model_dump_json()
    with pytest.raises(BudgetExceededError, match="epsilon would be"):
        admit(spent.plus(gaussian(1.0)), budget)
    assert spent.model_dump_json() == before


def test_admit_returns_what_it_accepts() -> None:
    spending = Spending.none(ZCDP).plus(gaussian(10.0))
    assert admit(spending, Budget(epsilon=1.0, delta=1e-6, filter=ZCDP)) is spending


def test_spending_of_another_filter_is_refused() -> None:
    with pytest.raises(UnsupportedEventError):
        admit(Spending.none(ZCDP), Budget(epsilon=1.0, delta=1e-6, filter=SIX_ORDERS))
    other = RenyiFilter(orders=(2, 4))
    with pytest.raises(UnsupportedEventError):
        admit(Spending.none(other), Budget(epsilon=1.0, delta=1e-6, filter=SIX_ORDERS))


def test_clamped_noise_has_an_account_of_its_own() -> None:
    budget = Budget(epsilon=8.0, delta=1e-6, filter=ZCDP)
    share = additive_delta_share(budget.delta)
    assert share == pytest.approx(1e-8)
    third = 0.3e-8 / (1 + math.exp(8))
    admit(Spending.none(ZCDP).plus(gaussian(5.0, third), 3), budget)
    with pytest.raises(BudgetExceededError, match="additive delta"):
        admit(Spending.none(ZCDP).plus(gaussian(5.0, third), 4), budget)
    # however little epsilon is spent, and however much is left
    with pytest.raises(BudgetExceededError, match="additive delta"):
        admit(Spending.none(ZCDP).plus(gaussian(1e4, 7 * third)), budget)


def test_clamped_noise_is_priced_with_the_epsilon_of_everything_composed() -> None:
    """One release alone, at its own epsilon, can pay for a probability that the composition cannot."""
    clamped, releases = 0.9e-8 / (1 + math.exp(2)), 12
    alone = Spending.none(ZCDP).plus(gaussian(3.0, clamped))
    assert 1 < alone.epsilon(1e-6) < 2
    together = Spending.none(ZCDP).plus(gaussian(3.0), releases - 1).plus(gaussian(3.0, clamped))
    assert together.epsilon(1e-6) == math.inf
    assert Spending.none(ZCDP).plus(gaussian(3.0), releases).epsilon(1e-6) < 8
    # The budget is what is promised, so it prices even what has spent little of it.
    admit(alone, Budget(epsilon=2.0, delta=1e-6, filter=ZCDP))
    with pytest.raises(BudgetExceededError, match="additive delta"):
        admit(alone, Budget(epsilon=8.0, delta=1e-6, filter=ZCDP))


def test_the_price_of_clamped_noise() -> None:
    assert additive_delta(0.0, math.inf) == 0
    assert additive_delta(1e-9, 0.0) == pytest.approx(2e-9, rel=1e-12)
    assert additive_delta(1e-9, 8.0) == pytest.approx(1e-9 * (1 + math.e**8), rel=1e-12)
    assert additive_delta(1e-300, 1e6) == math.inf


@pytest.mark.parametrize("spec", [ZCDP, SIX_ORDERS], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("clamped", [0.0, 1e-12, 1e-11])
def test_a_clamped_gaussian_is_as_private_as_the_spending_says(spec: FilterSpec, clamped: float) -> None:
    """Exactly computed: the worst that clamping both worlds' noise can add to the Gaussian's own delta."""
    epsilon = Spending.none(spec).plus(gaussian(2.0, clamped)).epsilon(1e-5)
    shift = 0.5 / 2.0, 2.0 * epsilon
    above, below = (0.5 * math.erfc((shift[1] + sign * shift[0]) / math.sqrt(2)) for sign in (-1, 1))
    assert above - math.exp(epsilon) * below + (1 + math.exp(epsilon)) * clamped <= 1e-5


def test_epsilon_is_infinite_where_additive_terms_eat_delta() -> None:
    event = EventCount(gaussian(5.0, 1e-8), 1)
    assert epsilon_of([event], 1e-6, ZCDP) == math.inf
    assert epsilon_pld([event], 1e-6) == math.inf


def test_additive_terms_do_not_move_epsilon() -> None:
    plain, clamped = (EventCount(gaussian(2.0, extra), 5) for extra in (0.0, 1e-11))
    assert epsilon_of([plain], 1e-5, ZCDP) == epsilon_of([clamped], 1e-5, ZCDP)


def test_probabilities_of_all_sizes_are_summed_exactly() -> None:
    spent = Spending.none(ZCDP).plus(gaussian(1.0, 1e-300), 3)
    assert spent.clamp_probability == 3 * Fraction(1e-300)
    both = spent.plus(gaussian(1.0, 0.5))
    assert both.clamp_probability - Fraction(0.5) == spent.clamp_probability
    assert Spending.model_validate_json(both.model_dump_json()) == both


def test_a_divergence_beyond_all_budgets_counts_as_infinite_and_stays_there() -> None:
    spent = Spending.none(ZCDP).plus(gaussian(0.01))
    assert spent == spent.plus(gaussian(1.0)) == Spending.model_validate_json(spent.model_dump_json())
    assert spent.epsilon(0.5) == math.inf
    one_order_left = Spending.none(SIX_ORDERS).plus(gaussian(0.08))
    assert math.isfinite(one_order_left.epsilon(1e-6))
    assert one_order_left.divergences[-1] == 2.0**12 > one_order_left.divergences[0]
    with pytest.raises(BudgetExceededError):
        admit(spent, Budget(epsilon=1e6, delta=1e-6, filter=ZCDP))


@pytest.mark.parametrize(
    ("step", "spec"),
    [(gaussian(3.0, 1e-14), ZCDP), (gaussian(3.0, 1e-14), SIX_ORDERS), (sampled(1.1, 0.2, 2), SIX_ORDERS)],
    ids=["zcdp", "renyi", "renyi-sampled"],
)
def test_a_self_composed_release_costs_what_its_steps_cost_to_the_last_bit(
    step: GaussianEvent | PoissonSampledGaussianEvent, spec: FilterSpec
) -> None:
    local = [EventCount(SelfComposedEvent(event=step, count=7), 3)]
    one_by_one = [EventCount(step, 21)]
    assert Spending.of(local, spec) == Spending.of(one_by_one, spec)
    assert epsilon_of(local, 1e-5, spec) == epsilon_of(one_by_one, 1e-5, spec) > 0
    assert epsilon_pld(local, 1e-5) == epsilon_pld(one_by_one, 1e-5) > 0


def test_the_steps_of_a_release_share_one_account_of_clamped_noise() -> None:
    """A release that hid its steps would pay for the first one only."""
    step = gaussian(20.0, 0.3e-8 / (1 + math.exp(8)))
    budget = Budget(epsilon=8.0, delta=1e-6, filter=ZCDP)
    admit(Spending.none(ZCDP).plus(SelfComposedEvent(event=step, count=3)), budget)
    with pytest.raises(BudgetExceededError, match="additive delta"):
        admit(Spending.none(ZCDP).plus(SelfComposedEvent(event=step, count=4)), budget)
    certain = SelfComposedEvent(event=gaussian(20.0, 0.9), count=2)
    assert Spending.none(ZCDP).plus(certain).clamp_probability == 2 * Fraction(0.9)
    assert epsilon_pld([EventCount(certain, 1)], 1e-6) == math.inf


def test_steps_of_a_sampled_release_are_refused_on_a_zcdp_account() -> None:
    with pytest.raises(UnsupportedEventError, match="Poisson-sampled"):
        Spending.none(ZCDP).plus(SelfComposedEvent(event=sampled(1.0, 0.1), count=2))


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="never taken back"):
        Spending.none(ZCDP).plus(gaussian(1.0), -1)


@pytest.mark.parametrize("spec", [ZCDP, SIX_ORDERS], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("noise", [0.7, 1.2, 3.0, 20.0])
def test_the_bound_is_never_below_the_second_accountant(spec: FilterSpec, noise: float) -> None:
    events = [EventCount(gaussian(noise, 1e-18), 3), EventCount(PureEvent(epsilon=0.2), 2)]
    assert epsilon_of(events, 1e-5, spec) >= epsilon_pld(events, 1e-5) - PLD_TOLERANCE


@pytest.mark.parametrize(("noise", "rate", "silos"), [(1.0, 0.02, 1), (0.8, 0.05, 2), (1.5, 0.3, 3)])
def test_the_sampled_bound_is_never_below_the_second_accountant(
    noise: float, rate: float, silos: int
) -> None:
    events = [EventCount(sampled(noise, rate, silos), 50)]
    assert epsilon_of(events, 1e-5, SIX_ORDERS) >= epsilon_pld(events, 1e-5) - PLD_TOLERANCE


def test_importing_the_accountant_is_light() -> None:
    program = (
        "import sys, privacy.events, privacy.budget, privacy.accounting, privacy.calibration, privacy.noise\n"
        "print([m for m in ('scipy', 'torch', 'opacus', 'dp_accounting', 'polars') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
