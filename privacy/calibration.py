"""How much noise a promise takes: the inverse of accounting, rounded to the private side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from privacy.accounting import Spending, additive_delta, additive_delta_share
from privacy.budget import FilterSpec
from privacy.errors import UsageError
from privacy.events import SAMPLER, EventCount, GaussianEvent, PoissonSampledGaussianEvent

_RELATIVE_PRECISION = 1e-7
_LARGEST_MULTIPLIER = 1e7
_SCALE = 100_000


class CalibrationError(UsageError):
    """No amount of noise keeps this promise."""

    code = "calibration"


def release_event(
    noise_multiplier: float,
    *,
    sample_rate: float = 1.0,
    max_silos_per_user: int = 1,
    clamp_probability: float = 0.0,
) -> GaussianEvent | PoissonSampledGaussianEvent:
    """The event of one noised release: sampled where ``sample_rate`` is below 1.

    Args:
        noise_multiplier: std of the promised noise over the full sensitivity (``max_silos_per_user`` inside).
        sample_rate: Poisson sampling rate of users; 1 means everybody.
        max_silos_per_user: in how many silos one person may be; only a sampled event needs to be told.
        clamp_probability: bound on the probability that any of its noise is clamped.
    """
    if sample_rate < 1:
        return PoissonSampledGaussianEvent(
            noise_multiplier=noise_multiplier,
            sample_rate=sample_rate,
            max_silos_per_user=max_silos_per_user,
            sampler=SAMPLER,
            clamp_probability=clamp_probability,
        )
    return GaussianEvent(
        noise_multiplier=noise_multiplier, sampler=SAMPLER, clamp_probability=clamp_probability
    )


def calibrate_noise_multiplier(
    target_epsilon: float,
    target_delta: float,
    filter: FilterSpec,
    *,
    releases: int,
    sample_rate: float = 1.0,
    max_silos_per_user: int = 1,
    clamp_probability: float = 0.0,
    fixed: Sequence[EventCount] = (),
) -> float:
    """Least noise with which ``releases`` events and ``fixed`` ones together cost at most ``target_epsilon``.

    Guarantees: ``epsilon_of([*fixed, (event, releases)], target_delta, filter) <= target_epsilon`` for the
    event made of the returned value, so an untouched budget of the same epsilon, delta and filter admits it.

    Args:
        target_epsilon: the promise, above 0.
        target_delta: in (0, 1).
        filter: the accounting that will judge.
        releases: number of equal releases, at least 1.
        sample_rate: Poisson sampling rate of users; below 1 needs a Rényi filter.
        max_silos_per_user: in how many silos one person may be.
        clamp_probability: of each release.
        fixed: events whose noise is already decided and that the promise has to cover as well.

    Returns:
        The *event's* noise multiplier (std over full sensitivity), rounded up to 5 decimals.

    Raises:
        CalibrationError: an argument is out of range, or the promise cannot be kept at any noise.
        UnsupportedEventError: the filter cannot price such events.
    """
    _check(target_epsilon, target_delta, releases, sample_rate, max_silos_per_user)
    base = Spending.of(fixed, filter)
    clamped = base.clamp_probability + releases * Fraction(clamp_probability)
    additive = additive_delta(clamped, target_epsilon)
    if additive > additive_delta_share(target_delta):
        raise CalibrationError(
            f"additive delta {additive:.3g} of clamped noise exceeds 1 % of target_delta {target_delta:.3g}",
            where="target_delta",
            remedy="widen the clamp range or promise a larger delta",
        )

    def keeps_promise(noise_multiplier: float) -> bool:
        event = release_event(
            noise_multiplier,
            sample_rate=sample_rate,
            max_silos_per_user=max_silos_per_user,
            clamp_probability=clamp_probability,
        )
        return base.plus(event, releases).epsilon(target_delta) <= target_epsilon

    least = _least(keeps_promise)
    if least is None:
        raise CalibrationError(
            f"no noise keeps epsilon {target_epsilon:.6g} at delta {target_delta:.3g}: what is already "
            f"fixed costs {base.epsilon(target_delta):.6g} under filter {filter.kind!r}",
            where="target_epsilon",
            remedy="promise more, release less, or choose other orders",
        )
    return _round_up(least * (1 + _RELATIVE_PRECISION))


def _least(keeps_promise: Callable[[float], bool]) -> float | None:
    """The least multiplier that keeps the promise, a relative ``_RELATIVE_PRECISION`` above it at most.

    None where the largest one does not. Every larger multiplier than one that keeps it keeps it too.
    """
    high = 1.0
    while not keeps_promise(high):
        high *= 2
        if high > _LARGEST_MULTIPLIER:
            return None
    low = high / 2
    while low > 1 / _LARGEST_MULTIPLIER and keeps_promise(low):
        high, low = low, low / 2
    while high / low > 1 + _RELATIVE_PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if keeps_promise(middle) else (middle, high)
    return high


def _round_up(value: float) -> float:
    return math.ceil(value * _SCALE) / _SCALE


def _check(epsilon: float, delta: float, releases: int, sample_rate: float, max_silos: int) -> None:
    problems = {
        "target_epsilon": (epsilon, 0 < epsilon < math.inf, "above 0 and finite"),
        "target_delta": (delta, 0 < delta < 1, "between 0 and 1"),
        "releases": (releases, releases >= 1, "at least 1"),
        "sample_rate": (sample_rate, 0 < sample_rate <= 1, "above 0 and at most 1"),
        "max_silos_per_user": (max_silos, max_silos >= 1, "at least 1"),
    }
    for name, (value, fits, range_text) in problems.items():
        if not fits:
            raise CalibrationError(
                f"{name} is {value}, it must be {range_text}",
                where=name,
                remedy=f"choose {name} {range_text}",
            )
