"""Variants of a silo's noising step with something taken out. They exist under tests only.

Each has the signature of :func:`silo.tasks.add_noise`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.plans.price import RoundShape
from privacy.noise import NoisedIntegers, NoiseShare

Integers = NDArray[np.int64]


def _clamped(signal: Integers, shape: RoundShape) -> Integers:
    return np.clip(signal, shape.step_signal_min, shape.step_signal_max)


def no_noise(signal: Integers, shape: RoundShape, contributors: int) -> NoisedIntegers:
    """The line that draws is gone, and so is what it returned."""
    event: Any = None
    return NoisedIntegers(_clamped(signal, shape), event)


def noise_of_another_generator(signal: Integers, shape: RoundShape, contributors: int) -> NoisedIntegers:
    """Floating-point noise of a library's generator: it reports no event."""
    event: Any = None
    noise = np.rint(np.random.default_rng().normal(0, shape.share_std, signal.shape)).astype(np.int64)
    return NoisedIntegers(_clamped(signal, shape) + noise, event)


def noise_that_is_not_rounded(signal: Integers, shape: RoundShape, contributors: int) -> NoisedIntegers:
    """Real-valued noise under the event of the discrete one: what floating point leaves of it can be read."""
    noise = np.random.default_rng().normal(0, shape.share_std_among(contributors), signal.shape)
    unrounded: Any = _clamped(signal, shape) + noise
    return NoisedIntegers(unrounded, shape.step_event)


def half_the_noise(signal: Integers, shape: RoundShape, contributors: int) -> NoisedIntegers:
    """Half the standard deviation under the promised event."""
    share = NoiseShare(
        shape.share_std_among(contributors) / 2,
        num_shares=shape.num_shares_among(contributors),
        sensitivity=shape.sensitivity,
        promised=shape.step_event,
    )
    return share.add_to(_clamped(signal, shape))


def half_the_noise_and_says_so(signal: Integers, shape: RoundShape, contributors: int) -> NoisedIntegers:
    """Half the standard deviation under the event that this is."""
    promised = shape.step_event
    honest = promised.model_copy(update={"noise_multiplier": promised.noise_multiplier / 2})
    share = NoiseShare(
        shape.share_std_among(contributors) / 2,
        num_shares=shape.num_shares_among(contributors),
        sensitivity=shape.sensitivity,
        promised=honest,
    )
    return share.add_to(_clamped(signal, shape))


def noise_of_fewer_shares(signal: Integers, shape: RoundShape, contributors: int) -> NoisedIntegers:
    """The collusion that the plan covers is forgotten: shares as if all silos were honest."""
    num_shares = shape.num_shares_among(contributors)
    share = NoiseShare(
        shape.share_std_among(contributors) * (num_shares / contributors) ** 0.5,
        num_shares=num_shares,
        sensitivity=shape.sensitivity,
        promised=shape.step_event,
    )
    return share.add_to(_clamped(signal, shape))
