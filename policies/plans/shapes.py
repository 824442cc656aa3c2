"""The shape of one secure sum: grid, levels, noise headroom. Pure arithmetic on public numbers.

One value of one silo becomes a level of ``b`` bits::

    noised = clamp(signal, signal_min, signal_max) + share
    level  = clamp(noised, signal_min - T, signal_max + T) - (signal_min - T)

Clamping the signal is 1-Lipschitz and costs nothing. Clamping the noise breaks the Gaussian with a
probability ``p`` over all values and silos of a round. It costs ``(1 + e^epsilon) p`` of delta, where
epsilon is not the plan's but that of the account which composes this plan with all others. The headroom
``T`` is chosen so that even the largest account a policy can open pays for a thousand such plans with 1 %
of ``target_delta``; that takes only a few standard deviations more.

A contribution of ``L`` local steps is the sum of ``L`` noised vectors, each clamped to its ``L``-th part of
the signal range before its noise; their noise together is sub-Gaussian with ``sqrt(L)`` times the deviation.

Noise: ``c`` colluding silos know their own shares, so each of ``n'`` contributors adds variance
``sigma^2 / (n' - c)``: what the colluders do not know always suffices, and only that is charged. Fewer
contributors add larger shares; headroom is made for the fewest that a round may have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from privacy.accounting import additive_delta_share
from privacy.errors import UsageError
from privacy.events import Event, GaussianEvent, PoissonSampledGaussianEvent
from privacy.packing import Layout, largest_bits

if TYPE_CHECKING:
    from policies.plans.plan import Plan

FINEST_GRID = 8192
LARGEST_ACCOUNT_EPSILON = 100.0
MAX_SHARE_STD = 2.0**30
MIN_WEIGHT_AT_CAP = 10
MAX_ROUNDING_COST = 0.05
GOOD_ROUNDING_COST = 0.02

MAX_ENCODER_COLUMNS = 2_048
"""Columns of a feature silo's rows at most: how many there are is not in the plan."""

_PLANS_PER_ACCOUNT = 1000
_FINE_ROUNDING_COST = 0.005
_LARGEST_GRID = 2**30
# Few users share a pair of items: 3 % of full weights is above every log measured; more is clamped.
_PAIR_LOAD_PERCENT = 3
# No coordinate of a clipped gradient stands for more than a quarter of its norm on average over a batch.
_GRADIENT_LOAD_PERCENT = 25
# Clipping and summing in floating point, relative to the clip norm, for so many users a step at most; it
# grows with their square at most (privacy/dpsgd).
_FLOAT_ERROR = 1e-5
USERS_OF_FLOAT_ERROR = 1 << 17

Purpose = Literal["popularity", "training", "metrics"]


class PlanImpossibleError(UsageError):
    """No sum can carry what the plan promises."""

    code = "plan_impossible"


