"""Quality on the holdout as one noised sum: each user's metrics, clipped to a norm, and a count.

A user's vector has ``NUM_METRIC_VALUES`` coordinates in [0, 1] (the metrics and a 1 for the count), so
its L2 norm is at most ``sqrt(NUM_METRIC_VALUES)``; scaled to the grid and floored it is at most ``grid``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policies.price import NUM_METRIC_VALUES, RoundShape
from silo.evaluation import METRICS, per_user_metrics, rank
from silo.models.recommender import Recommender
from silo.rows import Rows

METRIC_NAMES = tuple(name for name in METRICS if name != "coverage@20")


def contribute_metrics(recommender: Recommender, rows: Rows, shape: RoundShape) -> NDArray[np.int64]:
    """Sum of the users' scaled metric vectors, shape (NUM_METRIC_VALUES,), the count last."""
    per_user = per_user_metrics(rank(recommender, rows.train, rows.held_out))
    values = np.stack(
        [*(per_user[name] for name in METRIC_NAMES), np.ones(per_user["recall@10"].size)], axis=1
    )
    scale = shape.grid / math.sqrt(NUM_METRIC_VALUES)
    vectors = np.floor(np.clip(values, 0.0, 1.0) * scale).astype(np.int64)
    return np.asarray(vectors.sum(axis=0), dtype=np.int64)


def released_metrics(sums: NDArray[np.int64], shape: RoundShape) -> dict[str, float]:
    """Means from the noised sums of all silos; empty where the noised count is not positive."""
    scale = shape.grid / math.sqrt(NUM_METRIC_VALUES)
    count = float(sums[-1]) / scale
    if count < 1.0:
        return {}
    means = sums[:-1] / scale / count
    return {name: float(np.clip(mean, 0.0, 1.0)) for name, mean in zip(METRIC_NAMES, means, strict=True)}
