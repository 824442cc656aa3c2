"""What became of a model: size, time, and how much of its lists and of its quality is left.

Two kinds of figures. What may travel with the file is measured on made-up histories, drawn from the model's
own popularity. What is measured on the silo's own people is private and stays: it goes to the terminal and
into a file of its own, never into the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp

from silo.data.interactions import Interactions
from silo.evaluation import Scorer, aligned_rows, rank, rank_scores, reported_metrics
from silo.models.recommender import Floats

TOP: Final = 10
METRICS: Final = ("recall@10", "ndcg@10")
MADE_UP_USERS: Final = 500
_LENGTHS: Final = (5, 60)


def made_up_histories(popularity: Floats, seed: int = 0) -> sp.csr_matrix:
    """Histories of nobody: ``MADE_UP_USERS`` × items, 5 to 60 items each, popular ones more often and sooner.

    For networks: they are in no order of anybody's time.
    """
    rng = np.random.default_rng(seed)
    odds = np.maximum(popularity.astype(np.float64), 0.0) + 1e-9
    lengths = np.minimum(rng.integers(*_LENGTHS, size=MADE_UP_USERS), len(odds) - 1)
    rows = [rng.choice(len(odds), int(n), replace=False, p=odds / odds.sum()) for n in lengths]
    starts = np.concatenate(([0], np.cumsum(lengths)))
    return sp.csr_matrix(
        (np.ones(int(starts[-1])), np.concatenate(rows), starts), shape=(MADE_UP_USERS, len(odds))
    )


def top_overlap(first: Scorer, second: Scorer, histories: sp.csr_matrix) -> float:
    """Share of the first ``TOP`` unseen items that two models have in common, mean over histories."""
    nobody = sp.csr_matrix(histories.shape)
    lists = [
        rank_scores(np.asarray(model.scores(histories)), histories, nobody).top[:, :TOP]
        for model in (first, second)
    ]
    shared = [np.intersect1d(one[one >= 0], other).size for one, other in zip(*lists, strict=True)]
    return float(np.sum(shared) / max(1, int((lists[0] >= 0).sum())))


@dataclass(frozen=True)
class PrivateFigures:
    """Of the silo's own people, without noise: for this organisation only.

    Attributes:
        overlap: of lists before and after.
        before: ``METRICS`` of the model as it was.
        after: ``METRICS`` of the file.
    """

    overlap: float
    before: dict[str, float]
    after: dict[str, float]


def measure_privately(
    before: Scorer, after: Scorer, train: Interactions, held_out: Interactions
) -> PrivateFigures:
    """Compare two models on held-out rows; arguments and errors as ``silo.evaluation.evaluate``."""
    figures = [reported_metrics(rank(model, train, held_out)) for model in (before, after)]
    histories, _ = aligned_rows(train, held_out)
    first, second = ({name: found[name] for name in METRICS} for found in figures)
    return PrivateFigures(top_overlap(before, after, histories), first, second)
