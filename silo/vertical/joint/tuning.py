"""The joint model's weights, chosen on people who are in session at every partner.

How much to trust a partner's features is a question that moments alone do not answer: it needs people with
their features and with rows held out. Features come by consent only, so until enough people have agreed the
model runs on careful defaults. Half of those people choose, the other half says how good it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from privacy.errors import DataError
from silo.data.interactions import Interactions
from silo.evaluation import NothingToEvaluateError, per_user_metrics, rank_scores
from silo.vertical.artefacts import LabelModel, bounded_rows
from silo.vertical.joint.model import Vector
from silo.vertical.joint.selection import (
    METRIC,
    LabelUsers,
    choose_alone,
    choose_joint,
    random_halves,
    rankings,
)

MIN_PEOPLE = 20
"""With fewer, half of them choose by chance."""


class TooFewSessionsError(DataError):
    """Too few people in session, with rows held out, to choose anything by."""

    code = "too_few_sessions"


@dataclass(frozen=True)
class Tuned:
    """Chosen weights and what they are worth.

    Attributes:
        model: with the chosen weights.
        num_people: with features of every partner.
        metrics: ``METRIC`` on the half that chose nothing: with partners, alone, by popularity.
    """

    model: LabelModel
    num_people: int
    metrics: dict[str, float]


def tune(
    model: LabelModel,
    train: Interactions,
    held_out: Interactions,
    sessions: Mapping[str, Mapping[str, Vector]],
    *,
    seed: int = 0,
) -> Tuned:
    """Choose the weights of every term.

    Args:
        model: as the job left it.
        train: the label silo's rows.
        held_out: rows of the same people that the model has not seen.
        sessions: by partner and user id, what a token brought; who lacks one partner's counts nowhere.
        seed: of the halves.

    Raises:
        TooFewSessionsError: fewer than ``MIN_PEOPLE``, or none of a half has rows held out.
    """
    known = set(train.user_ids).intersection(*(sessions.get(name, {}) for name in model.partners))
    people = sorted(known)
    if len(people) < MIN_PEOPLE:
        raise _too_few(len(people))
    features = [np.array([sessions[name][person] for person in people]) for name in model.partners]
    rows = bounded_rows(_rows_of(train, people, model), model.label_norm)
    try:
        users = LabelUsers(rows, _rows_of(held_out, people, model), random_halves(len(people), seed))
    except NothingToEvaluateError as error:
        raise _too_few(len(people)) from error
    alone = choose_alone(users, model.item_gram)
    chosen = choose_joint(users, alone, list(model.partners.values()), features)
    compared = {
        "with_partners": rankings(users, users.test, chosen.model, features),
        "alone": rankings(users, users.test, alone.model, ()),
        "popularity": rank_scores(
            np.tile(model.counts, (users.test.size, 1)), rows[users.test], users.held_out[users.test]
        ),
    }
    metrics = {name: float(np.mean(per_user_metrics(found)[METRIC])) for name, found in compared.items()}
    return Tuned(replace(model, weights=chosen.weights), len(people), metrics)


def _rows_of(interactions: Interactions, people: Sequence[str], model: LabelModel) -> sp.csr_matrix:
    """People × ranked items, 0 and 1; whoever is not there has none."""
    index = {user_id: row for row, user_id in enumerate(interactions.user_ids)}
    found = [(place, index[person]) for place, person in enumerate(people) if person in index]
    gather = sp.csr_matrix(
        (np.ones(len(found)), ([place for place, _ in found], [row for _, row in found])),
        shape=(len(people), interactions.num_users),
    )
    return sp.csr_matrix((gather @ interactions.matrix())[:, model.items])


def _too_few(count: int) -> TooFewSessionsError:
    return TooFewSessionsError(
        f"{count} people in session at every partner, with rows held out, in each half at least one",
        remedy=f"collect {MIN_PEOPLE} or more, under a plan that holds rows out",
    )
