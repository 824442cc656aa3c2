"""Fewer dimensions of a model's tables: smaller and faster, without a row of anybody.

Both cuts read the finished model only, so they are post-processing and cost no epsilon. Nothing is trained
again afterwards: that would read rows, and belongs into a job of its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from privacy.errors import UsageError
from silo.export.scorers import ExportableModel, NotExportableError, TableModel
from silo.models.recommender import Floats


def pruned(whole: ExportableModel, share: float) -> TableModel:
    """Leave out a share of the dimensions, the least important ones.

    Without hidden units the scores are ``u · (left rightᵀ)``: the directions kept are the largest singular
    ones of that product, the best of their number in the Frobenius norm (Eckart & Young, 1936). A hidden unit
    is as important as the norms of its two columns multiplied.

    Args:
        whole: the model.
        share: of the dimensions that go, above 0 and below 1; at least one stays.

    Raises:
        UsageError: a share out of range.
        NotExportableError: a model of items × items, which has no dimensions to leave out, or a network.
    """
    if not 0.0 < share < 1.0:
        raise UsageError(f"a share of {share:g} cannot go", where="--prune", remedy="name one such as 0.5")
    if not isinstance(whole, TableModel):
        raise NotExportableError(
            "a network is pruned only while it is trained: its layers read each other, and learning them "
            "again would read rows",
            where="--prune",
            remedy="leave --prune out (--int8 works), or propose a plan with a smaller model.hidden",
        )
    model = whole.recommender
    if model.right is None or model.left.shape[1] == 0:
        raise NotExportableError(
            "this model has no dimensions to leave out",
            where="--prune",
            remedy="leave --prune out; --int8 works on every model",
        )
    kept = max(1, round((1.0 - share) * model.left.shape[1]))
    if model.hidden is None:
        left, right = _largest_directions(model.left, model.right, kept)
        return replace(whole, recommender=replace(model, left=left, right=right))
    importance = np.linalg.norm(model.left, axis=0) * np.linalg.norm(model.right, axis=0)
    units = np.sort(np.argsort(-importance, kind="stable")[:kept])
    return replace(
        whole,
        recommender=replace(
            model,
            left=np.ascontiguousarray(model.left[:, units]),
            right=np.ascontiguousarray(model.right[:, units]),
            hidden=model.hidden[units],
        ),
    )


def _largest_directions(left: Floats, right: Floats, kept: int) -> tuple[Floats, Floats]:
    """Two tables of ``kept`` columns whose product is the nearest to ``left @ right.T``."""
    of_left, inner_left = np.linalg.qr(left.astype(np.float64))
    of_right, inner_right = np.linalg.qr(right.astype(np.float64))
    turn_left, sizes, turn_right = np.linalg.svd(inner_left @ inner_right.T)
    roots = np.sqrt(sizes[:kept])
    return (
        ((of_left @ turn_left[:, :kept]) * roots).astype(np.float32),
        ((of_right @ turn_right[:kept].T) * roots).astype(np.float32),
    )
