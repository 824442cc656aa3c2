"""Which rows are held out, and which users live in which silo of an experiment.

The split of a user's rows depends on the seed and on that user's rows alone, so every party that holds these
rows finds the same split, and one person more or less moves nobody else's.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from privacy.errors import DataError, UsageError
from silo.data.interactions import Interactions
from silo.data.ordering import pair_hashes

SplitKind = Literal["none", "random", "last"]

_SHARE_EXPONENT: Final = 0.7  # four silos get .41, .25, .19, .15 of the users
_TASTE_DIMENSIONS: Final = 8
_MIN_TASTE_CLUSTERS: Final = 12
_KMEANS_STEPS: Final = 20
_DIRICHLET_CONCENTRATION: Final = 0.3
_DIRICHLET_TRIES: Final = 200


class TooManySilosError(DataError):
    """More silos than users to put into them."""

    code = "too_many_silos"


class NoTimesError(DataError):
    """A split by time of rows that have none."""

    code = "no_times"


def split(
    rows: pl.DataFrame, kind: SplitKind, fraction: float = 0.2, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split each user's rows into training and held-out rows.

    Args:
        rows: ``user_id``, ``item_id``, ``timestamp`` (null allowed) and whatever else; each pair once.
        kind: ``random``: ``max(1, floor(fraction · n))`` of a user's n rows; ``last``: the most recent row,
            ties by seed, rows without a time count as the oldest; ``none``: nothing.
        fraction: share held out, in (0, 1); ``random`` only.
        seed: decides the order of a user's rows.

    Returns:
        (train, held_out), each in the order of ``rows``. Users with fewer than two rows keep them in train.

    Raises:
        UsageError: ``fraction`` out of range.
        NoTimesError: ``last`` although no row has a time.
    """
    held = _held_out(rows, kind, fraction, seed, strict=True)
    return rows.filter(~held), rows.filter(held)


def hold_out(
    interactions: Interactions, kind: SplitKind, *, fraction: float = 0.2, seed: int = 0, strict: bool = True
) -> tuple[Interactions, Interactions]:
    """Split cleaned interactions as ``split`` does; both parts keep all users under the same index.

    Args:
        interactions: all rows.
        kind: as ``split``.
        fraction: as ``split``.
        seed: as ``split``.
        strict: refuse ``last`` where no row has a time. Otherwise ties decide then, as they do for one user
            without times: that nobody has any must not show in a contribution.

    Raises:
        UsageError: as ``split``.
        NoTimesError: if ``strict``, as ``split``.
    """
    frame = interactions.frame
    users = pl.Series("user_id", interactions.user_ids, dtype=pl.String)
    items = pl.Series("item_id", interactions.catalogue.item_ids, dtype=pl.String)
    rows = frame.with_columns(
        users.gather(frame["user_index"]).alias("user_id"), items.gather(frame["item_index"]).alias("item_id")
    )
    held = _held_out(rows, kind, fraction, seed, strict=strict)
    return (
        Interactions(interactions.user_ids, frame.filter(~held), interactions.catalogue),
        Interactions(interactions.user_ids, frame.filter(held), interactions.catalogue),
    )


def _held_out(rows: pl.DataFrame, kind: SplitKind, fraction: float, seed: int, *, strict: bool) -> pl.Series:
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"fraction {fraction} is not between 0 and 1", where="holdout.fraction")
    if kind == "none" or rows.is_empty():
        return pl.Series("held", np.zeros(rows.height, dtype=np.bool_))
    if strict and kind == "last" and rows["timestamp"].null_count() == rows.height:
        raise NoTimesError(
            "no row has a time, so there is no last one",
            where="timestamp",
            remedy="Split at random (`--split random`) or name the column of times.",
        )
    order = pl.Series("order", pair_hashes(rows["user_id"], rows["item_id"], key=f"split/{seed}"))
    oldest = pl.lit(np.iinfo(np.int64).min)
    time = pl.col("timestamp").fill_null(oldest) if kind == "last" else pl.lit(0, pl.Int64)
    keyed = rows.select("user_id", time.alias("time")).with_columns(order).with_row_index("row")
    ranked = keyed.sort(["time", "order"], descending=[True, False]).with_columns(
        pl.int_range(pl.len()).over("user_id").alias("place"), pl.len().over("user_id").alias("rows_of_user")
    )
    counts = ranked["rows_of_user"].to_numpy()
    quota = np.maximum(1, np.floor(fraction * counts + 1e-9)) if kind == "random" else np.ones(counts.size)
    quota = np.minimum(quota, counts - 1)  # 0 for a user with one row
    held = np.zeros(rows.height, dtype=np.bool_)
    held[ranked["row"].to_numpy()] = ranked["place"].to_numpy() < quota
    return pl.Series("held", held)


