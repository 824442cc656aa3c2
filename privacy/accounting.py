"""Composition of events, and the filters that refuse what a budget cannot pay.

Guarantees
----------
- Plans are chosen adaptively, so acceptance is decided by a *privacy filter*: if every accepted sequence
  satisfies ``admit``, everything released together is (epsilon, delta)-differentially private, however the
  next event was chosen. zCDP: Σρ below one bound (Feldman and Zrnic 2021). Rényi: the order with room at
  the end is a function of the transcript, and each of the k orders is converted at delta/k (union bound).
- Clamped noise is Gaussian except with a probability p, in either of two neighbouring worlds. Everything
  released together is then (epsilon, delta + (1 + e^epsilon) Σp)-private, where epsilon is that of the *whole
  composition*: probabilities add up in a spending and are priced once, never release by release. ``admit``
  prices them with the budget's epsilon, because that is the promise, whatever of it was spent when an
  adaptive proposer stops; ``Spending.epsilon`` prices them with what the spending itself comes to.
- Composition is exact. Every divergence is rounded *up* to a multiple of 2^-40 and counts as infinite from
  4096 on; sums of such multiples are exact in double precision, and probabilities are summed as fractions. So
  a spending depends neither on the order of its events nor on how often they were re-folded, and a
  calibrated plan fits its budget to the last bit. A self-composed release costs exactly what its steps cost.
- A spending is a value. What is refused leaves no trace in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from privacy import divergence
from privacy.budget import Budget, FilterSpec, RenyiFilter, ZcdpFilter
from privacy.errors import BudgetExceededError, DeniedError
from privacy.events import (
    Event,
    EventCount,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PureEvent,
    Record,
    Step,
    clamp_probability_of,
    steps_of,
)

if TYPE_CHECKING:
    from dp_accounting.pld import PLDAccountant

MECHANISM_DELTA_SHARE = 0.99
"""Share of delta that pays for mechanisms; the rest is the separate account of clamped noise."""

_DIVERGENCE_QUANTUM = 2.0**-40
_DIVERGENCE_CEILING = 2.0**12
_PLD_DISCRETISATION = 1e-3
_LARGEST_EXPONENT = 700.0
_ROUNDED_UP = 1 + 2.0**-50


class UnsupportedEventError(DeniedError):
    """A known event that this account's filter cannot price."""

    code = "unsupported_event"


class Spending(Record):
    """What a sequence of events has cost under one filter.

    Attributes:
        filter: the account's filter.
        divergences: (ρ,) for zCDP; the Rényi divergence at each order for Rényi. 4096 stands for more.
        clamp_probability: sum of the events' probabilities of clamped noise, exact.
    """

    filter: FilterSpec
    divergences: tuple[float, ...]
    clamp_probability: Annotated[Fraction, Field(ge=0)] = Fraction(0)

    @classmethod
    def none(cls, filter: FilterSpec) -> Spending:
        """Nothing spent: the neutral element."""
        return cls(filter=filter, divergences=(0.0,) * _num_divergences(filter))

    @classmethod
    def of(cls, events: Iterable[EventCount], filter: FilterSpec) -> Spending:
        """All of ``events`` composed."""
        spending = cls.none(filter)
        for event, count in events:
            spending = spending.plus(event, count)
        return spending

    def plus(self, event: Event, count: int = 1) -> Spending:
        """Compose ``count`` more of ``event``.

        Args:
            event: what is released.
            count: how often, at least 0.

        Returns:
            The new spending; this one stays as it is.

        Raises:
            UnsupportedEventError: the filter cannot price this kind of event.
            ValueError: ``count`` is negative.
        """
        if count < 0:
            raise ValueError(f"count is {count}; what was spent is never taken back")
        step, steps = steps_of(event)
        times = count * steps
        return Spending(
            filter=self.filter,
            divergences=tuple(
                min(spent + times * price, _DIVERGENCE_CEILING)
                for spent, price in zip(self.divergences, _prices(step, self.filter), strict=True)
            ),
            clamp_probability=self.clamp_probability + times * Fraction(clamp_probability_of(step)),
        )

    def epsilon(self, delta: float) -> float:
        """Epsilon of this spending at ``delta``, by the filter's own conversion.

        Args:
            delta: the whole delta; 0.99 of it is used for the mechanisms.

        Returns:
            Epsilon >= 0; infinity where clamped noise, priced at that epsilon, exceeds its 0.01 of delta.
        """
        epsilon = self._mechanism_epsilon(MECHANISM_DELTA_SHARE * delta)
        covered = additive_delta(self.clamp_probability, epsilon) <= additive_delta_share(delta)
        return epsilon if covered else math.inf

    def _mechanism_epsilon(self, mechanism_delta: float) -> float:
        if not any(self.divergences):
            return 0.0
        spent = [math.inf if value >= _DIVERGENCE_CEILING else value for value in self.divergences]
        if isinstance(self.filter, ZcdpFilter):
            return divergence.epsilon_of_rho(spent[0], mechanism_delta)
        orders = self.filter.orders
        return min(
            divergence.epsilon_of_renyi(value, order, mechanism_delta / len(orders))
            for value, order in zip(spent, orders, strict=True)
        )