@dataclass(frozen=True, kw_only=True)
class RoundShape:
    """One secure sum of a plan, in grid units.

    Attributes:
        purpose: ``popularity`` (before a training that starts from it), ``training`` or ``metrics``.
        values: length of the vector.
        grid: integer units per contribution norm.
        layout: how levels lie in slots, for the full roster.
        signal_min: lower end of the public signal range of a whole contribution.
        signal_max: upper end of it.
        headroom: ``T``, how far the noise of a contribution may exceed the signal range before it is clamped.
        share_std: standard deviation of one silo's noise share in one step, with the full roster.
        num_shares: shares outside the collusion with the full roster; 1 where each silo's own noise suffices.
        fewest_contributors: silos with which the round may still be summed; headroom is made for so few.
        sensitivity: most (L2) that one person moves the sum of one step over all silos, roundings included.
        steps: noised steps that one contribution sums; above 1 only for local training.
        step_event: one such step, clamped noise included.
        event: what one silo commits per (round, attempt): ``step_event``, ``steps`` times.
    """

    purpose: Purpose
    values: int
    grid: int
    layout: Layout
    signal_min: int
    signal_max: int
    headroom: int
    share_std: float
    num_shares: int
    fewest_contributors: int
    sensitivity: float
    step_event: GaussianEvent | PoissonSampledGaussianEvent
    event: Event
    steps: int = 1

    @property
    def offset(self) -> int:
        """The integer that level 0 stands for; one for each contributor is in every sum of levels."""
        return self.signal_min - self.headroom

    @property
    def step_signal_min(self) -> int:
        """Lower end of the signal range of one step, before its noise."""
        return -(-self.signal_min // self.steps)

    @property
    def step_signal_max(self) -> int:
        """Upper end of the signal range of one step, before its noise."""
        return self.signal_max // self.steps

    def num_shares_among(self, contributors: int) -> int:
        """On how many shares the promise rests when so many silos contribute: n' - c, or 1.

        Raises:
            PlanImpossibleError: fewer silos than the plan was made for, or more than its roster.
        """
        if not self.fewest_contributors <= contributors <= self.layout.roster_size:
            raise PlanImpossibleError(
                f"a sum of {contributors} silos, where {self.fewest_contributors} to "
                f"{self.layout.roster_size} were planned",
                where="protection.min_silos",
                remedy="end the job; a new plan may allow fewer silos",
            )
        absent = self.layout.roster_size - contributors
        return 1 if self.num_shares == 1 else self.num_shares - absent

    def share_std_among(self, contributors: int) -> float:
        """Standard deviation of one silo's share when so many silos contribute.

        Raises:
            PlanImpossibleError: see :meth:`num_shares_among`.
        """
        return self.share_std * math.sqrt(self.num_shares / self.num_shares_among(contributors))


def num_values(plan: Plan) -> int:
    """Return the length of the vector one training round sums; at most, where it is a silo's own affair."""
    items, model = plan.catalogue.items, plan.model
    match model.family:
        case "item-graph":
            return items * (items + 1) // 2
        case "linear":
            return items * model.features + items
        case "autoencoder":
            return 2 * model.features * model.hidden + model.hidden
        case "language":
            return model.num_weights
        case "sequence":
            return model.network.num_weights
        case "private-encoder":
            return 2 * MAX_ENCODER_COLUMNS * model.dimensions
        case _:
            return items


def weight_at(family: str, grid: int, interactions: int) -> int:
    """Return the integer weight of a user with so many interactions: their vector's norm is <= ``grid``."""
    return math.isqrt(grid**2 // num_terms(family, interactions))


def num_terms(family: str, interactions: int) -> int:
    """Return how many values one history touches."""
    return interactions * (interactions + 1) // 2 if family == "item-graph" else interactions


def longest_history(plan: Plan) -> int:
    """Return the cap on a history after de-duplication."""
    return min(plan.max_interactions_per_user, plan.catalogue.items)


def sensitivity_in_one_silo(plan: Plan) -> float:
    """Return the most (L2, grid units) that one person moves one silo's sum of one training step.

    Statistics are integers per user, at most ``grid``. Gradients are clipped, summed, then rounded once,
    which adds at most one unit a coordinate and the error of floating point.
    """
    grid = plan.privacy.grid
    if plan.is_statistics:
        return float(grid)
    crowd = max(1.0, plan.max_users_per_silo / USERS_OF_FLOAT_ERROR)
    return grid * (1 + _FLOAT_ERROR * crowd**2) + math.sqrt(num_values(plan))


def coarsest_grid(plan: Plan) -> int:
    """Return the coarsest grid a training sum may have: long histories or noise would be wasted below it."""
    if not plan.is_statistics:
        return _grid_at_cost(plan, MAX_ROUNDING_COST)
    terms = num_terms(plan.model.family, longest_history(plan))
    return math.isqrt(MIN_WEIGHT_AT_CAP**2 * terms - 1) + 1


def largest_grid(plan: Plan) -> int:
    """Return the finest useful grid for a plan's noise, whatever grid the plan has now.

    Two values share a slot where that leaves a usable grid; otherwise one value has a slot of its own.
    """
    values, coarsest = num_values(plan), coarsest_grid(plan)
    usable = coarsest if plan.is_statistics else _grid_at_cost(plan, GOOD_ROUNDING_COST)
    multiplier = plan.privacy.noise_multiplier

    def levels(grid: int) -> int:
        headroom, _ = headroom_of(plan, values, multiplier * grid, steps=plan.training.local_steps)
        return signal_range(plan, grid) + 2 * headroom + 1

    shared = _largest_fitting(levels, 1 << largest_bits(plan.num_silos, 2), FINEST_GRID)
    if shared >= usable:
        return shared
    if plan.is_statistics:
        return max(FINEST_GRID, coarsest)
    fine = max(FINEST_GRID, _grid_at_cost(plan, _FINE_ROUNDING_COST))
    fine = min(fine, _LARGEST_GRID, max(1, math.floor(MAX_SHARE_STD / multiplier)))
    return max(_largest_fitting(levels, 1 << largest_bits(plan.num_silos, 1), fine), coarsest)


def finest_count_grid(plan: Plan, noise_multiplier: float) -> int:
    """Return the finest grid on which noised item counts beside a training fit one value a slot.

    Args:
        plan: a gradient plan.
        noise_multiplier: std of the counts' noise over their full sensitivity.
    """
    per_unit = noise_multiplier * plan.privacy.max_silos_per_user

    def levels(grid: int) -> int:
        headroom, _ = headroom_of(plan, plan.catalogue.items, per_unit * grid)
        return plan.max_users_per_silo * grid + 2 * headroom + 1

    return max(1, _largest_fitting(levels, 1 << largest_bits(plan.num_silos, 1), FINEST_GRID))


def signal_range(plan: Plan, grid: int) -> int:
    """Return the width of signal range that utility needs in a training sum; most layouts leave more."""
    match plan.model.family:
        case "popularity":
            return plan.max_users_per_silo * grid
        case "item-graph":
            return 2 * (_PAIR_LOAD_PERCENT * plan.max_users_per_silo * grid // 100)
        case _:
            batch = math.ceil(plan.training.expected_batch_size or plan.max_users_per_silo)
            return 2 * plan.training.local_steps * (_GRADIENT_LOAD_PERCENT * batch * grid // 100)


def share_std(plan: Plan, promised_std: float) -> float:
    """Return the std of one silo's share of a promised std, with the full roster."""
    return promised_std / math.sqrt(plan.num_noise_shares)


def largest_share_std(plan: Plan, promised_std: float) -> float:
    """Return the same with the fewest silos a round may have."""
    absent = plan.num_silos - plan.fewest_contributors
    shares = plan.num_noise_shares - absent if plan.privacy.noise_placement == "federation" else 1
    return promised_std / math.sqrt(shares)


def headroom_of(plan: Plan, values: int, promised_std: float, *, steps: int = 1) -> tuple[int, float]:
    """Return how far a contribution's noise may go before it is clamped, and how probably any goes on.

    A discrete Gaussian is sub-Gaussian with its parameter, and so is a sum of independent ones with the root
    of the sum of squares: P(|X| > T) <= 2 exp(-T^2 / (2 std^2)). In logarithms nothing under- or overflows.

    Args:
        plan: any valid plan.
        values: length of the vector.
        promised_std: of the noise of one step that the colluders do not know, grid units.
        steps: noised steps in one contribution.

    Returns:
        ``T`` and a bound on the probability, over all values and silos of a sum, that a noise exceeds it.
    """
    std = largest_share_std(plan, promised_std) * math.sqrt(steps)
    log_count = math.log(2 * plan.num_silos * values)
    log_price = LARGEST_ACCOUNT_EPSILON + math.log1p(math.exp(-LARGEST_ACCOUNT_EPSILON))
    allowed = additive_delta_share(plan.privacy.target_delta) / (_PLANS_PER_ACCOUNT * _num_releases(plan))
    needed = math.sqrt(2 * (log_count + log_price - math.log(allowed)))
    headroom = math.ceil(math.ceil(100 * needed) / 100 * std)
    return headroom, math.exp(log_count - 0.5 * (headroom / std) ** 2)


def layout_for(plan: Plan, values: int, num_levels: int) -> Layout:
    """Return two values a slot where the levels allow it, else one.

    Raises:
        PlanImpossibleError: not even one fits.
    """
    for values_per_slot in (2, 1):
        if num_levels <= 1 << largest_bits(plan.num_silos, values_per_slot):
            return Layout.with_values_per_slot(plan.num_silos, values_per_slot, values)
    raise PlanImpossibleError(
        f"a sum of {plan.num_silos} silos cannot carry {num_levels:,} levels a value",
        where="privacy.grid",
        remedy="lower the grid, max_users_per_silo or the noise",
    )


def burns_of_popularity(plan: Plan) -> int:
    """Return how often the counts before a training may fail after their noise was released."""
    return min(1, plan.training.max_burned_rounds)


def _num_releases(plan: Plan) -> int:
    training = plan.training
    counts = 0 if plan.popularity is None else 1 + burns_of_popularity(plan)
    return counts + training.rounds + training.max_burned_rounds + (plan.releases.metrics != "none")


def _grid_at_cost(plan: Plan, cost: float) -> int:
    """Return the grid on which rounding a gradient moves it by ``cost`` of its norm."""
    return math.ceil(math.sqrt(num_values(plan)) / cost)


def _largest_fitting(levels: Callable[[int], int], num_levels: int, finest: int) -> int:
    """Return the largest grid up to ``finest`` whose levels fit; 0 if none does."""
    low, high = 0, finest
    while low < high:
        grid = (low + high + 1) // 2
        low, high = (grid, high) if levels(grid) <= num_levels else (low, grid - 1)
    return low
