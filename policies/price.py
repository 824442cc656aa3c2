"""What a plan costs and what shape its sums have: the one place that derives numbers from a plan.

Silos, families, the ledger and the forecast all read :func:`schedule`; nobody derives a grid, a clamp or an
event a second time. Everything here is pure and uses public numbers only.

One value of one silo becomes a level of ``b`` bits::

    noised = clamp(signal, signal_min, signal_max) + share
    level  = clamp(noised, signal_min - T, signal_max + T) - (signal_min - T)

Clamping the signal is 1-Lipschitz and costs nothing. Clamping the noise breaks the Gaussian with a
probability ``p`` over all values and silos of a round. It costs ``(1 + e^epsilon) p`` of delta, where
epsilon is not the plan's but that of the account which composes this plan with all others. The headroom
``T`` is chosen so that even the largest account a policy can open pays for a thousand such plans with 1 %
of ``target_delta``; that takes only a few standard deviations more.

Noise: ``c`` colluding silos know their own shares, so each of ``n`` adds variance ``sigma^2 / (n - c)``: what
the colluders do not know always suffices, and only that is charged. A person in ``m`` silos moves the sum
``m`` times: under shared noise sensitivities add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from policies.plan import ItemGraphModel, LinearModel, NoisedMetrics, Plan
from privacy.accounting import additive_delta_share, epsilon_of, epsilon_pld
from privacy.budget import FilterSpec
from privacy.calibration import calibrate_noise_multiplier, release_event
from privacy.errors import UsageError
from privacy.events import Event, EventCount
from privacy.noise import MIN_SHARE_STD
from privacy.packing import Layout, largest_bits

FINEST_GRID = 8192
LARGEST_ACCOUNT_EPSILON = 100.0
_PLANS_PER_ACCOUNT = 1000
MAX_SHARE_STD = 2.0**30
MIN_WEIGHT_AT_CAP = 10
MAX_ROUNDING_COST = 0.05
NUM_METRIC_VALUES = 9

# Few users share a pair of items: 3 % of full weights is above every log measured; more is clamped.
_PAIR_LOAD_PERCENT = 3
# No coordinate of a clipped gradient stands for more than a quarter of its norm on average over a batch.
_GRADIENT_LOAD_PERCENT = 25
# Clipping and summing in floating point, relative to the clip norm.
_FLOAT_ERROR = 1e-5

SEEDED_FRAME_BYTES = 33_000
FULL_FRAME_BYTES = 65_700

Purpose = Literal["training", "metrics"]


class PlanImpossibleError(UsageError):
    """No sum can carry what the plan promises."""

    code = "plan_impossible"


@dataclass(frozen=True)
class RoundShape:
    """One secure sum of a plan, in grid units.

    Attributes:
        purpose: ``training`` or ``metrics``.
        values: length of the vector.
        grid: integer units per contribution norm.
        layout: how levels lie in slots.
        signal_min: lower end of the public signal range.
        signal_max: upper end of it.
        headroom: ``T``, how far the noise share may exceed the signal range before it is clamped.
        share_std: standard deviation of one silo's noise share.
        sensitivity: most (L2) that one person moves the sum over all silos, roundings included.
        event: what one silo commits per (round, attempt), clamped noise included.
    """

    purpose: Purpose
    values: int
    grid: int
    layout: Layout
    signal_min: int
    signal_max: int
    headroom: int
    share_std: float
    sensitivity: float
    event: Event

    @property
    def offset(self) -> int:
        """The integer that level 0 stands for; ``roster_size`` times it is in every sum of levels."""
        return self.signal_min - self.headroom


@dataclass(frozen=True)
class Traffic:
    """Bytes of one silo for a whole job without failures.

    Attributes:
        values: summed over all rounds.
        upload_bytes: seeded frames sent.
        download_bytes: sums fetched, and the other silos' frames where sums are verified.
        ratio_to_float32: upload against four bytes a value.
    """

    values: int
    upload_bytes: int
    download_bytes: int
    ratio_to_float32: float


def schedule(plan: Plan) -> tuple[RoundShape, ...]:
    """Return the sums of a job without failures: its training rounds, then the metrics round if any.

    Raises:
        PlanImpossibleError: no layout, grid or noise can do what the plan says.
    """
    training, metrics = (_training_shape(plan),) * plan.training.rounds, metrics_shape(plan)
    return training if metrics is None else (*training, metrics)


def reserved_events(plan: Plan) -> tuple[EventCount, ...]:
    """Return everything the plan may release: all rounds, all burned rounds, the metrics.

    A metrics sum that fails is not repeated.
    """
    training = plan.training
    event, metrics = _training_shape(plan).event, metrics_shape(plan)
    events = (EventCount(event, training.rounds + training.max_burned_rounds),)
    return events if metrics is None else (*events, EventCount(metrics.event, 1))


def plan_epsilon(plan: Plan, filter: FilterSpec | None = None) -> float:
    """Return the epsilon of everything the plan may release, at its ``target_delta``.

    Args:
        plan: any valid plan.
        filter: whose accounting; the plan's own if left out.

    Raises:
        UnsupportedEventError: a sampled plan under a zCDP filter.
    """
    spec = plan.privacy.filter_spec if filter is None else filter
    return epsilon_of(reserved_events(plan), plan.privacy.target_delta, spec)


def plan_epsilon_pld(plan: Plan) -> float:
    """Return the tighter figure of a second accountant (privacy loss distributions), for information."""
    return epsilon_pld(reserved_events(plan), plan.privacy.target_delta)


def cap_loss(plan: Plan) -> float:
    """Return the share of weight the grid rounds away at ``max_interactions_per_user``; 0 for gradients."""
    if not plan.is_statistics:
        return 0.0
    cap = _cap(plan)
    norm = math.sqrt(_num_terms(plan.model.family, cap))
    return 1.0 - weight_at(plan.model.family, plan.privacy.grid, cap) * norm / plan.privacy.grid


def weight_at(family: str, grid: int, interactions: int) -> int:
    """Return the integer weight of a user with so many interactions: their vector's norm is <= ``grid``."""
    return math.isqrt(grid**2 // _num_terms(family, interactions))


def forecast_bytes(plan: Plan, *, verify_sums: float = 0.0) -> Traffic:
    """Return what one silo sends and fetches, as upper bounds.

    Args:
        plan: any valid plan.
        verify_sums: share of the sums the silo recomputes from all other silos' frames.
    """
    shapes = schedule(plan)
    frames = sum(shape.layout.num_frames for shape in shapes)
    values = sum(shape.values for shape in shapes)
    upload = frames * SEEDED_FRAME_BYTES
    verified = math.ceil(verify_sums * (plan.num_silos - 1) * upload)
    return Traffic(values, upload, frames * FULL_FRAME_BYTES + verified, upload / (4 * values))


def num_values(plan: Plan) -> int:
    """Return the length of the vector one training round sums."""
    items = plan.catalogue.items
    match plan.model:
        case ItemGraphModel():
            return items * (items + 1) // 2
        case LinearModel(features=features):
            return items * features + items
        case _:
            return items


def largest_grid(plan: Plan) -> int:
    """Return the finest useful grid for a plan's noise, whatever grid the plan has now.

    Two values share a slot where that leaves a usable grid; otherwise one value has a slot of its own.
    """
    coarsest = _coarsest_grid(plan)
    bits = largest_bits(plan.num_silos, 2)
    values = num_values(plan)
    low, high = 0, FINEST_GRID
    while low < high:
        grid = (low + high + 1) // 2
        headroom, _ = _headroom(plan, values, plan.privacy.noise_multiplier * grid)
        fits = _signal_range(plan, grid) + 2 * headroom + 1 <= 1 << bits
        low, high = (grid, high) if fits else (low, grid - 1)
    return low if low >= coarsest else max(FINEST_GRID, coarsest)


def sensitivity_in_one_silo(plan: Plan) -> float:
    """Return the most (L2, grid units) that one person moves one silo's training sum.

    Statistics are integers per user, at most ``grid``. Gradients are clipped, summed, then rounded once,
    which adds at most one unit a coordinate and the error of floating point.
    """
    grid = plan.privacy.grid
    if plan.is_statistics:
        return float(grid)
    return grid * (1 + _FLOAT_ERROR) + math.sqrt(num_values(plan))


def _training_shape(plan: Plan) -> RoundShape:
    privacy = plan.privacy
    _check_grid(plan)
    values = num_values(plan)
    sensitivity = privacy.max_silos_per_user * sensitivity_in_one_silo(plan)
    headroom, clamp_probability = _headroom(plan, values, privacy.noise_multiplier * privacy.grid)
    signal = _signal_range(plan, privacy.grid)
    layout = _layout(plan, values, signal + 2 * headroom + 1)
    spare = layout.max_level - 2 * headroom
    event = release_event(
        privacy.noise_multiplier / (sensitivity / privacy.grid),
        sample_rate=plan.training.sample_rate,
        max_silos_per_user=privacy.max_silos_per_user,
        clamp_probability=clamp_probability,
    )
    return RoundShape(
        purpose="training",
        values=values,
        grid=privacy.grid,
        layout=layout,
        signal_min=0 if plan.is_statistics else -(spare // 2),
        signal_max=spare if plan.is_statistics else spare // 2,
        headroom=headroom,
        share_std=_share_std(plan, privacy.noise_multiplier * privacy.grid),
        sensitivity=sensitivity,
        event=event,
    )


def metrics_shape(plan: Plan) -> RoundShape | None:
    """Return the shape of the metrics sum, if any: one clipped vector a user, metrics and a 1 to count."""
    privacy, metrics = plan.privacy, plan.releases.metrics
    if not isinstance(metrics, NoisedMetrics):
        return None
    multiplier = calibrate_noise_multiplier(
        metrics.epsilon, privacy.target_delta, privacy.filter_spec, releases=1
    )
    sensitivity = float(privacy.max_silos_per_user * FINEST_GRID)
    headroom, clamp_probability = _headroom(plan, NUM_METRIC_VALUES, multiplier * sensitivity)
    signal = plan.max_users_per_silo * FINEST_GRID
    layout = _layout(plan, NUM_METRIC_VALUES, signal + 2 * headroom + 1)
    return RoundShape(
        purpose="metrics",
        values=NUM_METRIC_VALUES,
        grid=FINEST_GRID,
        layout=layout,
        signal_min=0,
        signal_max=layout.max_level - 2 * headroom,
        headroom=headroom,
        share_std=_share_std(plan, multiplier * sensitivity),
        sensitivity=sensitivity,
        event=release_event(multiplier, clamp_probability=clamp_probability),
    )


def _share_std(plan: Plan, promised_std: float) -> float:
    return promised_std / math.sqrt(plan.num_noise_shares)


def _headroom(plan: Plan, values: int, promised_std: float) -> tuple[int, float]:
    """Return how far a noise share may go before it is clamped, and how probably any share of a sum goes on.

    A discrete Gaussian is sub-Gaussian with its parameter, so P(|X| > T) <= 2 exp(-T^2 / (2 std^2)). In
    logarithms nothing under- or overflows.
    """
    share_std = _share_std(plan, promised_std)
    log_count = math.log(2 * plan.num_silos * values)
    log_price = LARGEST_ACCOUNT_EPSILON + math.log1p(math.exp(-LARGEST_ACCOUNT_EPSILON))
    allowed = additive_delta_share(plan.privacy.target_delta) / (_PLANS_PER_ACCOUNT * _num_releases(plan))
    needed = math.sqrt(2 * (log_count + log_price - math.log(allowed)))
    headroom = math.ceil(math.ceil(100 * needed) / 100 * share_std)
    probability = math.exp(log_count - 0.5 * (headroom / share_std) ** 2)
    return headroom, _round_up_digits(probability)


def _num_releases(plan: Plan) -> int:
    training = plan.training
    return training.rounds + training.max_burned_rounds + isinstance(plan.releases.metrics, NoisedMetrics)


def _signal_range(plan: Plan, grid: int) -> int:
    """Return the width of the signal range that utility needs; the layout usually leaves more."""
    match plan.model.family:
        case "popularity":
            return plan.max_users_per_silo * grid
        case "item-graph":
            return 2 * (_PAIR_LOAD_PERCENT * plan.max_users_per_silo * grid // 100)
        case _:
            batch = math.ceil(plan.training.expected_batch_size or plan.max_users_per_silo)
            return 2 * (_GRADIENT_LOAD_PERCENT * batch * grid // 100)


def _layout(plan: Plan, values: int, num_levels: int) -> Layout:
    """Two values a slot where the levels allow it, else one."""
    for values_per_slot in (2, 1):
        if num_levels <= 1 << largest_bits(plan.num_silos, values_per_slot):
            return Layout.with_values_per_slot(plan.num_silos, values_per_slot, values)
    raise PlanImpossibleError(
        f"a sum of {plan.num_silos} silos cannot carry {num_levels:,} levels a value",
        where="privacy.grid",
        remedy="lower the grid, max_users_per_silo or the noise",
    )


def _check_grid(plan: Plan) -> None:
    privacy = plan.privacy
    share_std = _share_std(plan, privacy.noise_multiplier * privacy.grid)
    if share_std < MIN_SHARE_STD:
        raise PlanImpossibleError(
            f"a noise share of {share_std:.3g} grid units is not Gaussian; {MIN_SHARE_STD:g} are needed",
            where="privacy.noise_multiplier",
            remedy="raise the noise or refine the grid",
        )
    if share_std > MAX_SHARE_STD:
        raise PlanImpossibleError(
            f"a noise share of {share_std:.3g} grid units cannot be drawn; {MAX_SHARE_STD:.3g} is the most",
            where="privacy.noise_multiplier",
            remedy="lower the noise or coarsen the grid",
        )
    coarsest = _coarsest_grid(plan)
    if privacy.grid < coarsest:
        lost = (
            "long histories would vanish" if plan.is_statistics else "rounding would cost more than 5 % noise"
        )
        raise PlanImpossibleError(
            f"grid {privacy.grid} is too coarse, {lost}",
            where="privacy.grid",
            remedy=f"write at least {coarsest}, or lower max_interactions_per_user",
        )


def _coarsest_grid(plan: Plan) -> int:
    if not plan.is_statistics:
        return math.ceil(math.sqrt(num_values(plan)) / MAX_ROUNDING_COST)
    terms = _num_terms(plan.model.family, _cap(plan))
    return math.isqrt(MIN_WEIGHT_AT_CAP**2 * terms - 1) + 1


def _cap(plan: Plan) -> int:
    """Return the longest history after de-duplication."""
    return min(plan.max_interactions_per_user, plan.catalogue.items)


def _num_terms(family: str, interactions: int) -> int:
    """Return how many values one history touches."""
    return interactions * (interactions + 1) // 2 if family == "item-graph" else interactions


def _round_up_digits(value: float, digits: int = 3) -> float:
    """Round up to a few significant digits, so that every machine writes the same event."""
    if value <= 0:
        return 0.0
    exponent = digits - 1 - math.floor(math.log10(value))
    return math.ceil(value * 10.0**exponent) / 10.0**exponent