def admit(spending: Spending, budget: Budget) -> Spending:
    """The filter: return ``spending`` if ``budget`` can pay for it.

    Args:
        spending: everything composed, the proposed events included.
        budget: what the account may spend.

    Returns:
        ``spending``, accepted.

    Raises:
        BudgetExceededError: overdrawn is the epsilon, or the share of delta that pays for clamped noise,
            which is priced at the budget's epsilon.
        UnsupportedEventError: the spending was composed under another filter than the budget's.
    """
    if spending.filter != budget.filter:
        raise UnsupportedEventError(
            f"a spending composed under filter {spending.filter.kind!r} cannot be judged by the account's "
            f"{budget.filter.kind!r}",
            where="budget.filter",
            remedy="compose the events under the account's own filter, which it keeps for life",
        )
    additive = additive_delta(spending.clamp_probability, budget.epsilon)
    if additive > additive_delta_share(budget.delta):
        raise BudgetExceededError(
            f"additive delta {additive:.3g} of clamped noise exceeds its account of "
            f"{additive_delta_share(budget.delta):.3g} (1 % of delta)",
            where="budget.delta",
            remedy="propose a plan with a smaller target_delta, or sign a policy with a larger delta",
        )
    epsilon = spending.epsilon(budget.delta)
    if epsilon > budget.epsilon:
        raise BudgetExceededError(
            f"epsilon would be {epsilon:.6g}, the budget is {budget.epsilon:.6g} at delta {budget.delta:.3g}",
            where="budget.epsilon",
            remedy="propose a plan with more noise or fewer releases, or sign a policy with a larger budget",
        )
    return spending


def additive_delta_share(delta: float) -> float:
    """The part of ``delta`` that clamped noise may use up."""
    return (1 - MECHANISM_DELTA_SHARE) * delta


def additive_delta(clamp_probability: Fraction | float, epsilon: float) -> float:
    """What clamped noise adds to delta: ``(1 + e^epsilon) p``, rounded up.

    Args:
        clamp_probability: bound on the probability that any noise was clamped, summed over all releases.
        epsilon: of everything those releases are composed with, not of one of them.
    """
    if not clamp_probability:
        return 0.0
    if epsilon > _LARGEST_EXPONENT:
        return math.inf
    return float(clamp_probability) * (1 + math.exp(epsilon)) * _ROUNDED_UP


def epsilon_of(events: Iterable[EventCount], delta: float, filter: FilterSpec) -> float:
    """Epsilon of ``events`` at ``delta`` as ``filter`` accounts for them; see ``Spending.epsilon``."""
    return Spending.of(events, filter).epsilon(delta)


def epsilon_pld(events: Iterable[EventCount], delta: float) -> float:
    """Epsilon by privacy loss distributions: the tighter second opinion, not what refuses.

    Args:
        events: what was released.
        delta: the whole delta; what clamped noise costs is taken off first.

    Returns:
        Google's dp-accounting PLD figure at discretisation 1e-3; infinity where clamped noise costs more than
        its 0.01 of delta.
    """
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=_PLD_DISCRETISATION)
    clamped = Fraction(0)
    for event, count in events:
        if count:
            step, steps = steps_of(event)
            _compose_foreign(accountant, step, count * steps)
            clamped += count * steps * Fraction(clamp_probability_of(step))
    if not clamped:
        return float(accountant.get_epsilon(delta))
    at_most = float(accountant.get_epsilon(MECHANISM_DELTA_SHARE * delta))
    additive = additive_delta(clamped, at_most)
    if additive > additive_delta_share(delta):
        return math.inf
    return float(accountant.get_epsilon(delta - additive))


def _compose_foreign(accountant: PLDAccountant, event: Step, count: int) -> None:
    from dp_accounting import dp_event

    if isinstance(event, GaussianEvent):
        accountant.compose(dp_event.GaussianDpEvent(event.noise_multiplier), count)
    elif isinstance(event, PureEvent):
        accountant.compose(dp_event.LaplaceDpEvent(1 / event.epsilon), count)
    else:
        num_silos = event.max_silos_per_user
        sensitivities = [hits / num_silos for hits in range(num_silos + 1)]
        probabilities = divergence.binomial(num_silos, event.sample_rate)
        accountant.compose(
            dp_event.MixtureOfGaussiansDpEvent(event.noise_multiplier, sensitivities, probabilities), count
        )


def _num_divergences(filter_: FilterSpec) -> int:
    return len(filter_.orders) if isinstance(filter_, RenyiFilter) else 1


def _prices(event: Step, filter_: FilterSpec) -> tuple[float, ...]:
    if isinstance(filter_, RenyiFilter):
        raw = [_renyi_divergence(event, order) for order in filter_.orders]
    elif isinstance(event, GaussianEvent):
        raw = [0.5 / event.noise_multiplier**2]
    elif isinstance(event, PureEvent):
        raw = [0.5 * event.epsilon**2]
    else:
        raise UnsupportedEventError(
            "a zCDP account cannot price Poisson-sampled releases",
            where="filter",
            remedy="open the account with a Rényi filter, e.g. `filter: {kind: renyi, orders: "
            "[2, 4, 8, 16, 32, 64]}`, or set `sample_rate: 1`",
        )
    return tuple(_round_up(price, _DIVERGENCE_QUANTUM, _DIVERGENCE_CEILING) for price in raw)


def _renyi_divergence(event: Step, order: float) -> float:
    if isinstance(event, GaussianEvent):
        return divergence.renyi_gaussian(event.noise_multiplier, order)
    if isinstance(event, PoissonSampledGaussianEvent):
        return divergence.renyi_sampled_gaussian(
            event.noise_multiplier, event.sample_rate, event.max_silos_per_user, order
        )
    return min(0.5 * order * event.epsilon**2, event.epsilon)


def _round_up(value: float, quantum: float, ceiling: float) -> float:
    return math.ceil(min(value, ceiling) / quantum) * quantum
