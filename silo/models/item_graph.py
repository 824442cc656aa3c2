"""Item graph: one noised item-item Gram, denoised, solved in closed form.

Release: each user adds ``q_u x x^T`` on the upper triangle, ``x`` their 0/1 history of ``n`` items and
``q_u = ⌊s / √(n(n+1)/2)⌋`` an integer, so the user's vector has L2 norm at most the grid ``s`` whatever they
did. Everything after the sum is post-processing:

1. :func:`silo.models.denoising.denoise` with the noise that is known to be there;
2. EASE (Steck, WWW 2019) of the denoised Gram, in factor form;
3. a gate: if thinning the aggregate's noise shows no gain over popularity, rank by the denoised diagonal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from typing_extensions import override

from privacy.errors import DataError, UsageError
from silo.models.base import Family, Integers, State, user_weights
from silo.models.denoising import DenoisedGram, DenoiseSettings, Gram, Matrix, Vector, denoise
from silo.models.gate import advantage
from silo.models.recommender import Recommender

if TYPE_CHECKING:
    from policies.plans.price import RoundShape
    from silo.data.interactions import Interactions

BLOCK_ITEMS = 256
RAREST = 1e-3
EXACT_RIDGE = 16.0
"""Ridge of :func:`exact_ease` in units of the Gram's mean diagonal."""


@dataclass(frozen=True)
class ItemGraphSettings:
    """Constants after the release, chosen by ``benchmarks/choose_item_graph_defaults.py``.

    Attributes:
        ridge: EASE ridge on the denoised Gram, units of its mean diagonal.
        min_uniqueness: least part of an item's diagonal left to itself, relative to its communality.
        popularity_discount: an item's score is divided by this power of its popularity; EASE leans to what
            everybody has.
        denoise: constants of the denoising.
    """

    ridge: float = 2.0
    min_uniqueness: float = 0.1
    popularity_discount: float = 0.2
    denoise: DenoiseSettings = field(default_factory=DenoiseSettings)


def triangle_size(items: int) -> int:
    """Values of an upper triangle, diagonal included."""
    return items * (items + 1) // 2


def triangle_sums(histories: sp.csr_matrix, weights: Integers) -> Integers:
    """Upper triangle of ``X^T diag(weights) X``, row by row, exact in int64.

    Args:
        histories: users × items, 0/1.
        weights: integer weight of each user.

    Returns:
        ``items (items + 1) / 2`` int64. Besides it, memory is one block of rows.
    """
    items = histories.shape[1]
    columns = sp.csc_matrix(histories, dtype=np.int64)
    weighted = sp.csc_matrix(sp.diags_array(weights, dtype=np.int64) @ columns)
    sums = np.zeros(triangle_size(items), dtype=np.int64)
    for first, last in _blocks(items):
        block = sp.csr_matrix(columns[:, first:last].T @ weighted[:, first:]).toarray()
        for row in range(last - first):
            sums[_row(first + row, items)] = block[row, row:]
    return sums


def symmetric_gram(sums: Integers, grid: int) -> Gram:
    """Undo :func:`triangle_sums`: the full symmetric Gram in users' units.

    Args:
        sums: upper triangle in grid units.
        grid: integer units per contribution norm.

    Returns:
        items × items float32.
    """
    items = (isqrt(8 * len(sums) + 1) - 1) // 2
    gram = np.zeros((items, items), dtype=np.float32)
    for row in range(items):
        gram[row, row:] = sums[_row(row, items)] / grid
    for first, last in _blocks(items):
        gram[last:, first:last] = gram[first:last, last:].T
        corner = gram[first:last, first:last]
        corner += np.triu(corner, 1).T
    return gram


def exact_ease(gram: NDArray[np.floating], ridge: float = EXACT_RIDGE) -> Recommender:
    """Plain EASE of a Gram without noise: for comparisons that own all data, never for a federation.

    Args:
        gram: items × items, symmetric, exact.
        ridge: units of the mean diagonal.

    Returns:
        A model whose ``left`` is the items × items weight matrix.
    """
    popularity = np.diagonal(gram).astype(np.float64)
    inverse = gram.astype(np.float64)
    inverse[np.diag_indices_from(inverse)] += ridge * popularity.mean()
    inverse = scipy.linalg.inv(inverse, overwrite_a=True, check_finite=False, assume_a="pos")
    inverse /= -np.diagonal(inverse)[None, :].copy()
    np.fill_diagonal(inverse, 0.0)
    return Recommender(
        left=inverse.astype(np.float32),
        right=None,
        bias=np.zeros(len(gram), np.float32),
        popularity=popularity.astype(np.float32),
        metadata={"family": "item-graph", "noise": "none"},
    )


