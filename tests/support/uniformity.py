"""Statistics by which a test tells uniform slots from slots that say something."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, chisquare, kstest

from privacy.packing import PLAIN_MODULUS

Integers = NDArray[np.int64]

BY_CHANCE = 1e-6
"""A p-value below this is no chance: one run in a million of an honest build fails a check."""


def p_uniform(slots: Integers, bins: int = 64) -> float:
    """P-value of slots being uniform below the plaintext modulus: the lesser of chi-square and KS."""
    shares = slots / PLAIN_MODULUS
    counts = np.bincount((shares * bins).astype(int), minlength=bins)
    return float(min(chisquare(counts).pvalue, kstest(shares, "uniform").pvalue))


def p_independent(slots: Integers, values: Integers, bins: int = 8) -> float:
    """P-value of slots telling nothing about values: a contingency table of their quantiles."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    rows = np.searchsorted(edges, values, side="right")
    columns = (slots / PLAIN_MODULUS * bins).astype(int)
    table = np.zeros((len(edges) + 1, bins))
    np.add.at(table, (rows, columns), 1)
    return float(chi2_contingency(table[table.sum(axis=1) > 0]).pvalue)


def correlation_in_stds(left: NDArray[np.generic], right: NDArray[np.generic]) -> float:
    """Pearson correlation in units of what independent samples of this length give."""
    return float(np.corrcoef(left.astype(float), right.astype(float))[0, 1] * np.sqrt(len(left)))
