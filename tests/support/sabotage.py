"""Variants of a silo's noising step with something taken out. They exist under tests only.

Each has the signature of :func:`silo.worker.noise_levels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.plan import Plan
from policies.price import RoundShape
from privacy.events import GaussianEvent
from privacy.noise import NoiseShare
from silo.worker import Drawn

Integers = NDArray[np.int64]


def _levels(integers: Integers, shape: RoundShape) -> Integers:
    return np.clip(integers, shape.offset, shape.signal_max + shape.headroom) - shape.offset


def _clamped(signal: Integers, shape: RoundShape) -> Integers:
    return np.clip(signal, shape.signal_min, shape.signal_max)


def no_noise(signal: Integers, shape: RoundShape, plan: Plan) -> Drawn:
    """The line that draws is gone, and so is what it returned."""
    event: Any = None
    return Drawn(_levels(_clamped(signal, shape), shape), event)


def noise_of_another_generator(signal: Integers, shape: RoundShape, plan: Plan) -> Drawn:
    """Floating-point noise of a library's generator: it reports no event."""
    event: Any = None
    noise = np.rint(np.random.default_rng().normal(0, shape.share_std, signal.shape)).astype(np.int64)
    return Drawn(_levels(_clamped(signal, shape) + noise, shape), event)


def half_the_noise(signal: Integers, shape: RoundShape, plan: Plan) -> Drawn:
    """Half the standard deviation under the promised event."""
    assert isinstance(shape.event, GaussianEvent)
    share = NoiseShare(
        shape.share_std / 2,
        num_shares=plan.num_noise_shares,
        sensitivity=shape.sensitivity,
        promised=shape.event,
    )
    noised, event = share.add_to(_clamped(signal, shape))
    return Drawn(_levels(noised, shape), event)


def half_the_noise_and_says_so(signal: Integers, shape: RoundShape, plan: Plan) -> Drawn:
    """Half the standard deviation under the event that this is."""
    assert isinstance(shape.event, GaussianEvent)
    honest = shape.event.model_copy(update={"noise_multiplier": shape.event.noise_multiplier / 2})
    share = NoiseShare(
        shape.share_std / 2, num_shares=plan.num_noise_shares, sensitivity=shape.sensitivity, promised=honest
    )
    noised, event = share.add_to(_clamped(signal, shape))
    return Drawn(_levels(noised, shape), event)


def noise_of_fewer_shares(signal: Integers, shape: RoundShape, plan: Plan) -> Drawn:
    """The collusion that the plan covers is forgotten: shares as if all silos were honest."""
    assert isinstance(shape.event, GaussianEvent)
    std = shape.share_std * (plan.num_noise_shares / plan.num_silos) ** 0.5
    share = NoiseShare(
        std, num_shares=plan.num_noise_shares, sensitivity=shape.sensitivity, promised=shape.event
    )
    noised, event = share.add_to(_clamped(signal, shape))
    return Drawn(_levels(noised, shape), event)
