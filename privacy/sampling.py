"""Poisson sampling of users, with coins from the operating system.

Guarantees: each user joins independently with probability at most ``sample_rate`` (equal to it up to 2^-64,
rounded down); the coins come from a fresh stream of the process that samples, never from a plan, a job or a
seed. Who was drawn, and how many, is as private as the rows: it is never logged and leaves nowhere. An empty
batch is a batch; it still sends noise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError
from privacy.randomness import WORD_BITS, WordSource


class SampleRateError(UsageError):
    """A sample rate that is no probability."""

    code = "sample_rate"


def poisson_sample(
    num_users: int, sample_rate: float, *, unsafe_source: WordSource | None = None
) -> npt.NDArray[np.int64]:
    """Draw this round's users.

    Args:
        num_users: number of users in the silo, at least 0.
        sample_rate: probability of each, in (0, 1]; 1 takes everybody.
        unsafe_source: a deterministic source, in tests only; by default a fresh one of the OS.

    Returns:
        Ascending user indices, possibly none; int64.

    Raises:
        SampleRateError: ``sample_rate`` is not in (0, 1].
    """
    if not 0 < sample_rate <= 1:
        raise SampleRateError(
            f"sample_rate is {sample_rate}", where="sample_rate", remedy="choose a rate in (0, 1]"
        )
    if sample_rate == 1:
        return np.arange(num_users, dtype=np.int64)
    source = WordSource.from_os() if unsafe_source is None else unsafe_source
    threshold = math.floor(math.ldexp(sample_rate, WORD_BITS))
    return np.flatnonzero(source.words(num_users) < np.uint64(threshold)).astype(np.int64)
