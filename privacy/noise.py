"""Discrete Gaussian noise: exact, vectorised, drawn once, and the only thing that reports its event.

Guarantees
----------
- ``DiscreteGaussian.sample`` draws from ``P(x) ∝ exp(-x² / (2 sigma²))`` over the integers without
  approximation, given uniform words (Canonne, Kamath, Steinke 2020, algorithm 3, both of its rejections
  merged into one). Floating point only decides comparisons whose outcome it cannot get wrong; the others,
  one in 2^39, are decided in rational arithmetic.
- The noise of a ``NoiseShare`` is drawn from a stream keyed by the operating system in the process that
  draws, and a share can be used once. Its event is handed out together with the noised integers and in
  no other way; no function here accepts an epsilon.
- Sums of shares: a sum of ``k`` independent discrete Gaussians of std >= 4 is within
  ``10 (k-1) exp(-π² std²)`` per coordinate of one discrete Gaussian of std ``√k std`` (Kairouz, Liu,
  Steinke 2021, theorem 1), so below 1e-60 for any vector that fits a machine. Smaller shares are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError
from privacy.events import GaussianEvent, PoissonSampledGaussianEvent
from privacy.exact import LazyUniform, exp_bracket
from privacy.randomness import RandomnessReuseError, WordSource, unsafe_seeded_words

__all__ = [
    "MIN_SHARE_STD",
    "DiscreteGaussian",
    "NoiseError",
    "NoiseShare",
    "NoisedIntegers",
    "RandomnessReuseError",
    "WordSource",
    "unsafe_seeded_words",
    "unsampled",
]

MIN_SHARE_STD = 4.0
"""Smallest std of one of several shares, in grid units, whose sum counts as one discrete Gaussian."""

_LARGEST_SIGMA = 2.0**30
_LARGEST_INTEGER = 1 << 62
_CHUNK = 1 << 14
_ACCEPTANCE = 0.45
_HALF_WORD = np.uint64(32)
_HALF_MASK = np.uint64((1 << 32) - 1)
# Rounding error of exp(-gamma) and of the 53-bit uniform together stays below 2^-46; see _accept.
_MARGIN = 2.0**-40
_RELATIVE_ROUNDING = 1e-12


def _exp_thresholds() -> npt.NDArray[np.uint64]:
    # floor(exp(-k) 2^64) for k = 45 … 1; the first is 0, so that an all-zero word counts as undecided.
    lowers = [exp_bracket(Fraction(k), 64)[0] * (1 << 64) for k in range(45, 0, -1)]
    return np.array([math.floor(value) for value in lowers], dtype=np.uint64)


_THRESHOLDS = _exp_thresholds()


class NoiseError(UsageError):
    """Noise that cannot be drawn, or would not be what was promised."""

    code = "noise"


@dataclass(frozen=True)
class DiscreteGaussian:
    """The discrete Gaussian on the integers, mean 0.

    Attributes:
        sigma: its parameter; the standard deviation is at most that, and equal to it in all digits
            from sigma = 2 on.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= _LARGEST_SIGMA:
            raise NoiseError(
                f"sigma is {self.sigma}, it must lie in (0, 2^30]",
                where="sigma",
                remedy="choose another grid",
            )

    def sample(self, size: int, source: WordSource) -> npt.NDArray[np.int64]:
        """Draw ``size`` independent values, shape (size,), int64.

        Args:
            size: how many.
            source: uniform words; a part of its stream is consumed.
        """
        drawn = np.empty(size, dtype=np.int64)
        filled = 0
        while filled < size:
            proposals = min(_CHUNK, int((size - filled) / _ACCEPTANCE) + 64)
            accepted = self._accepted(proposals, source)[: size - filled]
            drawn[filled : filled + accepted.size] = accepted
            filled += accepted.size
        return drawn

    def log_tail_probability(self, bound: float) -> float:
        """Upper bound on ``log P(|X| > bound)``, at most 0.

        The lesser of the Gaussian bound ``P(X >= m) <= P(N(0, sigma²) >= m - 1)`` and the sub-Gaussian one
        ``P(X >= m) <= exp(-m² / (2 sigma²))`` (Canonne, Kamath, Steinke 2020, proposition 25).
        """
        if bound < 0:
            return 0.0
        whole = math.floor(bound)
        sub_gaussian = math.log(2) - (whole + 1) ** 2 / (2 * self.sigma**2)
        return min(0.0, sub_gaussian, _log_erfc(whole / (self.sigma * math.sqrt(2))))

    def _accepted(self, count: int, source: WordSource) -> npt.NDArray[np.int64]:
        block_length = math.floor(self.sigma) + 1
        placing, blocking, deciding = source.words(3 * count).reshape(3, count)
        offset, is_fair = _bounded(placing, block_length)
        block = _geometric(blocking, source)
        magnitude = offset + block_length * block
        is_negative = (placing >> np.uint64(63)).astype(bool)
        accept = self._accept(magnitude, block, block_length, deciding, source)
        accept &= is_fair
        accept &= ~(is_negative & (magnitude == 0))
        return np.where(is_negative, -magnitude, magnitude)[accept]

    def _accept(
        self,
        magnitude: npt.NDArray[np.int64],
        block: npt.NDArray[np.int64],
        block_length: int,
        deciding: npt.NDArray[np.uint64],
        source: WordSource,
    ) -> npt.NDArray[np.bool_]:
        """Bernoulli(exp(-gamma)) for each proposal.

        The proposal ``x = offset + t·block`` has weight ``exp(-block)``, the target ``exp(-x²/2σ²)``. Hence
        ``gamma = x²/2σ² - block + σ²/2t² = offset/t + (x - σ²/t)²/2σ² >= 0``. In double precision its
        error is below 2^-49 of ``x²/2σ² <= 2 gamma + 2``; ``exp(-gamma)`` falls faster than that grows.
        """
        gamma = np.square(magnitude * (1 / self.sigma))
        gamma *= 0.5
        gamma -= block
        gamma += 0.5 * (self.sigma / block_length) ** 2
        np.negative(gamma, out=gamma)
        surplus = np.exp(gamma, out=gamma)
        surplus -= (deciding >> np.uint64(11)) * 2.0**-53
        accept: npt.NDArray[np.bool_] = surplus > _MARGIN
        variance = Fraction(self.sigma) ** 2
        for lane in np.flatnonzero(np.abs(surplus) <= _MARGIN).tolist():
            exact = int(magnitude[lane]) ** 2 / (2 * variance) - int(block[lane])
            exact += variance / (2 * block_length**2)
            accept[lane] = LazyUniform(int(deciding[lane]), source).is_below_exp(exact)
        return accept


