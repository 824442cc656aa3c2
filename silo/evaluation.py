"""How good a recommender ranks: every unseen item competes, held-out items are the relevant ones.

Reported numbers come from ir-measures. ``fast_metrics`` computes the same numbers in NumPy for searches that
evaluate often; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from privacy.errors import DataError
from silo.data.interactions import Interactions

METRICS: Final = (
    *("recall@10", "recall@20", "ndcg@10", "ndcg@20", "precision@10", "f1@10", "hit_rate@10", "mrr@10"),
    "coverage@20",
)
TOP: Final = 20
USERS_PER_BLOCK: Final = 512


class NothingToEvaluateError(DataError):
    """No user with a held-out item."""

    code = "nothing_to_evaluate"


class ScoresError(DataError):
    """Scores of the wrong shape, or not numbers."""

    code = "scores"


class Scorer(Protocol):
    """What is evaluated."""

    def scores(self, histories: sp.csr_matrix) -> npt.NDArray[np.floating]:
        """Scores of all items for each history: users × items in, users × items out; larger is better.

        Rows are in order of time (``Interactions.histories``), for those who read them so.
        """
        ...


@dataclass(frozen=True)
class Rankings:
    """The first ``TOP`` unseen items of each evaluated user.

    Attributes:
        top: users × TOP item indices, best first; -1 where a user has fewer unseen items.
        relevant: held-out items of the same users, users × items.
    """

    top: npt.NDArray[np.int64]
    relevant: sp.csr_matrix


def evaluate(scorer: Scorer, train: Interactions, held_out: Interactions) -> dict[str, float]:
    """Mean of each metric over the users with held-out items, computed by ir-measures.

    Args:
        scorer: ranks the catalogue for a history.
        train: all rows the users are known by: the histories, and what counts as seen (before any cap).
        held_out: the relevant rows; users are matched by their external id.

    Returns:
        ``METRICS`` -> value. R@k divides by all relevant items; F1@10 is per user, then averaged; coverage@20
        is the share of the catalogue that stands in somebody's first 20.

    Raises:
        NothingToEvaluateError: no user has a held-out item.
        ScoresError: the scorer's answer is not users × items of numbers.
    """
    return reported_metrics(rank(scorer, train, held_out))


def rank(scorer: Scorer, train: Interactions, held_out: Interactions) -> Rankings:
    """Rank all unseen items for each user with held-out items; arguments and errors as ``evaluate``.

    Ties are broken by the smaller item index. Memory is bounded by ``USERS_PER_BLOCK`` × items.
    """
    seen, relevant = aligned_rows(train, held_out)
    if relevant.shape[0] == 0:
        raise NothingToEvaluateError(
            "no user has a held-out item",
            remedy="Hold out rows of users with two interactions or more.",
        )
    blocks = [
        _best_unseen(_scores(scorer, histories, strict=True), histories)
        for start in range(0, relevant.shape[0], USERS_PER_BLOCK)
        for histories in [seen[start : start + USERS_PER_BLOCK]]
    ]
    return Rankings(np.concatenate(blocks), relevant)


def rank_scores(
    scores: npt.NDArray[np.floating], histories: sp.csr_matrix, relevant: sp.csr_matrix
) -> Rankings:
    """Rank users whose scores are known already, for models that read more than a history.

    Args:
        scores: users × items, larger is better.
        histories: users × items, what is seen.
        relevant: users × items, held out; at least one item a user.

    Raises:
        ScoresError: the scores are not users × items of numbers.
    """
    if scores.shape != histories.shape or np.isnan(scores).any():
        raise ScoresError(f"scores of shape {scores.shape} for {histories.shape}, or not numbers")
    return Rankings(_best_unseen(np.array(scores, dtype=np.float64), histories), relevant)


def rank_each_alone(scorer: Scorer, train: Interactions, held_out: Interactions) -> Iterator[Rankings]:
    """Rank as ``rank``, one user a call: what is yielded for one depends on nobody else, to the last bit.

    ``rank`` is many times faster, but a product over a block of users rounds differently with its size.

    Yields:
        The ranking of each user with held-out items, in their order; nothing where there is none. A score
        that is NaN ranks nowhere: one user's must not stop the others'.
    """
    seen, relevant = aligned_rows(train, held_out)
    for user in range(relevant.shape[0]):
        history = seen[user : user + 1]
        top = _best_unseen(_scores(scorer, history, strict=False), history)
        yield Rankings(top, relevant[user : user + 1])


def aligned_rows(train: Interactions, held_out: Interactions) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """(histories in order of time, relevant), users × items, of the users with held-out items.

    Users are matched by external id.

    Raises:
        DataError: the two speak of different catalogues.
    """
    if train.catalogue != held_out.catalogue:
        raise DataError("training and held-out rows speak of different catalogues")
    relevant = held_out.matrix()
    evaluated = np.flatnonzero(np.diff(relevant.indptr))
    row_of = {user_id: row for row, user_id in enumerate(train.user_ids)}
    rows = np.array(
        [row_of.get(held_out.user_ids[user], train.num_users) for user in evaluated], dtype=np.int64
    )
    stranger = sp.csr_matrix((1, train.num_items))
    histories = sp.csr_matrix(sp.vstack([train.histories(), stranger], format="csr"))[
        np.array(rows, dtype=np.int64)
    ]
    return histories, relevant[evaluated]


def _scores(scorer: Scorer, histories: sp.csr_matrix, *, strict: bool) -> npt.NDArray[np.float64]:
    scores = np.array(scorer.scores(histories), dtype=np.float64)
    if scores.shape != histories.shape:
        raise ScoresError(f"scores have shape {scores.shape} instead of {histories.shape}")
    unordered = np.isnan(scores)
    if strict and unordered.any():
        raise ScoresError("a score is NaN")
    scores[unordered] = -np.inf
    return scores


def _best_unseen(scores: npt.NDArray[np.float64], histories: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """First TOP item indices of each row; every candidate tied with the last place is compared by index."""
    num_users, num_items = scores.shape
    scores[histories.nonzero()] = -np.inf
    places = min(TOP, num_items)
    last = np.partition(scores, num_items - places, axis=1)[:, num_items - places]
    users, items = np.nonzero((scores >= last[:, None]) & (scores > -np.inf))
    order = np.lexsort((items, -scores[users, items], users))
    users, items = users[order], items[order]
    counts = np.bincount(users, minlength=num_users)
    place = np.arange(users.size) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < TOP
    top = np.full((num_users, TOP), -1, dtype=np.int64)
    top[users[kept], place[kept]] = items[kept]
    return top


def reported_metrics(rankings: Rankings) -> dict[str, float]:
    """The metrics of ``rankings`` by ir-measures."""
    import ir_measures
    from ir_measures import RR, P, R, Success, nDCG

    names = {
        R @ 10: "recall@10",
        R @ 20: "recall@20",
        nDCG @ 10: "ndcg@10",
        nDCG @ 20: "ndcg@20",
        P @ 10: "precision@10",
        Success @ 10: "hit_rate@10",
        RR @ 10: "mrr@10",
    }
    qrels = dict(_qrels(rankings.relevant))
    run = dict(_run(rankings.top))
    values: dict[str, dict[str, float]] = {name: {} for name in names.values()}
    for metric in ir_measures.iter_calc(list(names), qrels, run):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    values["f1@10"] = {
        user: _harmonic(precision, values["recall@10"][user])
        for user, precision in values["precision@10"].items()
    }
    means = {name: sum(of_user.values()) / len(qrels) for name, of_user in values.items()}
    means["coverage@20"] = _coverage(rankings)
    return {name: means[name] for name in METRICS}


def _qrels(relevant: sp.csr_matrix) -> Iterator[tuple[str, dict[str, int]]]:
    for user, (start, end) in enumerate(zip(relevant.indptr, relevant.indptr[1:], strict=False)):
        yield str(user), {str(item): 1 for item in relevant.indices[start:end]}


def _run(top: npt.NDArray[np.int64]) -> Iterator[tuple[str, dict[str, float]]]:
    """Places as scores: our ties are already decided, and trec_eval would decide them otherwise."""
    for user, items in enumerate(top):
        yield str(user), {str(item): float(TOP - place) for place, item in enumerate(items) if item >= 0}


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _coverage(rankings: Rankings) -> float:
    shown = np.unique(rankings.top[rankings.top >= 0])
    return float(shown.size / rankings.relevant.shape[1])


def fast_metrics(rankings: Rankings) -> dict[str, float]:
    """The metrics of ``rankings`` in NumPy; equal to ``reported_metrics`` to 1e-9."""
    means = {name: float(np.mean(values)) for name, values in per_user_metrics(rankings).items()}
    return {**means, "coverage@20": _coverage(rankings)}


def per_user_metrics(rankings: Rankings) -> dict[str, npt.NDArray[np.float64]]:
    """Each metric of each evaluated user, shape (users,); coverage is nobody's own."""
    num_users, num_items = rankings.relevant.shape
    relevant = np.diff(rankings.relevant.indptr)
    keys = np.repeat(np.arange(num_users), relevant) * num_items + rankings.relevant.indices
    wanted = np.arange(num_users)[:, None] * num_items + rankings.top
    hits = np.isin(wanted, keys) & (rankings.top >= 0)
    discounts = 1.0 / np.log2(np.arange(2, TOP + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discounts)))
    at_10, at_20 = hits[:, :10].sum(axis=1), hits.sum(axis=1)
    precision, recall = at_10 / 10, at_10 / relevant
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    first = np.where(at_10 > 0, 1.0 / (hits[:, :10].argmax(axis=1) + 1), 0.0)
    return {
        "recall@10": recall,
        "recall@20": at_20 / relevant,
        "ndcg@10": hits[:, :10] @ discounts[:10] / ideal[np.minimum(relevant, 10)],
        "ndcg@20": hits @ discounts / ideal[np.minimum(relevant, 20)],
        "precision@10": precision,
        "f1@10": f1,
        "hit_rate@10": (at_10 > 0).astype(np.float64),
        "mrr@10": first,
    }
