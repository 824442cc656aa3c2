"""Opacus' own accountants, as a cross-check of ours; neither decides anything.

Its third one (Gaussian differential privacy) is an approximation that under-reports, so nothing here uses it.
"""

from __future__ import annotations

from opacus.accountants import PRVAccountant, RDPAccountant


def opacus_rdp_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Epsilon by Opacus' Rényi accountant over its own orders.

    Args:
        noise_multiplier: std of the noise over the sensitivity.
        sample_rate: Poisson rate.
        steps: number of equal steps.
        delta: whole delta.
    """
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta=delta))


def opacus_prv_epsilon(
    noise_multiplier: float, sample_rate: float, steps: int, delta: float, *, epsilon_error: float = 0.01
) -> float:
    """Epsilon by Opacus' accountant of privacy loss random variables, an upper bound (Gopi et al. 2021).

    Args:
        noise_multiplier: std of the noise over the sensitivity.
        sample_rate: Poisson rate, below 1.
        steps: number of equal steps.
        delta: whole delta.
        epsilon_error: the bound is at most twice this above the true figure.
    """
    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta=delta, eps_error=epsilon_error))
