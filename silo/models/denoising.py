"""From a noisy item-item Gram, whose noise is known, to a low-rank Gram: variational Bayes.

Model: off the diagonal ``G_ij = a_i · a_j + N(0, noise_std²)``, with the prior
``a_i ~ N(m_i, popularity_i^p Σ)`` whose mean ``m_i`` is linear in public item attributes and whose ``Σ`` is
learnt. Mean-field updates (Nakajima & Sugiyama, JMLR 12, 2011, made symmetric) shrink each direction by what
the noise leaves of it, so nothing is tuned to a data set. All of it reads a noised aggregate only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Gram = NDArray[np.float32]

MISFIT_EVERY = 5
JITTER = 1e-9
MIN_POPULARITY = 1e-12


@dataclass(frozen=True)
class DenoiseSettings:
    """Constants of the fit; the defaults were chosen by ``benchmarks/choose_item_graph_defaults.py``.

    Attributes:
        popularity_sweeps: how often popularity is read from whole rows, besides the diagonal.
        popularity_power: prior variance of an item's factor grows with this power of its popularity.
        steps: mean-field sweeps; all but the last move half way.
        max_communality: most of an item's diagonal that the factors may explain.
    """

    popularity_sweeps: int = 2
    popularity_power: float = 1.0
    steps: int = 40
    max_communality: float = 0.95


@dataclass(frozen=True)
class DenoisedGram:
    """A Gram whose off-diagonal is ``factors @ factors.T`` and whose diagonal is ``diagonal``.

    Attributes:
        factors: items × rank float64.
        diagonal: items float64 ≥ 0: denoised popularity.
    """

    factors: Matrix
    diagonal: Vector


def denoise_diagonal(
    diagonal: Vector, noise_std: float | Vector, *, num_atoms: int = 60, steps: int = 200
) -> Vector:
    """Posterior mean of non-negative values seen through Gaussian noise, prior learnt by EM on a grid.

    Args:
        diagonal: noisy values.
        noise_std: standard deviation of their noise, of all or of each, > 0.
        num_atoms: positive support points of the prior, besides 0.
        steps: EM steps.

    Source: Koenker & Mizera, JASA 109 (2014), the non-parametric maximum likelihood prior.
    """
    spread = np.broadcast_to(np.asarray(noise_std, dtype=np.float64), diagonal.shape)[:, None]
    highest = max(float(diagonal.max()), 2 * float(spread.min()))
    atoms = np.concatenate([[0.0], np.geomspace(max(highest * 1e-4, 1e-3), highest, num_atoms)])
    exponents = -0.5 * ((diagonal[:, None] - atoms) / spread) ** 2
    likelihood = np.exp(exponents - exponents.max(1, keepdims=True))
    prior = np.full(len(atoms), 1.0 / len(atoms))
    for _ in range(steps):
        prior = prior * (likelihood / (likelihood @ prior)[:, None]).mean(0)
    posterior = likelihood * prior
    means: Vector = (posterior @ atoms) / posterior.sum(1)
    return means


def estimate_popularity(gram: Gram, noise_std: float, sweeps: int) -> Vector:
    """How popular each item is, from its diagonal entry and from its row.

    An item's row, weighted by how popular the others seem, rises with its own popularity and averages the
    noise of the whole row; diagonal and row are put on one scale and combined by their known noise.

    Args:
        gram: items × items float32, symmetric, users' units.
        noise_std: standard deviation of every entry's noise, > 0.
        sweeps: times the rows are weighted anew; 0 reads the diagonal only.

    Returns:
        items float64 ≥ 0, in units of the diagonal.
    """
    diagonal = np.diagonal(gram).astype(np.float64)
    popularity = denoise_diagonal(diagonal, noise_std)
    for _ in range(sweeps):
        weights = np.sqrt(popularity / max(float(popularity.max()), MIN_POPULARITY))
        rows = (gram @ weights.astype(np.float32)) - diagonal * weights
        agreement = float(rows @ weights), float(diagonal @ weights)
        if min(agreement) <= 0:
            break
        rows *= agreement[1] / agreement[0]
        row_variance = (noise_std * agreement[1] / agreement[0]) ** 2 * float(weights @ weights)
        # Rows follow popularity up to a factor that differs by item; what it adds is measured, not assumed.
        excess = (diagonal - rows) ** 2 - noise_std**2 - row_variance
        mismatch = max(float(excess @ weights), 0.0) / float(popularity**2 @ weights)
        doubt = row_variance + mismatch * popularity**2
        share = doubt / (doubt + noise_std**2)
        popularity = denoise_diagonal(share * diagonal + (1 - share) * rows, noise_std * np.sqrt(share))
    return popularity


def denoise(
    gram: Gram,
    noise_std: float,
    features: Matrix | None = None,
    *,
    rank: int = 64,
    settings: DenoiseSettings | None = None,
) -> DenoisedGram:
    """Fit the symmetric factor model to a noisy Gram.

    Args:
        gram: items × items float32, symmetric, users' units.
        noise_std: known standard deviation of every entry's noise, > 0.
        features: items × attributes, public; the prior means are linear in them.
        rank: most directions; those the noise hides vanish by themselves.
        settings: constants of the fit.

    Returns:
        The denoised Gram; deterministic.
    """
    settings = settings or DenoiseSettings()
    popularity = estimate_popularity(gram, noise_std, settings.popularity_sweeps)
    rank = min(rank, max(len(gram) // 4, 1))
    fit = _MeanField(gram, noise_std, popularity, _design(popularity, features), rank=rank, settings=settings)
    for step in range(settings.steps):
        fit.sweep(is_last=step == settings.steps - 1)
        if step % MISFIT_EVERY == MISFIT_EVERY - 1:
            fit.measure_misfit()
    return DenoisedGram(fit.factors, popularity)


class _MeanField:
    """The moving parts of :func:`denoise`: factors, their posterior covariance, the learnt prior."""

    def __init__(
        self,
        gram: Gram,
        noise_std: float,
        popularity: Vector,
        design: Matrix,
        *,
        rank: int,
        settings: DenoiseSettings,
    ) -> None:
        self.settings = settings
        self.off_diagonal = gram.copy()
        np.fill_diagonal(self.off_diagonal, 0.0)
        self.popularity = popularity
        self.known_variance = self.variance = noise_std**2
        scale = np.maximum(popularity, 1e-4 * popularity.max()) ** settings.popularity_power
        self.prior_scale = scale / scale.mean()
        self.design = design
        self.factors = _leading_directions(self.off_diagonal, self.prior_scale**0.25, rank)
        whitened = self.factors / np.sqrt(self.prior_scale)[:, None]
        self.prior_mean = np.zeros_like(self.factors)
        self.prior_covariance = whitened.T @ whitened / len(whitened) + 1e-6 * np.eye(rank)
        self.posterior_covariance = np.zeros((rank, rank))

    def sweep(self, *, is_last: bool) -> None:
        """Update all items' posteriors at once, then the prior.

        In the basis ``T`` with ``T' Σ^-1 T = I`` and ``T' (A'A + C) T`` diagonal every item's posterior
        precision is diagonal, so one sweep costs one product with the Gram.
        """
        basis, strengths = self._shared_basis()
        prior_precision = (self.variance / self.prior_scale)[:, None]
        precision = strengths[None, :] + prior_precision
        pull = (
            self._gram_times_factors() @ basis + prior_precision * np.linalg.solve(basis, self.prior_mean.T).T
        )
        updated = (pull / precision) @ basis.T
        # Parallel updates of a symmetric model oscillate unless they move half way.
        self.factors = updated if is_last else 0.5 * (self.factors + updated)
        spread = self.variance / precision
        self.posterior_covariance = (basis * spread.sum(0)) @ basis.T
        root = np.sqrt(self.prior_scale)[:, None]
        self.prior_mean = root * _fitted(self.design, self.factors / root)
        residual = (self.factors - self.prior_mean) / root
        self.prior_covariance = (
            residual.T @ residual / len(residual)
            + (basis * (spread / self.prior_scale[:, None]).mean(0)) @ basis.T
        )

    def measure_misfit(self) -> None:
        """Let the variance grow by what rank and model leave unexplained; never below the known noise."""
        factors, items = self.factors, len(self.factors)
        explained = self.off_diagonal @ factors.astype(np.float32)
        communality = (factors * factors).sum(1)
        moments = factors.T @ factors
        total = float(np.einsum("ij,ij->", self.off_diagonal, self.off_diagonal, dtype=np.float64))
        squares = total - 2 * float((explained * factors).sum()) + float((moments * moments).sum())
        squares -= float(communality @ communality)
        self.variance = max(self.known_variance, squares / (items * (items - 1)))

    def _shared_basis(self) -> tuple[Matrix, Vector]:
        rank = self.factors.shape[1]
        covariance = self.prior_covariance
        lower = np.linalg.cholesky(covariance + JITTER * np.trace(covariance) / rank * np.eye(rank))
        moments = self.factors.T @ self.factors + self.posterior_covariance
        strengths, rotation = np.linalg.eigh(lower.T @ moments @ lower)
        return lower @ rotation, np.maximum(strengths, 0.0)

    def _gram_times_factors(self) -> Matrix:
        """``G @ A`` with the missing diagonal imputed: what the factors say, below the item's popularity."""
        communality = (self.factors**2).sum(1)
        imputed = np.minimum(communality, self.settings.max_communality * self.popularity)
        product = self.off_diagonal @ self.factors.astype(np.float32)
        result: Matrix = product + self.factors * imputed[:, None]
        return result


def _design(popularity: Vector, features: Matrix | None) -> Matrix:
    columns = [np.ones((len(popularity), 1)), np.sqrt(popularity / popularity.mean())[:, None]]
    if features is not None:
        columns.append(features)
    return np.concatenate(columns, axis=1)


def _fitted(design: Matrix, targets: Matrix) -> Matrix:
    normal = design.T @ design
    width = len(normal)
    normal += 1e-6 * np.trace(normal) / width * np.eye(width)
    fitted: Matrix = design @ np.linalg.solve(normal, design.T @ targets)
    return fitted


def _leading_directions(off_diagonal: Gram, weights: Vector, rank: int) -> Matrix:
    """Start from the largest eigenpairs of the Gram, popular items weighted up (they are seen best)."""
    weights = weights / np.sqrt((weights**2).mean())
    items = len(off_diagonal)
    single = weights.astype(np.float32)
    operator = LinearOperator(
        (items, items), matvec=lambda v: single * (off_diagonal @ (single * v.ravel())), dtype=np.float32
    )
    values, vectors = eigsh(operator, k=rank, which="LA", tol=1e-2, v0=np.ones(items, np.float32))
    result: Matrix = vectors * np.sqrt(np.maximum(values, 1e-3)) / weights[:, None]
    return result
