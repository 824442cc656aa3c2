"""What a plan costs and what shape its sums have: the one place that derives numbers from a plan.

Silos, families, the ledger and the forecast all read :func:`schedule`; nobody derives a grid, a clamp or an
event a second time. Everything here is pure and uses public numbers only. How levels, headroom and shares
come about is :mod:`policies.plans.shapes`.

A person in ``m`` silos moves the sum ``m`` times: under shared noise sensitivities add.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from policies.plans.plan import NoisedMetrics, Plan
from policies.plans.shapes import (
    FINEST_GRID,
    LARGEST_ACCOUNT_EPSILON,
    MAX_ROUNDING_COST,
    MAX_SHARE_STD,
    PlanImpossibleError,
    Purpose,
    RoundShape,
    burns_of_popularity,
    coarsest_grid,
    finest_count_grid,
    headroom_of,
    largest_grid,
    largest_share_std,
    layout_for,
    longest_history,
    num_terms,
    num_values,
    sensitivity_in_one_silo,
    share_std,
    signal_range,
    weight_at,
)
from policies.plans.vertical.price import vertical_events
from privacy.accounting import epsilon_of, epsilon_pld
from privacy.budget import FilterSpec
from privacy.calibration import CalibrationError, calibrate_noise_multiplier, release_event
from privacy.events import Event, EventCount, SelfComposedEvent
from privacy.noise import MIN_SHARE_STD

__all__ = [
    "FINEST_GRID",
    "LARGEST_ACCOUNT_EPSILON",
    "MAX_ROUNDING_COST",
    "PlanImpossibleError",
    "Purpose",
    "RoundShape",
    "Traffic",
    "cap_loss",
    "committed_events",
    "forecast_bytes",
    "largest_grid",
    "metrics_shape",
    "num_values",
    "plan_epsilon",
    "plan_epsilon_pld",
    "popularity_shape",
    "reserved_events",
    "rounding_cost",
    "schedule",
    "sensitivity_in_one_silo",
    "spent_epsilon",
    "training_shape",
    "weight_at",
]

NUM_METRIC_VALUES = 9
SEEDED_FRAME_BYTES = 33_000
FULL_FRAME_BYTES = 65_700

_PLANS_REMEMBERED = 64


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


@lru_cache(_PLANS_REMEMBERED)
def schedule(plan: Plan) -> tuple[RoundShape, ...]:
    """Return the sums of a job without failures: popularity if trained from it, the training, metrics if any.

    Round ``r`` of the protocol (1-based) has the shape ``schedule(plan)[r - 1]``. Vertical plans sum nothing.

    Raises:
        PlanImpossibleError: no layout, grid or noise can do what the plan says.
    """
    if plan.is_vertical:
        return ()
    shapes = (popularity_shape(plan), *(training_shape(plan),) * plan.training.rounds, metrics_shape(plan))
    return tuple(shape for shape in shapes if shape is not None)


def reserved_events(plan: Plan, silo: str | None = None) -> tuple[EventCount, ...]:
    """Return everything the plan may release: all rounds, all burned rounds, popularity and metrics.

    Counts before a training may fail once, where any sum may; a metrics sum that fails is not repeated.

    Args:
        plan: any valid plan.
        silo: whose people; only in a vertical plan does it matter. Left out: whoever pays most.
    """
    if plan.is_vertical:
        return vertical_events(plan, silo)
    training, popularity, metrics = plan.training, popularity_shape(plan), metrics_shape(plan)
    events = [EventCount(training_shape(plan).event, training.rounds + training.max_burned_rounds)]
    if popularity is not None:
        events.append(EventCount(popularity.event, 1 + burns_of_popularity(plan)))
    if metrics is not None:
        events.append(EventCount(metrics.event, 1))
    return _merged(events)


def committed_events(plan: Plan, places: Iterable[tuple[int, int]]) -> tuple[EventCount, ...]:
    """Return what contributions at some places of a job have released, equal events merged.

    Args:
        plan: the job's.
        places: (round, attempt), rounds 1-based; a place named twice counts once.
    """
    shapes = schedule(plan)
    return _merged(EventCount(shapes[round_ - 1].event, 1) for round_, _ in dict.fromkeys(places))


def plan_epsilon(plan: Plan, filter: FilterSpec | None = None, silo: str | None = None) -> float:
    """Return the epsilon of everything the plan may release, at its ``target_delta``.

    Args:
        plan: any valid plan.
        filter: whose accounting; the plan's own if left out.
        silo: whose people (:func:`reserved_events`).

    Raises:
        UnsupportedEventError: a sampled plan under a zCDP filter.
    """
    spec = plan.privacy.filter_spec if filter is None else filter
    return epsilon_of(reserved_events(plan, silo), plan.privacy.target_delta, spec)


def spent_epsilon(plan: Plan, events: Iterable[EventCount]) -> float:
    """Return the epsilon of a part of the plan, such as the rounds so far, by its filter and delta."""
    return epsilon_of(events, plan.privacy.target_delta, plan.privacy.filter_spec)


def plan_epsilon_pld(plan: Plan) -> float:
    """Return the tighter figure of a second accountant (privacy loss distributions), for information."""
    return epsilon_pld(reserved_events(plan), plan.privacy.target_delta)


def cap_loss(plan: Plan) -> float:
    """Return the share of weight the grid rounds away at ``max_interactions_per_user``; 0 for gradients."""
    if not plan.is_statistics:
        return 0.0
    cap = longest_history(plan)
    norm = math.sqrt(num_terms(plan.model.family, cap))
    return 1.0 - weight_at(plan.model.family, plan.privacy.grid, cap) * norm / plan.privacy.grid


def rounding_cost(plan: Plan) -> float:
    """Return how much more noise a training step takes because its sum is rounded to the grid.

    A share of the noise, such as 0.01; above 0.05 a plan is impossible. 0 for statistics, which are integers.
    """
    return sensitivity_in_one_silo(plan) / plan.privacy.grid - 1.0


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


@lru_cache(_PLANS_REMEMBERED)
def training_shape(plan: Plan) -> RoundShape:
    """Return the shape of every training sum of the plan.

    Raises:
        PlanImpossibleError: no layout, grid or noise can do what the plan says.
    """
    privacy, steps = plan.privacy, plan.training.local_steps
    _check_grid(plan)
    values, promised_std = num_values(plan), privacy.noise_multiplier * privacy.grid
    sensitivity = privacy.max_silos_per_user * sensitivity_in_one_silo(plan)
    headroom, clamped = headroom_of(plan, values, promised_std, steps=steps)
    layout = layout_for(plan, values, signal_range(plan, privacy.grid) + 2 * headroom + 1)
    spare = layout.max_level - 2 * headroom
    step_event = release_event(
        privacy.noise_multiplier / (sensitivity / privacy.grid),
        sample_rate=plan.training.sample_rate,
        max_silos_per_user=privacy.max_silos_per_user,
        clamp_probability=_round_up_digits(clamped / steps),
    )
    return RoundShape(
        purpose="training",
        values=values,
        grid=privacy.grid,
        layout=layout,
        signal_min=0 if plan.is_statistics else -(spare // 2),
        signal_max=spare if plan.is_statistics else spare // 2,
        headroom=headroom,
        share_std=share_std(plan, promised_std),
        num_shares=plan.num_noise_shares,
        fewest_contributors=plan.fewest_contributors,
        sensitivity=sensitivity,
        steps=steps,
        step_event=step_event,
        event=step_event if steps == 1 else SelfComposedEvent(event=step_event, count=steps),
    )


@lru_cache(_PLANS_REMEMBERED)
def popularity_shape(plan: Plan) -> RoundShape | None:
    """Return the shape of the counts a trained model starts from, if any: one integer weight a user."""
    if plan.popularity is None:
        return None
    multiplier = _multiplier_alone(plan, plan.popularity.epsilon, "model.bias.epsilon")
    grid = finest_count_grid(plan, multiplier)
    return _one_shot(plan, "popularity", values=plan.catalogue.items, grid=grid, multiplier=multiplier)


@lru_cache(_PLANS_REMEMBERED)
def metrics_shape(plan: Plan) -> RoundShape | None:
    """Return the shape of the metrics sum, if any: one clipped vector a user, metrics and a 1 to count."""
    metrics = plan.releases.metrics
    if not isinstance(metrics, NoisedMetrics):
        return None
    multiplier = _multiplier_alone(plan, metrics.epsilon, "releases.metrics.epsilon")
    return _one_shot(plan, "metrics", values=NUM_METRIC_VALUES, grid=FINEST_GRID, multiplier=multiplier)


def _multiplier_alone(plan: Plan, epsilon: float, field: str) -> float:
    privacy = plan.privacy
    try:
        return calibrate_noise_multiplier(epsilon, privacy.target_delta, privacy.filter_spec, releases=1)
    except CalibrationError as error:
        raise PlanImpossibleError(error.message, where=field, remedy=error.remedy) from error


def _one_shot(plan: Plan, purpose: Purpose, *, values: int, grid: int, multiplier: float) -> RoundShape:
    """Return a sum of one non-negative integer vector of every user, of norm at most ``grid``."""
    sensitivity = float(plan.privacy.max_silos_per_user * grid)
    headroom, clamped = headroom_of(plan, values, multiplier * sensitivity)
    layout = layout_for(plan, values, plan.max_users_per_silo * grid + 2 * headroom + 1)
    event = release_event(multiplier, clamp_probability=_round_up_digits(clamped))
    return RoundShape(
        purpose=purpose,
        values=values,
        grid=grid,
        layout=layout,
        signal_min=0,
        signal_max=layout.max_level - 2 * headroom,
        headroom=headroom,
        share_std=share_std(plan, multiplier * sensitivity),
        num_shares=plan.num_noise_shares,
        fewest_contributors=plan.fewest_contributors,
        sensitivity=sensitivity,
        step_event=event,
        event=event,
    )


def _check_grid(plan: Plan) -> None:
    privacy = plan.privacy
    promised_std = privacy.noise_multiplier * privacy.grid
    smallest, largest = share_std(plan, promised_std), largest_share_std(plan, promised_std)
    if smallest < MIN_SHARE_STD:
        raise PlanImpossibleError(
            f"a noise share of {smallest:.3g} grid units is not Gaussian; {MIN_SHARE_STD:g} are needed",
            where="privacy.noise_multiplier",
            remedy="raise the noise or refine the grid",
        )
    if largest > MAX_SHARE_STD:
        raise PlanImpossibleError(
            f"a noise share of {largest:.3g} grid units cannot be drawn; {MAX_SHARE_STD:.3g} is the most",
            where="privacy.noise_multiplier",
            remedy="lower the noise or coarsen the grid",
        )
    coarsest = coarsest_grid(plan)
    if privacy.grid < coarsest:
        lost, instead = (
            ("long histories would vanish", "lower max_interactions_per_user")
            if plan.is_statistics
            else ("rounding would cost more than 5 % noise", "train a smaller model")
        )
        raise PlanImpossibleError(
            f"grid {privacy.grid} is too coarse, {lost}",
            where="privacy.grid",
            remedy=f"write at least {coarsest}, or {instead}",
        )


def _merged(events: Iterable[EventCount]) -> tuple[EventCount, ...]:
    counts: dict[Event, int] = {}
    for event, count in events:
        counts[event] = counts.get(event, 0) + count
    return tuple(EventCount(event, count) for event, count in counts.items())


def _round_up_digits(value: float, digits: int = 3) -> float:
    """Round up to a few significant digits, so that every machine writes the same event."""
    if value <= 0:
        return 0.0
    exponent = digits - 1 - math.floor(math.log10(value))
    return math.ceil(value * 10.0**exponent) / 10.0**exponent
