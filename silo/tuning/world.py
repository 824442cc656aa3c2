"""Where plans are tried: public rows, dealt to as many silos as the plan has.

Nothing of a silo is read. What is measured carries over as far as the public people are like the silos' own,
which nobody can know without looking: the figures are of the public people and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import polars as pl
from numpy.typing import NDArray

from policies.plans.drafting import recalibrate
from policies.plans.plan import Plan
from policies.validation import validate_values
from privacy.errors import DataError
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import PublicSet
from silo.data.splits import hold_out, partition_by_taste
from silo.demo.simulation import Simulation, simulate
from silo.evaluation import per_user_metrics, rank
from silo.local.fusion import halves
from silo.models.recommender import Recommender
from silo.models.shipped import ShippedModel

HELD_OUT = 0.2
"""Share of each person's rows that is asked for."""


@dataclass(frozen=True, eq=False)
class PublicWorld:
    """Public rows as a federation would hold them.

    Attributes:
        name: of the set.
        notes: what a reader of the figures must know.
        train: everybody's rows that are learnt from.
        silos: who is in which silo, user indices by silo.
        validation: held-out rows of the people by whom is chosen.
        test: of other people, whom no trial is measured by: they say whether the winner is better.
    """

    name: str
    notes: tuple[str, ...]
    train: Interactions
    silos: tuple[np.ndarray, ...]
    validation: Interactions
    test: Interactions

    @property
    def most_users(self) -> int:
        """People of the largest silo."""
        return max(users.size for users in self.silos)

    def parties(self, cap: int) -> tuple[Interactions, ...]:
        """Training rows of each silo, no history longer than ``cap``."""
        users = pl.Series("user_id", self.train.user_ids, dtype=pl.String)
        items = pl.Series("item_id", self.train.catalogue.item_ids, dtype=pl.String)
        parties = []
        for of_silo in self.silos:
            frame = self.train.select(of_silo).frame
            rows = frame.select(
                users.gather(of_silo).gather(frame["user_index"]).alias("user_id"),
                items.gather(frame["item_index"]).alias("item_id"),
                pl.col("timestamp"),
            )
            parties.append(clean(rows, self.train.catalogue, max_interactions_per_user=cap)[0])
        return tuple(parties)


def make_world(source: PublicSet, num_silos: int, seed: int) -> PublicWorld:
    """Deal a public set to silos by taste, rows held out.

    Raises:
        DataError: too few people for so many silos, or for two halves.
    """
    everything, _ = clean(source.rows, source.catalogue, max_interactions_per_user=len(source.catalogue))
    if everything.num_users < 2 * num_silos:
        raise DataError(
            f"{everything.num_users} people are too few for {num_silos} silos",
            where=source.name,
            remedy="name a larger set with --data, or more --people",
        )
    train, held_out = hold_out(everything, "random", fraction=HELD_OUT, seed=seed)
    silo_of = partition_by_taste(train.matrix(), num_silos, seed)
    silos = tuple(np.flatnonzero(silo_of == silo) for silo in range(num_silos))
    return PublicWorld(source.name, source.notes, train, silos, *halves(held_out))


def public_plan(plan: Plan, world: PublicWorld) -> Plan:
    """The plan as it would be agreed upon for the public people.

    Catalogue and bound on people are those of the world; the divisor of a gradient shrinks or grows as the
    bound does; a checkpoint of another catalogue starts nothing.

    Raises:
        PlanImpossibleError, CalibrationError, PolicyFileError: such a plan cannot be.
    """
    document = plan.model_dump(mode="json", exclude_unset=True)
    items = len(world.train.catalogue)
    document["catalogue"] |= {"sha256": world.train.catalogue.sha256, "items": items}
    document["max_users_per_silo"] = world.most_users
    document["holdout"] = {"kind": "none"}
    document["model"].pop("start_from", None)
    if "features" in document["model"] and plan.model.family == "autoencoder":
        document["model"]["features"] = min(document["model"]["features"], items)
    if plan.training.expected_batch_size is not None:
        share = plan.training.expected_batch_size / plan.max_users_per_silo
        document["training"]["expected_batch_size"] = float(max(1, ceil(share * world.most_users)))
    return recalibrate(validate_values(document, Plan, "plan"), plan.privacy.target_epsilon)


def learn(plan: Plan, world: PublicWorld) -> ShippedModel:
    """Learn what the federation would learn under ``plan``, with as much noise, freshly drawn."""
    parties = world.parties(plan.max_interactions_per_user)
    return simulate(Simulation(plan, parties, silos_per_party=1, noise=1.0, is_clamped=True))


def scores(
    model: ShippedModel, world: PublicWorld, held_out: Interactions, metric: str
) -> NDArray[np.float64]:
    """A metric of each person of ``held_out``, whoever the model is of in the same order: (people,)."""
    return per_user_metrics(rank(model, world.train, held_out))[metric]


def popularity_score(world: PublicWorld, held_out: Interactions, metric: str) -> float:
    """The same of counting everybody's rows without noise: the floor."""
    counts = np.bincount(world.train.frame["item_index"].to_numpy(), minlength=world.train.num_items)
    model = Recommender.of_popularity(counts.astype(np.float32), {"family": "popularity"}, is_fallback=False)
    return float(scores(model, world, held_out, metric).mean())