def partition_by_taste(matrix: sp.csr_matrix, num_silos: int, seed: int) -> npt.NDArray[np.int64]:
    """Spread users over silos as organisations differ: unevenly, each with its own mixture of tastes.

    Users are clustered by spherical k-means on a truncated SVD of their normalised histories; every cluster
    is spread over the silos by a Dirichlet draw, and the draw whose sizes come nearest to shares proportional
    to ``rank^-0.7`` is taken. For experiments only: it needs all rows in one place.

    Args:
        matrix: users × items, non-negative.
        num_silos: how many.
        seed: same seed, same partition.

    Returns:
        The silo (0 … num_silos-1) of each user; no silo is empty, the first is the largest by design.

    Raises:
        UsageError: fewer than one silo.
        TooManySilosError: more silos than users.
    """
    num_users = int(matrix.shape[0])
    if num_silos < 1:
        raise UsageError(
            f"{num_silos} silos cannot hold anybody", where="silos", remedy="Ask for one or more."
        )
    if num_silos > num_users:
        raise TooManySilosError(
            f"{num_silos} silos, but only {num_users} users",
            where="silos",
            remedy="Ask for fewer silos or give more users.",
        )
    rng = np.random.default_rng([seed, num_silos])
    clusters = _taste_clusters(matrix, max(_MIN_TASTE_CLUSTERS, 2 * num_silos), rng)
    sizes = np.bincount(clusters)
    shares = np.arange(1, num_silos + 1) ** -_SHARE_EXPONENT
    shares /= shares.sum()
    mixtures = rng.dirichlet(
        _DIRICHLET_CONCENTRATION * num_silos * shares, size=(_DIRICHLET_TRIES, sizes.size)
    )
    expected = np.einsum("c,tcs->ts", sizes / num_users, mixtures)
    mixture = mixtures[np.abs(expected - shares).sum(axis=1).argmin()]
    silos = (rng.random(num_users)[:, None] > mixture.cumsum(axis=1)[clusters]).sum(axis=1)
    silos = np.minimum(silos, num_silos - 1).astype(np.int64)
    return _without_empty(silos, num_silos)


def _taste_clusters(
    matrix: sp.csr_matrix, num_clusters: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    tastes = _unit_rows(_taste_vectors(matrix, rng))
    num_clusters = min(num_clusters, tastes.shape[0])
    centres = tastes[rng.choice(tastes.shape[0], num_clusters, replace=False)]
    nearest = _nearest(tastes, centres)
    for _ in range(_KMEANS_STEPS):
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, tastes)
        filled = np.bincount(nearest, minlength=num_clusters) > 0
        centres[filled] = _unit_rows(sums[filled])
        nearest = _nearest(tastes, centres)
    return nearest


def _taste_vectors(matrix: sp.csr_matrix, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64).ravel())
    normalised = sp.csr_matrix(sp.diags(1.0 / np.maximum(lengths, 1e-12)) @ matrix)
    smallest = min(normalised.shape)
    if smallest <= 4 * _TASTE_DIMENSIONS:
        left, values, _ = np.linalg.svd(normalised.toarray(), full_matrices=False)
    else:
        start = rng.standard_normal(smallest)
        left, values, _ = sp.linalg.svds(normalised, k=_TASTE_DIMENSIONS, v0=start)
    order = np.argsort(-values)[:_TASTE_DIMENSIONS]
    return np.asarray(left[:, order] * values[order], dtype=np.float64)


def _nearest(points: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.asarray((points @ centres.T).argmax(axis=1), dtype=np.int64)


def _unit_rows(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float64)


def _without_empty(silos: npt.NDArray[np.int64], num_silos: int) -> npt.NDArray[np.int64]:
    for silo in range(num_silos):
        sizes = np.bincount(silos, minlength=num_silos)
        if sizes[silo] == 0:
            silos[int(np.flatnonzero(silos == sizes.argmax())[-1])] = silo
    return silos
