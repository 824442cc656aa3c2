"""Models learned outside any federation, with the production families on the plan's own schedule.

A simulation has parties instead of silos. A party is one or more silos that pool their rows, with one noise
of its own; what a round's parties contribute is added in the clear and absorbed as a job absorbs a sum. So
one party of all silos is the trusted centre, one party of one silo learns alone, and as many parties as silos
are the federation itself. Nothing of it is charged to a ledger: nobody but the harness, who owns all rows,
can run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import polars as pl
from numpy.typing import NDArray

from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from privacy.noise import DiscreteGaussian, WordSource
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.models.base import Family, Integers, State, get_family
from silo.models.shipped import ShippedModel


@dataclass(frozen=True)
class Simulation:
    """One model to learn.

    Attributes:
        plan: constants and schedule.
        parties: cleaned and capped rows of each party.
        silos_per_party: how many silos' rows each party holds.
        noise: standard deviation of each party's noise, over that of the share a silo of the plan adds; 0
            adds none.
        is_clamped: whether signals are clamped to the plan's public range, as in every job.
        start: weights to go on from instead of the plan's seed.
    """

    plan: Plan
    parties: tuple[Interactions, ...]
    silos_per_party: int
    noise: float
    is_clamped: bool
    start: State | None = None

    @property
    def cost(self) -> int:
        """What learning takes, compared with other simulations: users seen in all steps."""
        users = sum(rows.num_users for rows in self.parties)
        return users * self.plan.training.rounds * self.plan.training.local_steps


def pooled(rows: Sequence[Interactions]) -> Interactions:
    """The rows of several silos as one table; every silo's people are people of their own."""
    first_user = np.cumsum([0, *(own.num_users for own in rows)])
    frames = [
        own.frame.with_columns(pl.col("user_index") + pl.lit(first, dtype=pl.UInt32))
        for own, first in zip(rows, first_user, strict=False)
    ]
    user_ids = tuple(user_id for own in rows for user_id in own.user_ids)
    return Interactions(user_ids, pl.concat(frames), rows[0].catalogue)


def simulate(simulation: Simulation) -> ShippedModel:
    """Learn one model, over the items of the first party, on one thread."""
    families, state = learn(simulation)
    return families[0].finish(state)


def simulate_each(simulation: Simulation) -> list[ShippedModel]:
    """Learn what each party makes of the common state, over its own items."""
    families, state = learn(simulation)
    return [family.finish(state) for family in families]


def learn(simulation: Simulation) -> tuple[list[Family], State]:
    """A family for each party, and the state that they share after all rounds, on one thread."""
    from threadpoolctl import threadpool_limits

    plan = simulation.plan
    # One each: a family keeps the rows it saw last, and a party may rank items of its own.
    families = [_family(simulation, rows.catalogue) for rows in simulation.parties]
    with threadpool_limits(1):
        state = families[0].initial_state()
        for index, shape in enumerate(schedule(plan)):
            if shape.purpose == "metrics":
                continue
            sums: NDArray[np.int64] = np.zeros(shape.values, np.int64)
            for family, rows in zip(families, simulation.parties, strict=True):
                sums += _contribution(simulation, family, rows, state, index, shape)
            state = families[0].absorb(state, sums, index, shape, len(simulation.parties))
    return families, state


def _family(simulation: Simulation, catalogue: Catalogue) -> Family:
    """The plan's family, told how much noise its counts have and how many people a party stands for.

    The plan's ``expected_batch_size`` is that of all its silos; a party of several is told of as many more.
    """
    plan = simulation.plan
    std = simulation.noise * schedule(plan)[0].share_std * sqrt(len(simulation.parties))
    if plan.training.expected_batch_size is not None:
        people = plan.training.expected_batch_size * simulation.silos_per_party
        training = plan.training.model_copy(update={"expected_batch_size": people})
        plan = plan.model_copy(update={"training": training})
    return get_family(plan)(plan, catalogue, noise_std=std, start=simulation.start)


def _contribution(
    simulation: Simulation, family: Family, rows: Interactions, state: State, index: int, shape: RoundShape
) -> Integers:
    """The sum over the noised steps that a party takes in one round, starting from the common state."""
    total: NDArray[np.int64] = np.zeros(shape.values, np.int64)
    local = state
    for step in range(shape.steps):
        noised = family.contribute(rows, local, index, shape)
        if simulation.is_clamped:
            noised = np.clip(noised, shape.step_signal_min, shape.step_signal_max)
        if simulation.noise > 0:
            std = simulation.noise * shape.share_std
            noised = noised + DiscreteGaussian(std).sample(noised.size, WordSource.from_os())
        total += noised
        if step + 1 < shape.steps:
            local = family.step_locally(local, noised, shape)
    return total
