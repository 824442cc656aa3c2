"""The columns of the demo's table, measured by somebody who owns all data.

``federated_private`` is scored from the model files that the agents wrote. The other columns are computed
here with the same plan, cap, catalogue, fallback and post-processing, and charged to no ledger:

* ``silo_alone``: each silo's own rows with the whole promised noise;
* ``pooled_private``: all rows, the promised noise once, as a trusted centre would add it;
* ``pooled_same_noise``: all rows, as much noise as the federation's shares add up to;
* ``pooled_plain``: all rows, no noise;
* ``popularity``: all rows counted, no noise.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from policies.plan import Plan
from policies.price import RoundShape, schedule
from privacy.noise import DiscreteGaussian, WordSource
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.demo.dataset import DemoData
from silo.demo.world import World
from silo.evaluation import METRICS, Rankings, rank, reported_metrics
from silo.finished import load_finished
from silo.models.base import get_family
from silo.models.recommender import Recommender
from silo.rows import load_rows

COLUMNS = (
    "silo_alone",
    "federated_private",
    "pooled_private",
    "pooled_same_noise",
    "pooled_plain",
    "popularity",
)

Metrics = dict[str, float]


@dataclass(frozen=True)
class Fit:
    """One model to learn outside any federation.

    Attributes:
        plan: constants.
        sums: exact sums of the contributions of one or more silos, in grid units.
        noise_std: of the noise to add, in grid units; 0 adds none.
        catalogue: the public items.
    """

    plan: Plan
    sums: NDArray[np.int64]
    noise_std: float
    catalogue: Catalogue


def measure(world: World, data: DemoData, job: str, report: Callable[[str], None]) -> dict[str, Metrics]:
    """All columns of one federation."""
    plan = world.plan()
    report("scoring the model file each silo wrote")
    columns = {"federated_private": _federated(world, data, job)}
    report("the same method outside the federation: alone, pooled, without noise")
    shape = schedule(plan)[0]
    promised = shape.share_std * math.sqrt(plan.num_noise_shares)
    total = shape.share_std * math.sqrt(plan.num_silos)
    sums = [_contribution(world, plan, data.catalogue, name, shape) for name in world.names]
    clamped = [np.clip(own, shape.signal_min, shape.signal_max) for own in sums]
    pooled: NDArray[np.int64] = np.stack(sums).sum(axis=0)
    fits = [Fit(plan, own, promised, data.catalogue) for own in clamped]
    fits += [Fit(plan, pooled, std, data.catalogue) for std in (promised, total, 0.0)]
    *alone, private, same_noise, plain = _fit_all(fits)
    columns["silo_alone"] = _score_by_silo(alone, data)
    everyone = np.arange(data.train.num_users)
    for name, model in (
        ("pooled_private", private),
        ("pooled_same_noise", same_noise),
        ("pooled_plain", plain),
        ("popularity", _popularity(data.train)),
    ):
        columns[name] = _score([(model, everyone)], data)
    return {name: columns[name] for name in COLUMNS}


def _federated(world: World, data: DemoData, job: str) -> Metrics:
    models = [load_finished(world.silo(name), job).recommender for name in world.names]
    return _score_by_silo(models, data)


def _contribution(
    world: World, plan: Plan, catalogue: Catalogue, name: str, shape: RoundShape
) -> NDArray[np.int64]:
    """What a silo's contribution is before noise, from the rows in its directory."""
    finished = load_finished(world.silo(name))
    train = load_rows(world.silo(name), plan, finished.dataset).train
    family = get_family(plan)(plan, catalogue)
    return family.contribute(train, family.initial_state(), 0, shape)


def _fit_all(fits: Sequence[Fit]) -> list[Recommender]:
    """Learn all models, as many at once as there are processors."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(fits)), mp_context=context) as pool:
        return list(pool.map(fit, fits))


def fit(task: Fit) -> Recommender:
    """Learn one model: one round, with central noise of the given standard deviation."""
    from threadpoolctl import threadpool_limits

    shape = schedule(task.plan)[0]
    sums = task.sums
    if task.noise_std > 0:
        sums = sums + DiscreteGaussian(task.noise_std).sample(sums.size, WordSource.from_os())
    with threadpool_limits(1):
        family = get_family(task.plan)(task.plan, task.catalogue, noise_std=task.noise_std)
        return family.finish(family.absorb(family.initial_state(), sums, 0, shape))


def _popularity(train: Interactions) -> Recommender:
    counts = np.bincount(train.frame["item_index"].to_numpy(), minlength=train.num_items)
    return Recommender.of_popularity(counts.astype(np.float32), {"family": "popularity"}, is_fallback=False)


def _score_by_silo(models: Sequence[Recommender], data: DemoData) -> Metrics:
    return _score([(model, data.users_of(number)) for number, model in enumerate(models)], data)


def _score(parts: Sequence[tuple[Recommender, NDArray[np.int64]]], data: DemoData) -> Metrics:
    """Metrics over the users of all parts together, each ranked by its part's model."""
    rankings = [rank(model, data.train.select(users), data.held_out.select(users)) for model, users in parts]
    return {name: value for name, value in reported_metrics(_joined(rankings)).items() if name in METRICS}


def _joined(rankings: Sequence[Rankings]) -> Rankings:
    return Rankings(
        np.concatenate([ranking.top for ranking in rankings]),
        sp.csr_matrix(sp.vstack([ranking.relevant for ranking in rankings], format="csr")),
    )
