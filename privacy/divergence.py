"""Rényi divergences of single mechanisms, and their conversion to epsilon.

Guarantees: every conversion is an upper bound at *each* order, so an imperfect minimum over orders errs to
the private side. Divergences cover both directions of add-or-remove-one.
"""

from __future__ import annotations

import math
from functools import lru_cache

_GOLDEN = (math.sqrt(5) - 1) / 2
_SEARCH_STEPS = 90
_INTEGRAL_SLACK = 1e-11


def epsilon_of_renyi(divergence: float, order: float, delta: float) -> float:
    """Epsilon at ``delta`` of a mechanism whose Rényi divergence at ``order`` is ``divergence``.

    Source: Canonne, Kamath, Steinke 2020 (arXiv:2004.00010), proposition 12.
    """
    tail = -math.log(order * delta) / (order - 1) + math.log1p(-1 / order)
    return max(0.0, divergence + tail)


def epsilon_of_rho(rho: float, delta: float) -> float:
    """Epsilon at ``delta`` of a ρ-zCDP mechanism: the least over all orders above 1.

    The bound is quasi-convex in the order (its numerator is convex), so golden-section search finds it.
    """
    if rho == 0:
        return 0.0
    if not math.isfinite(rho):
        return math.inf

    def at(log_excess: float) -> float:
        order = 1 + math.exp(log_excess)
        return rho * order - math.log(order * delta) / (order - 1) + math.log1p(-1 / order)

    low, high = math.log(1e-6), math.log(1e9)
    inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_inner, at_outer = at(inner), at(outer)
    for _ in range(_SEARCH_STEPS):
        if at_inner <= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - _GOLDEN * (high - low)
            at_inner = at(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + _GOLDEN * (high - low)
            at_outer = at(outer)
    return max(0.0, min(at_inner, at_outer))


def renyi_gaussian(noise_multiplier: float, order: float) -> float:
    """``order / (2 noise_multiplier²)``: continuous and discrete Gaussian alike."""
    return order / (2 * noise_multiplier**2)


def binomial(trials: int, probability: float) -> list[float]:
    """Probabilities of 0 … ``trials`` successes."""
    return [
        math.comb(trials, hits) * probability**hits * (1 - probability) ** (trials - hits)
        for hits in range(trials + 1)
    ]


@lru_cache(maxsize=4096)
def renyi_sampled_gaussian(
    noise_multiplier: float, sample_rate: float, max_silos_per_user: int, order: float
) -> float:
    """Rényi divergence of the Poisson-sampled Gaussian, the larger of both directions.

    With ``P = Σ_j Binomial(m, q)(j) N(j/m, z²)`` and ``Q = N(0, z²)``: ``D(P‖Q)`` and ``D(Q‖P)`` by the
    trapezoid rule on a grid that holds all mass. The integrand is analytic in a strip of half-width at
    least ``π z²``, so the rule's error decays like ``exp(-2π² z² / step)``: below 1e-15 here.

    Args:
        noise_multiplier: z, std over the full sensitivity.
        sample_rate: q of each silo's coins.
        max_silos_per_user: m.
        order: Rényi order above 1.

    Returns:
        The divergence, rounded up by 1e-11.
    """
    import numpy as np

    std = noise_multiplier
    step = min(std, std * std, 1.0) / 12
    reach = order + 14 * std
    num_steps = math.ceil(reach / step)
    if num_steps > 1 << 22:
        return math.inf
    points = np.arange(-num_steps, num_steps + 1, dtype=np.float64) * step
    log_ratio = np.full(points.shape, -np.inf)
    for hits, probability in enumerate(binomial(max_silos_per_user, sample_rate)):
        if probability > 0:
            shift = hits / max_silos_per_user
            log_ratio = np.logaddexp(
                log_ratio, math.log(probability) + (shift * points - shift**2 / 2) / std**2
            )
    log_density = -0.5 * (points / std) ** 2 + math.log(step / (std * math.sqrt(2 * math.pi)))
    forward = np.logaddexp.reduce(log_density + order * log_ratio)
    backward = np.logaddexp.reduce(log_density + (1 - order) * log_ratio)
    return max(0.0, float(forward), float(backward)) / (order - 1) + _INTEGRAL_SLACK
