"""The columns of the demo's table, measured by somebody who owns all data.

``federated_private`` is scored from the model files that the agents wrote. The other columns are computed
here with the same plan, cap, catalogue, fallback, schedule and trainer, and charged to no ledger:

* ``silo_alone``: each silo's own rows with the whole promised noise;
* ``federated_local_noise`` (families that train by gradients): federated averaging, where every silo takes
  local steps with noise that suffices alone, at the same epsilon (its plan: ``local_noise_plan``);
* ``pooled_private``: all rows, the promised noise once, as a trusted centre would add it;
* ``pooled_same_noise``: all rows, as much noise as the federation's shares add up to;
* ``pooled_plain``: all rows, no noise; gradients are clipped as everywhere, and the schedule stays the one
  made for noised steps, so of a trained model this is no upper limit;
* ``popularity``: all rows counted, no noise.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from policies.plans.plan import Plan
from silo.data.interactions import Interactions
from silo.demo.dataset import DemoData
from silo.demo.local_noise import local_noise_plan
from silo.demo.outcome import Metrics
from silo.demo.simulation import Simulation, pooled, simulate
from silo.demo.world import World
from silo.evaluation import METRICS, Rankings, rank, reported_metrics
from silo.finished import load_finished
from silo.models.recommender import Recommender
from silo.models.shipped import ShippedModel
from silo.rows import load_rows

COLUMNS = (
    "silo_alone",
    "federated_private",
    "federated_local_noise",
    "pooled_private",
    "pooled_same_noise",
    "pooled_plain",
    "popularity",
)
POOLED = ("pooled_private", "pooled_same_noise", "pooled_plain")

Report = Callable[[str], None]
Learnt = TypeVar("Learnt")


def measure(world: World, data: DemoData, job: str, report: Report) -> dict[str, Metrics]:
    """All columns of one federation, in the order of ``COLUMNS``."""
    plan = world.plan()
    report("scoring the model file each silo wrote")
    columns = {"federated_private": _federated(world, data, job)}
    rows = [_rows(world, plan, name) for name in world.names]
    models = _learn(simulations(plan, rows), report)
    columns["silo_alone"] = _score_by_silo([models[name] for name in world.names], data)
    everyone = np.arange(data.train.num_users)
    models["popularity"] = _popularity(data.train)
    for name in ("federated_local_noise", *POOLED, "popularity"):
        if name in models:
            columns[name] = _score([(models[name], everyone)], data)
    return {name: columns[name] for name in COLUMNS if name in columns}


def simulations(plan: Plan, rows: Sequence[Interactions]) -> dict[str, Simulation]:
    """What is learned outside the federation, by silo (alone) or by column.

    Args:
        plan: the federation's.
        rows: of each silo, in the roster's order.
    """
    promised, total = math.sqrt(plan.num_noise_shares), math.sqrt(plan.num_silos)
    found = {
        name: Simulation(plan, (own,), 1, promised, is_clamped=True)
        for name, own in zip(plan.silos, rows, strict=True)
    }
    everything = (pooled(rows),)
    for name, noise in zip(POOLED, (promised, total, 0.0), strict=True):
        found[name] = Simulation(plan, everything, plan.num_silos, noise, is_clamped=False)
    if not plan.is_statistics:
        local = local_noise_plan(plan)
        found["federated_local_noise"] = Simulation(local, tuple(rows), 1, 1.0, is_clamped=True)
    return found


def _federated(world: World, data: DemoData, job: str) -> Metrics:
    models = [load_finished(world.silo(name), job).recommender for name in world.names]
    return _score_by_silo(models, data)


def _rows(world: World, plan: Plan, name: str) -> Interactions:
    """What a silo's contributions are made of, from the rows in its directory."""
    return load_rows(world.silo(name), plan, load_finished(world.silo(name)).dataset).train


def _learn(wanted: Mapping[str, Simulation], report: Report) -> dict[str, ShippedModel]:
    return learn_all(simulate, wanted, report)


def learn_all(
    learn: Callable[[Simulation], Learnt], wanted: Mapping[str, Simulation], report: Report
) -> dict[str, Learnt]:
    """Learn all models, the longest first, as many at once as there are processors."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, Learnt] = {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(wanted)), mp_context=context) as pool:
        names = sorted(wanted, key=lambda name: -wanted[name].cost)
        running = {pool.submit(learn, wanted[name]): name for name in names}
        try:
            for done in as_completed(running):
                found[running[done]] = done.result()
                report(f"the same method outside the federation: {len(found)} of {len(wanted)} models")
        except BaseException:  # whoever is told to end waits for no other model
            for learner in (pool._processes or {}).values():
                learner.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _popularity(train: Interactions) -> Recommender:
    counts = np.bincount(train.frame["item_index"].to_numpy(), minlength=train.num_items)
    return Recommender.of_popularity(counts.astype(np.float32), {"family": "popularity"}, is_fallback=False)


def _score_by_silo(models: Sequence[ShippedModel], data: DemoData) -> Metrics:
    return _score([(model, data.users_of(number)) for number, model in enumerate(models)], data)


def _score(parts: Sequence[tuple[ShippedModel, NDArray[np.int64]]], data: DemoData) -> Metrics:
    """Metrics over the users of all parts together, each ranked by its part's model."""
    rankings = [rank(model, data.train.select(users), data.held_out.select(users)) for model, users in parts]
    return {name: value for name, value in reported_metrics(_joined(rankings)).items() if name in METRICS}


def _joined(rankings: Sequence[Rankings]) -> Rankings:
    return Rankings(
        np.concatenate([ranking.top for ranking in rankings]),
        sp.csr_matrix(sp.vstack([ranking.relevant for ranking in rankings], format="csr")),
    )
