"""How well a model tells what people like from what they do not, and how near it comes to their ratings.

A ranking model is no rating predictor: its scores order one person's items. So of its scores, standardised
per person, three things are measured on held-out ratings: the order (AUC within a person), a decision
(accuracy at one threshold) and what they add to a baseline of ratings (RMSE of ``baseline + slope · z``).
Threshold and slope are fitted to the validation half of the people, and the figures are of the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.data.interactions import Interactions
from silo.data.ratings import RatedRows, Ratings, load_ratings
from silo.evaluation import USERS_PER_BLOCK, NothingToEvaluateError, Scorer
from silo.finished import Finished
from silo.local.fusion import halves, standardised
from silo.local.ratings import NeighbourRatings, RatingBaseline, Values
from silo.rows import Rows

RATING_METRICS: Final = ("auc", "accuracy", "rmse")
BASELINE: Final = "ratings:baseline"
NEIGHBOURS: Final = "ratings:neighbours"


@dataclass(frozen=True, eq=False)
class RatingTask:
    """Held-out ratings of two disjoint sets of people, and what the people are known by.

    Attributes:
        rated: all ratings.
        validation: held-out ratings that thresholds and slopes are fitted to.
        test: held-out ratings that figures are of.
        train: interactions that scorers know people by.
        baseline: of the training ratings.
    """

    rated: RatedRows
    validation: Ratings
    test: Ratings
    train: Interactions
    baseline: RatingBaseline

    @classmethod
    def of(
        cls, rated: RatedRows | None, train: Interactions, validation_users: tuple[str, ...],
        test_users: tuple[str, ...],
    ) -> RatingTask | None:  # fmt: skip
        """The task; None where there are no ratings, or none of one of the two sets of people."""
        if rated is None:
            return None
        validation, test = (rated.held_out.of_users(it) for it in (validation_users, test_users))
        if not len(validation) or not len(test):
            return None
        return cls(rated, validation, test, train, RatingBaseline.fit(rated.train, train.num_items))

    def facts(self) -> dict[str, Any]:
        """What the figures are of: JSON values, with the share of the more frequent answer."""
        liked = float((self.test.values >= self.rated.liked_from).mean())
        return {
            "liked_from": self.rated.liked_from,
            "validation_ratings": len(self.validation),
            "test_ratings": len(self.test),
            "majority": max(liked, 1.0 - liked),
        }

    def of_scorer(self, scorer: Scorer) -> dict[str, float | None]:
        """``RATING_METRICS`` of a ranking model."""
        of_validation = pair_scores(scorer, self.train, self.validation)
        of_test = pair_scores(scorer, self.train, self.test)
        left_over = self.validation.values - self.baseline.predict(self.validation)
        slope = float(of_validation @ left_over) / max(float(of_validation @ of_validation), 1e-12)
        predicted = self.baseline.predict(self.test) + slope * of_test
        return self._figures(of_validation, of_test, predicted)

    def of_predictors(self, similarities: sp.csr_matrix) -> dict[str, Mapping[str, float | None]]:
        """``RATING_METRICS`` of the rating predictors, by name."""
        neighbours = NeighbourRatings(self.baseline, similarities, self.rated.train)
        predictors: dict[str, Callable[[Ratings], Values]] = {
            BASELINE: self.baseline.predict,
            NEIGHBOURS: neighbours.predict,
        }
        return {name: self.of_predictor(predict) for name, predict in predictors.items()}

    def of_predictor(self, predict: Callable[[Ratings], Values]) -> dict[str, float | None]:
        """``RATING_METRICS`` of something that predicts ratings."""
        predicted = predict(self.test)
        return self._figures(predict(self.validation), predicted, predicted)

    def _figures(self, of_validation: Values, of_test: Values, predicted: Values) -> dict[str, float | None]:
        likes = self.validation.values >= self.rated.liked_from
        liked = self.test.values >= self.rated.liked_from
        threshold = best_threshold(of_validation, likes)
        return {
            "auc": auc_within_people(self.test.user_ids, of_test, liked),
            "accuracy": float(((of_test >= threshold) == liked).mean()),
            "rmse": float(np.sqrt(np.mean((predicted - self.test.values) ** 2))),
        }


def measure_ratings(directory: Path, finished: Finished, rows: Rows) -> dict[str, Any] | None:
    """What a job's model knows of ratings: ``model`` and :meth:`RatingTask.facts`, with the baseline.

    None where the silo's table has no ratings, or held-out ones of too few people.
    """
    rated = load_ratings(directory, finished.plan, finished.dataset, rows)
    try:
        validation, test = halves(rows.held_out)
    except NothingToEvaluateError:
        return None
    task = RatingTask.of(rated, rows.train, validation.user_ids, test.user_ids)
    if task is None:
        return None
    facts = task.facts() | {"predictors": {BASELINE: task.of_predictor(task.baseline.predict)}}
    return facts | {"model": task.of_scorer(finished.recommender)}


def pair_scores(scorer: Scorer, train: Interactions, pairs: Ratings) -> Values:
    """Score of each pair, standardised over the items its person has not seen.

    People without a history are scored as such.
    """
    names, places = np.unique(pairs.user_ids, return_inverse=True)
    row_of = {user_id: row for row, user_id in enumerate(train.user_ids)}
    rows = np.array([row_of.get(str(name), train.num_users) for name in names], dtype=np.int64)
    stranger = sp.csr_matrix((1, train.num_items))
    histories = sp.csr_matrix(sp.vstack([train.histories(), stranger], format="csr"))[rows]
    found = np.zeros(len(pairs))
    for first in range(0, len(names), USERS_PER_BLOCK):
        block = histories[first : first + USERS_PER_BLOCK]
        mine = (places >= first) & (places < first + block.shape[0])
        scores = standardised(scorer.scores(block), block)
        found[mine] = scores[places[mine] - first, pairs.items[mine]]
    return found


def best_threshold(scores: Values, likes: NDArray[np.bool_]) -> float:
    """The score from which on "liked" is the right answer most often; ties go to the lowest.

    Returns:
        ``-inf`` where "always liked" is best, ``inf`` where "never" is.
    """
    order = np.argsort(scores, kind="stable")
    ordered, answers = scores[order], likes[order]
    below = np.concatenate(([0], np.cumsum(~answers)))
    above = answers.sum() - np.concatenate(([0], np.cumsum(answers)))
    right = below + above
    # A threshold cannot stand between equal scores.
    right[1:-1][ordered[1:] == ordered[:-1]] = -1
    best = int(np.argmax(right))
    if best == 0:
        return -np.inf
    return np.inf if best == len(scores) else float(ordered[best])


def auc_within_people(user_ids: NDArray[np.str_], scores: Values, liked: NDArray[np.bool_]) -> float | None:
    """Chance that something a person likes scores above something the same person does not, ties half.

    The mean over people with both (Mann-Whitney); None where there is nobody.
    """
    order = np.argsort(user_ids, kind="stable")
    starts = np.flatnonzero(np.concatenate(([True], user_ids[order][1:] != user_ids[order][:-1])))
    found = []
    for mine in np.split(order, starts[1:]):
        for_these, against = scores[mine][liked[mine]], scores[mine][~liked[mine]]
        if for_these.size and against.size:
            differences = for_these[:, None] - against[None, :]
            found.append(float((differences > 0).mean() + (differences == 0).mean() / 2))
    return float(np.mean(found)) if found else None
