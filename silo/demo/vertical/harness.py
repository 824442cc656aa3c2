"""The columns of a vertical demo's table, measured by somebody who owns all data.

All figures are of the half of the label silo's people on whom nothing was chosen; every column's weights were
chosen on the other half, and nothing is charged to a ledger.

* ``silo_alone``: the best of ridge and EASE on the label silo's own rows;
* ``federated_private``: what the job left at the label silo, and for each person the numbers that each
  feature silo makes of its own rows with the basis that the job left there, as consented sessions bring them;
* ``federated_plain``: exact principal components and exact moments, the same joint model;
* ``pooled_plain``: every column of every partner beside the label silo's items, in one place;
* ``popularity``: the label silo's rows counted.

The weights of ``federated_private`` are kept at the label silo, as ``archipel evaluate --keep`` keeps those
that it chose: lists of the demo's directory are made with what the table measured.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from silo.demo.outcome import Measured, Metrics
from silo.demo.vertical.dataset import Partner, VerticalData
from silo.demo.vertical.settings import LABEL_SILO
from silo.demo.world import World
from silo.evaluation import METRICS, Rankings, per_user_metrics, reported_metrics
from silo.vertical.artefacts import LabelModel, bounded_rows, load_feature_basis, load_label_model
from silo.vertical.joint.model import FeatureMoments, ItemSide, JointModel, Matrix, Weights
from silo.vertical.joint.selection import (
    Chosen,
    LabelUsers,
    choose_alone,
    choose_joint,
    popularity_rankings,
    rankings,
)
from silo.vertical.joint.weights import save_weights
from silo.vertical.moments.simulation import without_privacy

COLUMNS = ("silo_alone", "federated_private", "federated_plain", "pooled_plain", "popularity")
POOLED_FEATURES: Final = (16, 64, 256)
"""Principal components of all columns in one place; the best on validation users counts."""

Report = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Brought:
    """What partners bring.

    Attributes:
        moments: of each partner.
        features: of each partner, everybody × features; NaN for whoever is not there.
    """

    moments: tuple[FeatureMoments, ...]
    features: tuple[Matrix, ...]


@dataclass(frozen=True, eq=False)
class Column:
    """One joint model, as it was chosen, and its figures.

    Attributes:
        metrics: on the users on whom it was not chosen.
        weights: what was chosen.
        error: standard error of how much its ndcg@20 is above the label silo's alone, over the same users.
    """

    metrics: Metrics
    weights: Weights
    error: float


def measure(world: World, data: VerticalData, job: str, report: Report) -> Measured:
    """All columns of one federation, in the order of ``COLUMNS``."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # as many processes as processors: their threads would only spin
        return _measure(world, data, job, report)


def _measure(world: World, data: VerticalData, job: str, report: Report) -> Measured:
    report("scoring the model that the job left at the label silo")
    model = load_label_model(world.silo(LABEL_SILO), job)
    users = users_of(model, data.users)
    alone = choose_alone(users)
    num_features = next(iter(model.partners.values())).gram.shape[0]
    found = _judge_all(
        {
            "federated_private": (users, of_job(model, alone), (left_by_job(world, data, model, job),)),
            "federated_plain": (users, alone, (exact(users, data.partners, num_features),)),
            "pooled_plain": (users, alone, tuple(pooled(users, data.partners))),
        },
        report,
    )
    columns = {name: column.metrics for name, column in found.items()}
    columns["silo_alone"] = metrics_of(rankings(users, users.test, alone.model, ()))
    columns["popularity"] = metrics_of(popularity_rankings(users, users.test))
    weights = {"silo_alone": alone.weights} | {name: column.weights for name, column in found.items()}
    save_weights(world.silo(LABEL_SILO) / "jobs" / job, weights["federated_private"])
    errors = {name: column.error for name, column in found.items()}
    details = _details(data, users, weights, columns, errors)
    return Measured({name: columns[name] for name in COLUMNS}, details)


Asked = tuple[LabelUsers, Chosen, tuple[Brought, ...]]