class NoisedIntegers(NamedTuple):
    """Integers with their noise, and the event of the code that drew it."""

    values: npt.NDArray[np.int64]
    event: GaussianEvent | PoissonSampledGaussianEvent


class NoiseShare:
    """One silo's share of the noise of one contribution. It is drawn and added once.

    Args:
        std: standard deviation of this share, in grid units.
        num_shares: on how many such shares, this one included, the promise rests: silos outside the assumed
            collusion under shared noise, 1 where each silo's noise suffices alone.
        sensitivity: the most (L2) that one person moves the sum over all silos, in grid units.
        promised: the event that the plan reserved.

    Raises:
        NoiseError: the shares together are less noise than ``promised``, or too fine to add up to it.
    """

    def __init__(
        self,
        std: float,
        *,
        num_shares: int,
        sensitivity: float,
        promised: GaussianEvent | PoissonSampledGaussianEvent,
    ) -> None:
        if num_shares < 1 or not sensitivity > 0:
            raise NoiseError(
                f"num_shares is {num_shares} and sensitivity {sensitivity}; both must be positive",
                remedy="derive both from the plan",
            )
        if num_shares > 1 and std < MIN_SHARE_STD:
            raise NoiseError(
                f"a share of std {std:.3g} grid units is too fine to add up to one discrete Gaussian",
                where="std",
                remedy=f"choose a grid on which each share has std {MIN_SHARE_STD} or more",
            )
        delivered = std * math.sqrt(num_shares) / sensitivity
        if not delivered >= promised.noise_multiplier * (1 - _RELATIVE_ROUNDING):
            raise NoiseError(
                f"{num_shares} shares of std {std:.6g} give noise multiplier {delivered:.6g}, the plan "
                f"promises {promised.noise_multiplier:.6g}",
                where="noise_multiplier",
                remedy="derive the shares and the event from the same plan",
            )
        self._distribution = DiscreteGaussian(std)
        self._event = promised
        self._is_used = False

    def add_to(
        self, integers: npt.NDArray[np.integer], *, unsafe_source: WordSource | None = None
    ) -> NoisedIntegers:
        """Draw the share in this process and add it.

        Args:
            integers: the clipped sum, any shape, any integer dtype.
            unsafe_source: a deterministic source, in tests only; by default a fresh one of the OS.

        Returns:
            The noised integers (int64, same shape) and the event that must be charged for them.

        Raises:
            RandomnessReuseError: the share was used before.
            NoiseError: the input is not made of integers of less than 62 bits.
        """
        if self._is_used:
            raise RandomnessReuseError(
                "this noise share has been used; equal noise on two vectors reveals their difference",
                remedy="make a new share for a new contribution",
            )
        if not np.issubdtype(integers.dtype, np.integer):
            raise NoiseError(
                f"noise is added to integers, not to {integers.dtype}", remedy="round to the grid first"
            )
        if integers.size and max(abs(int(integers.max())), abs(int(integers.min()))) >= _LARGEST_INTEGER:
            raise NoiseError("integers of 62 bits or more leave no room for noise", remedy="clip first")
        self._is_used = True
        source = WordSource.from_os() if unsafe_source is None else unsafe_source
        noise = self._distribution.sample(integers.size, source).reshape(integers.shape)
        return NoisedIntegers(integers.astype(np.int64) + noise, self._event)


