"""Popularity: noised counts, the floor of every table.

Each user adds ``q_u = ⌊s / √n⌋`` to each of their ``n`` items, so the vector has L2 norm at most the grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from privacy.errors import DataError
from silo.models.base import Family, Integers, State, user_weights
from silo.models.denoising import denoise_diagonal
from silo.models.recommender import Recommender

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.price import RoundShape
    from silo.data.interactions import Interactions


def weighted_counts(histories: sp.csr_matrix, grid: int) -> Integers:
    """Sum ``q_u x`` over users: (items,) int64.

    Args:
        histories: users × items, 0/1.
        grid: integer units per contribution norm.
    """
    lengths = np.diff(histories.indptr)
    weights = np.repeat(user_weights("popularity", grid, lengths), lengths)
    sums = np.zeros(histories.shape[1], dtype=np.int64)
    np.add.at(sums, histories.indices, weights)
    return sums


class Popularity(Family):
    """The ``popularity`` family: one round of one value per item.

    The state after the round holds ``counts`` (float64, users' units) and ``noise_std`` (scalar, same units).
    """

    name = "popularity"

    @override
    def initial_state(self) -> State:
        """Nothing is known before the release."""
        return {}

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        """Sum ``q_u x`` over this silo's users."""
        return weighted_counts(interactions.matrix(), shape.grid)

    @override
    def absorb(
        self, state: State, sums: Integers, round_index: int, shape: RoundShape, contributors: int
    ) -> State:
        """Put the aggregate into users' units and remember how much noise it carries."""
        if len(sums) != self.num_items:
            raise DataError(f"an aggregate of {len(sums)} values does not count {self.num_items} items")
        grid = shape.grid
        return {
            "counts": sums / grid,
            "noise_std": np.array(self.total_noise_std(shape, contributors) / grid),
        }

    @override
    def finish(self, state: State) -> Recommender:
        """Shrink the counts by the noise that is known to be in them."""
        counts, noise_std = state["counts"], float(state["noise_std"])
        popularity = denoise_diagonal(counts, noise_std) if noise_std > 0 else counts
        return Recommender.of_popularity(
            popularity.astype(np.float32), {"family": self.name}, is_fallback=False
        )