def factored_ease(model: DenoisedGram, settings: ItemGraphSettings) -> tuple[Matrix, Matrix]:
    """EASE of ``A A^T + Ψ`` by Woodbury, without an items × items matrix.

    Returns:
        ``left``, ``right`` (items × rank): off the diagonal the weights are ``left @ right.T``; the diagonal
        is meaningless, because seen items are never recommended.
    """
    factors = model.factors
    communality = (factors**2).sum(1)
    uniqueness = np.maximum(model.diagonal - communality, settings.min_uniqueness * communality)
    uniqueness = uniqueness + settings.ridge * model.diagonal.mean()
    left: Matrix = factors / uniqueness[:, None]
    core = np.linalg.inv(np.eye(factors.shape[1]) + factors.T @ left)
    right: Matrix = left @ core
    precision: Vector = 1.0 / uniqueness - (right * left).sum(1)
    return left, right / precision[:, None]


def score_scale(popularity: Vector, discount: float) -> Vector:
    """Factor of each item's score: ``popularity^-discount``, mean popularity 1, bounded for the rarest."""
    relative = np.maximum(popularity, RAREST * popularity.max()) / popularity.mean()
    scale: Vector = relative**-discount
    return scale


class ItemGraph(Family):
    """The ``item-graph`` family: one round of ``I(I+1)/2`` values.

    The state after the round holds ``gram`` (float32, users' units), ``noise_std`` (same units, scalar) and
    ``aggregate_sha256`` (32 bytes), from which the gate draws: all silos hold the same aggregate and so
    decide alike.
    """

    name = "item-graph"
    settings = ItemGraphSettings()

    @property
    def rank(self) -> int:
        """Most directions of the factorisation, from the plan."""
        model = self.plan.model
        if model.family != "item-graph":
            raise UsageError(
                f"a plan of family {model.family!r} is no item graph", where="plan: model.family"
            )
        return model.rank

    @override
    def initial_state(self) -> State:
        """Nothing is known before the release."""
        return {}

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        """Sum ``q_u x x^T`` over this silo's users (see :func:`triangle_sums`)."""
        histories = interactions.matrix()
        weights = user_weights(self.name, shape.grid, np.diff(histories.indptr))
        return triangle_sums(histories, weights)

    @override
    def absorb(
        self, state: State, sums: Integers, round_index: int, shape: RoundShape, contributors: int
    ) -> State:
        """Unpack the aggregate and remember how much noise it carries."""
        if len(sums) != triangle_size(self.num_items):
            raise DataError(f"an aggregate of {len(sums)} values is no Gram of {self.num_items} items")
        grid = shape.grid
        digest = hashlib.sha256(np.ascontiguousarray(sums, dtype="<i8").tobytes()).digest()
        return {
            "gram": symmetric_gram(sums, grid),
            "noise_std": np.array(self.total_noise_std(shape, contributors) / grid),
            "aggregate_sha256": np.frombuffer(digest, dtype=np.uint8).copy(),
        }

    @override
    def finish(self, state: State) -> Recommender:
        """Denoise, solve, decide. A state without noise gives :func:`exact_ease`."""
        noise_std = float(state["noise_std"])
        if noise_std == 0:
            return exact_ease(state["gram"])
        seed = int.from_bytes(state["aggregate_sha256"].tobytes(), "big")
        return fit(
            state["gram"],
            noise_std,
            self.catalogue.features(),
            rng=np.random.Generator(np.random.PCG64(seed)),
            rank=self.rank,
            settings=self.settings,
        )


def fit(
    gram: Gram,
    noise_std: float,
    features: Matrix | None,
    *,
    rng: np.random.Generator,
    rank: int = 64,
    settings: ItemGraphSettings | None = None,
) -> Recommender:
    """Post-process one noised Gram into a model.

    Args:
        gram: items × items float32, symmetric, users' units.
        noise_std: known standard deviation of each entry's noise, users' units, > 0.
        features: items × attributes, public.
        rng: draws the gate's thinning noise; public, not privacy noise.
        rank: most directions of the factorisation.
        settings: constants.
    """
    settings = settings or ItemGraphSettings()

    def learn(noisy: Gram, std: float) -> tuple[DenoisedGram, Matrix, Matrix]:
        denoised = denoise(noisy, std, features, rank=rank, settings=settings.denoise)
        return denoised, *factored_ease(denoised, settings)

    z = advantage(gram, noise_std, learn, rng)
    denoised, left, right = learn(gram, noise_std)
    popularity = denoised.diagonal.astype(np.float32)
    metadata = {"family": "item-graph", "gate_z": f"{z:.3f}", "gate": "popularity" if z <= 0 else "model"}
    if z <= 0:
        return Recommender.of_popularity(popularity, metadata, is_fallback=True)
    scale = score_scale(denoised.diagonal, settings.popularity_discount)
    return Recommender(
        left=left.astype(np.float32),
        right=(right * scale[:, None]).astype(np.float32),
        bias=np.zeros(len(gram), np.float32),
        popularity=popularity,
        metadata=metadata,
    )


def _blocks(items: int) -> Iterator[tuple[int, int]]:
    for first in range(0, items, BLOCK_ITEMS):
        yield first, min(first + BLOCK_ITEMS, items)


def _row(row: int, items: int) -> slice:
    start = row * items - row * (row - 1) // 2
    return slice(start, start + items - row)