def unsampled(event: GaussianEvent | PoissonSampledGaussianEvent) -> GaussianEvent:
    """Return the event of a release of everybody.

    Raises:
        NoiseError: it is one of a sample.
    """
    if not isinstance(event, GaussianEvent):
        raise NoiseError("a release of everybody has no sampled event", remedy="reserve a Gaussian event")
    return event


def _bounded(
    words: npt.NDArray[np.uint64], bound: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Integers below ``bound`` from the low halves of words; uniform where the flag is set (Lemire 2019)."""
    product = (words & _HALF_MASK) * np.uint64(bound)
    is_fair = (product & _HALF_MASK) >= np.uint64((1 << 32) % bound)
    return (product >> _HALF_WORD).astype(np.int64), is_fair


def _geometric(words: npt.NDArray[np.uint64], source: WordSource) -> npt.NDArray[np.int64]:
    """How many of exp(-1), exp(-2), … each word's uniform lies below: P(V >= k) = exp(-k)."""
    position = np.searchsorted(_THRESHOLDS, words, side="right")
    counts = (_THRESHOLDS.size - position).astype(np.int64)
    for lane in np.flatnonzero(_THRESHOLDS[position - 1] == words).tolist():
        uniform, count = LazyUniform(int(words[lane]), source), int(counts[lane])
        while uniform.is_below_exp(Fraction(count + 1)):
            count += 1
        counts[lane] = count
    return counts


def _log_erfc(value: float) -> float:
    if value < 5:
        return math.log(math.erfc(value)) + _RELATIVE_ROUNDING
    return -(value**2) - math.log(value * math.sqrt(math.pi))
