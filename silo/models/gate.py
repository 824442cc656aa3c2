"""Does a model learnt from a noised Gram beat popularity? Answered from that Gram alone.

Gaussian thinning: with fresh noise ``Z`` of the same law as the release's own, ``G + Z`` and ``G - Z`` carry
independent errors of √2 times the size. Weights learnt on the first are judged on the second by the
quadratic loss ``tr((I - B)^T G (I - B))``, which is linear in ``G`` and hence unbiased. Both come from one
release, so the answer costs no privacy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from silo.models.denoising import DenoisedGram, Gram, Matrix, Vector

Learner = Callable[[Gram, float], tuple[DenoisedGram, Matrix, Matrix]]


@dataclass(frozen=True)
class _LowRankForm:
    """The matrix ``diag(diagonal) + outer @ core @ outer.T``, symmetric, items × items, never formed."""

    diagonal: Vector
    outer: Matrix
    core: Matrix

    def inner(self, gram: Gram) -> float:
        """``<self, gram>``."""
        images = gram @ self.outer.astype(np.float32)
        low_rank = float(((images @ self.core) * self.outer).sum())
        return low_rank + float(self.diagonal @ np.diagonal(gram))

    def full_diagonal(self) -> Vector:
        """The diagonal of the whole form."""
        diagonal: Vector = self.diagonal + ((self.outer @ self.core) * self.outer).sum(1)
        return diagonal

    def squared_norm(self) -> float:
        """Sum of all squared entries."""
        moments = (self.outer.T @ self.outer) @ self.core
        cross = float(self.diagonal @ (self.full_diagonal() - self.diagonal))
        return float((moments * moments.T).sum()) + 2 * cross + float(self.diagonal @ self.diagonal)

    def minus(self, other: _LowRankForm) -> _LowRankForm:
        """The difference of two forms."""
        ranks = len(self.core), len(other.core)
        core = np.zeros((sum(ranks), sum(ranks)))
        core[: ranks[0], : ranks[0]] = self.core
        core[ranks[0] :, ranks[0] :] = -other.core
        outer = np.concatenate([self.outer, other.outer], axis=1)
        return _LowRankForm(self.diagonal - other.diagonal, outer, core)


def advantage(gram: Gram, noise_std: float, learn: Learner, rng: np.random.Generator) -> float:
    """z-score of "the model's loss is below popularity's".

    Args:
        gram: items × items float32, symmetric, noised.
        noise_std: known standard deviation of each entry's noise, > 0.
        learn: a noisy Gram and its noise → denoised Gram, ``left``, ``right``.
        rng: public randomness for ``Z``.

    Returns:
        Positive: use the model; else rank by popularity.
    """
    thinning = _symmetric_noise(len(gram), noise_std, rng)
    thinning += gram
    train = thinning
    std = noise_std * sqrt(2)
    denoised, left, right = learn(train, std)
    model = _loss_form(left, right)
    popularity = _loss_form(*_popularity_weights(denoised.diagonal, train))
    gain = model.minus(popularity)
    # G - Z = 2G - (G + Z): the held-out half needs no third items × items array.
    loss = 2 * gain.inner(gram) - gain.inner(train)
    spread = std * sqrt(max(2 * gain.squared_norm() - float((gain.full_diagonal() ** 2).sum()), 1e-300))
    return -loss / spread


def _loss_form(left: Matrix, right: Matrix) -> _LowRankForm:
    """``(I - B)(I - B)^T`` for ``B = left @ right.T`` with its diagonal set to zero."""
    kept = 1.0 + (left * right).sum(1)
    outer = np.concatenate([left, kept[:, None] * right], axis=1)
    rank = left.shape[1]
    core = np.zeros((2 * rank, 2 * rank))
    core[:rank, :rank] = right.T @ right
    core[:rank, rank:] = core[rank:, :rank] = -np.eye(rank)
    return _LowRankForm(kept**2, outer, core)


def _popularity_weights(popularity: Vector, train: Gram) -> tuple[Matrix, Matrix]:
    """The best multiple of "recommend what is popular" in the model's own form."""
    ones, column = np.ones((len(popularity), 1)), popularity[:, None]
    diagonal = np.diagonal(train).astype(np.float64)
    # P = 1 p^T without its diagonal: <P, G> over <P, G P> is the least-squares multiple.
    row_sums = train.sum(1, dtype=np.float64)
    linear = float(popularity @ row_sums) - float(popularity @ diagonal)
    squares = float(popularity @ popularity)
    quadratic = squares * float(row_sums.sum()) - 2 * float((popularity**2) @ row_sums)
    quadratic += float((popularity**2) @ diagonal)
    multiple = max(linear / max(quadratic, 1e-9), 0.0)
    return multiple * ones, column


def _symmetric_noise(items: int, std: float, rng: np.random.Generator) -> Gram:
    noise = rng.standard_normal((items, items), dtype=np.float32)
    noise *= np.float32(std)
    for row in range(items):
        noise[row, :row] = noise[:row, row]
    return noise