def _judge_all(asked: Mapping[str, Asked], report: Report) -> dict[str, Column]:
    """Choose and measure every joint model, as many at once as there are processors."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, Column] = {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(asked)), mp_context=context) as pool:
        running = {pool.submit(judge, *asked[name]): name for name in asked}
        for done in as_completed(running):
            found[running[done]] = done.result()
            report(f"choosing weights, with and without privacy: {len(found)} of {len(asked)} models")
    return found


def judge(users: LabelUsers, alone: Chosen, alternatives: Sequence[Brought]) -> Column:
    """The best of some alternatives, chosen on validation users and measured on the others."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        found = [
            (choose_joint(users, alone, brought.moments, brought.features), brought)
            for brought in alternatives
        ]
        chosen, brought = max(found, key=lambda pair: pair[0].validation)
        joint = rankings(users, users.test, chosen.model, brought.features)
        own = rankings(users, users.test, alone.model, ())
        above = per_user_metrics(joint)["ndcg@20"] - per_user_metrics(own)["ndcg@20"]
    return Column(metrics_of(joint), chosen.weights, float(np.std(above) / np.sqrt(above.size)))


def users_of(model: LabelModel, users: LabelUsers) -> LabelUsers:
    """The label silo's people with the items that its model ranks, rows bounded as the model's were."""
    rows = bounded_rows(sp.csr_matrix(users.rows[:, model.items]), model.label_norm)
    return LabelUsers(rows, sp.csr_matrix(users.held_out[:, model.items]), users.is_validation)


def left_by_job(world: World, data: VerticalData, model: LabelModel, job: str) -> Brought:
    """The label silo's moments, and what each feature silo answers when its people are in session."""
    features = []
    for name in model.partners:
        numbers = load_feature_basis(world.silo(name), job).features(list(data.people))
        features.append(only_members(numbers, data.partner(name)))
    return Brought(tuple(model.partners.values()), tuple(features))


def only_members(features: Matrix, partner: Partner) -> Matrix:
    """Leave out whoever is not there: nobody else can consent."""
    is_member = np.diff(partner.rows.indptr) > 0
    return np.where(is_member[:, None], features, np.nan)


def of_job(model: LabelModel, alone: Chosen) -> Chosen:
    """The label silo's own half as the job left it."""
    items = ItemSide.of_gram(model.item_gram, alone.weights.item_ridge)
    return replace(alone, model=JointModel(items, (), alone.weights))


def exact(users: LabelUsers, partners: Sequence[Partner], num_features: int) -> Brought:
    """Features and moments without noise."""
    found = [without_privacy(users.rows, partner.columns(), num_features) for partner in partners]
    features = (only_members(one.features, partner) for one, partner in zip(found, partners, strict=True))
    return Brought(tuple(one.moments for one in found), tuple(features))


def pooled(users: LabelUsers, partners: Sequence[Partner]) -> list[Brought]:
    """All partners' columns in one place, as one partner's, in several numbers of components."""
    columns = np.hstack([partner.columns() for partner in partners])
    sizes = sorted({min(size, columns.shape[1]) for size in POOLED_FEATURES})
    everything = without_privacy(users.rows, columns, sizes[-1])
    cross, gram, features = everything.moments.cross, everything.moments.gram, everything.features
    return [
        Brought((FeatureMoments(cross[:, :size], gram[:size, :size]),), (features[:, :size],))
        for size in sizes
    ]


def metrics_of(found: Rankings) -> Metrics:
    """The reported metrics."""
    return {name: value for name, value in reported_metrics(found).items() if name in METRICS}


def _details(
    data: VerticalData,
    users: LabelUsers,
    weights: Mapping[str, Weights],
    columns: Mapping[str, Metrics],
    errors: Mapping[str, float],
) -> dict[str, Any]:
    alone = columns["silo_alone"]["ndcg@20"]
    return {
        "evaluated_people": int(users.test.size),
        "lift_percent": {
            name: 100 * (columns[name]["ndcg@20"] / alone - 1) if alone else 0.0 for name in errors
        },
        "lift_error_percent": {name: 100 * error / alone if alone else 0.0 for name, error in errors.items()},
        "weights": {name: asdict(one) for name, one in weights.items()},
        "people_in_common": {
            partner.name: np.intersect1d(data.members(LABEL_SILO), data.members(partner.name)).size
            for partner in data.partners
        },
    }
