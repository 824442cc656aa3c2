"""Quality on the holdout as one noised sum: each user's metrics, clipped to a norm, and a count.

A user's vector has ``NUM_METRIC_VALUES`` coordinates in [0, 1] (the metrics and a 1 for the count), so
its L2 norm is at most ``sqrt(NUM_METRIC_VALUES)``; scaled to the grid and floored it is at most ``grid``.

That bounds what one person changes only if nobody else's vector moves with them. A matrix product over many
users does not promise that: its last bits depend on how many there are, and decide near-ties. So each user
is ranked and measured alone, in calls whose shapes do not depend on the others; the sum is of integers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from policies.plans.price import NUM_METRIC_VALUES, RoundShape
from silo.evaluation import METRICS, Scorer, per_user_metrics, rank_each_alone
from silo.rows import Rows

METRIC_NAMES = tuple(name for name in METRICS if name != "coverage@20")


def contribute_metrics(recommender: Scorer, rows: Rows, shape: RoundShape) -> NDArray[np.int64]:
    """Sum of the users' scaled metric vectors, shape (NUM_METRIC_VALUES,), the count last.

    Adding or removing one person moves the sum by that person's vector and nothing else. Without anybody to
    evaluate it is zero: the noise is added to that too.
    """
    scale = shape.grid / math.sqrt(NUM_METRIC_VALUES)
    sums = np.zeros(NUM_METRIC_VALUES, dtype=np.int64)
    for ranking in rank_each_alone(recommender, rows.train, rows.held_out):
        metrics = per_user_metrics(ranking)
        values = np.array([*(metrics[name][0] for name in METRIC_NAMES), 1.0])
        sums += np.floor(np.clip(values, 0.0, 1.0) * scale).astype(np.int64)
    return sums


def released_metrics(sums: NDArray[np.int64], shape: RoundShape) -> dict[str, float]:
    """Means from the noised sums of all silos; empty where the noised count is not positive."""
    scale = shape.grid / math.sqrt(NUM_METRIC_VALUES)
    count = float(sums[-1]) / scale
    if count < 1.0:
        return {}
    means = sums[:-1] / scale / count
    return {name: float(np.clip(mean, 0.0, 1.0)) for name, mean in zip(METRIC_NAMES, means, strict=True)}
