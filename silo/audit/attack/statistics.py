"""Statistics that tell slots that say something from uniform ones, and that measure noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy.packing import PLAIN_MODULUS

Integers = NDArray[np.int64]

BY_CHANCE = 1e-6
"""A p-value below this is no chance: one run in a million of an honest build fails a check."""


def p_uniform(slots: Integers, bins: int = 64) -> float:
    """P-value of slots being uniform below the plaintext modulus: the lesser of chi-square and KS."""
    from scipy.stats import chisquare, kstest

    shares = slots / PLAIN_MODULUS
    counts = np.bincount((shares * bins).astype(int), minlength=bins)
    return float(min(chisquare(counts).pvalue, kstest(shares, "uniform").pvalue))


def p_independent(slots: Integers, values: Integers, bins: int = 8) -> float:
    """P-value of slots telling nothing about values: a contingency table of their quantiles."""
    from scipy.stats import chi2_contingency

    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    rows = np.searchsorted(edges, values, side="right")
    columns = (slots / PLAIN_MODULUS * bins).astype(int)
    table = np.zeros((len(edges) + 1, bins))
    np.add.at(table, (rows, columns), 1)
    filled = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    return float(chi2_contingency(filled).pvalue) if min(filled.shape) > 1 else 1.0


def correlation_in_stds(left: NDArray[np.generic], right: NDArray[np.generic]) -> float:
    """Pearson correlation in units of what independent samples of this length give; 0 of a constant."""
    one, other = left.astype(float), right.astype(float)
    if not one.std() or not other.std():
        return 0.0
    return float(np.corrcoef(one, other)[0, 1] * np.sqrt(len(left)))


def p_of_less_variance(noise: Integers, variance: float) -> float:
    """How likely independent Gaussians of mean 0 and this variance are to spread as little as ``noise``."""
    from scipy.stats import chi2

    return float(chi2.cdf(float(np.square(noise.astype(np.float64)).sum() / variance), noise.size))


def p_of_more_variance(noise: Integers, variance: float) -> float:
    """How likely they are to spread as much."""
    from scipy.stats import chi2

    return float(chi2.sf(float(np.square(noise.astype(np.float64)).sum() / variance), noise.size))
