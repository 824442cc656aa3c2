"""The benchmark of the ``sequence`` family: who is public, who is in which silo, what is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from policies.plans.drafting import Draft, complete_plan
from policies.plans.models import ArchitectureName
from policies.plans.plan import Plan
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import load_public_set
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.simulation import Simulation, learn
from silo.evaluation import Scorer, per_user_metrics, rank
from silo.models.base import State

SILOS = ("a", "b", "c", "d")
COLLUDING, DELTA = 1, 1e-5
METRICS = ("ndcg@20", "recall@20", "hit_rate@10")
MARKETPLACE, MOVIELENS = "marketplace", "movielens-1m"
MAX_INTERACTIONS = 200
PUBLIC_SHARE = 8
"""One in so many people is public."""
PUBLIC_EPSILON = 8.0
"""A plan has one; nothing follows from it where no noise is added."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One set and what reads it.

    Attributes:
        name: of the set.
        split: which rows are held out.
        architecture: of the network.
        places: newest items that it reads; of a set without an order, so many by a hash.
        input_dropout: share that is hidden and asked for; ``masked`` only.
        users: made-up people, the public ones included; None where they are real.
        items: likewise.
        rounds: of the training, public and private.
        learning_rate: of it.
        features: width of the items' public features.
        hidden: width of the network.
    """

    name: str
    split: Literal["random", "last"]
    architecture: ArchitectureName
    places: int
    input_dropout: float | None = None
    users: int | None = None
    items: int | None = None
    rounds: int = 40
    learning_rate: float = 0.01
    features: int = 40
    hidden: int = 16


SETTINGS = {
    MARKETPLACE: Setting(
        name=MARKETPLACE, split="last", architecture="transformer", places=10, users=9_600, items=600
    ),
    MOVIELENS: Setting(
        name=MOVIELENS, split="random", architecture="masked", places=32, input_dropout=0.4
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One seed of one set: who is public, who is where, what is held out."""

    setting: Setting
    seed: int
    data: Path | None

    @cached_property
    def _everybody(self) -> tuple[Interactions, Interactions]:
        """Training and held-out rows."""
        if self.setting.users is not None and self.setting.items is not None:
            found = marketplace(self.seed, self.setting.users, self.setting.items)
        elif self.data is not None:
            found = load_public_set(self.data)
        else:
            raise FileNotFoundError("a set of real people has a folder")
        rows, _ = clean(found.rows, found.catalogue, max_interactions_per_user=len(found.catalogue))
        return hold_out(rows, self.setting.split, seed=self.seed)

    @cached_property
    def is_public(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Who of all."""
        people = np.arange(self._everybody[0].num_users)
        chosen = np.random.default_rng(self.seed).permutation(people) % PUBLIC_SHARE == 0
        return np.asarray(chosen)

    @cached_property
    def public(self) -> Interactions:
        """Training rows of public people, as a plan caps them."""
        return _capped(self._everybody[0].select(np.flatnonzero(self.is_public)))

    @cached_property
    def members(self) -> Interactions:
        """Training rows of all others, as their silos serve them."""
        return self._everybody[0].select(np.flatnonzero(~self.is_public))

    @cached_property
    def held_out(self) -> Interactions:
        """What the members are asked for."""
        return self._everybody[1].select(np.flatnonzero(~self.is_public))

    @cached_property
    def users(self) -> tuple[Any, ...]:
        """Members of each silo."""
        silo_of = partition_by_taste(self.members.matrix(), len(SILOS), self.seed)
        return tuple(np.flatnonzero(silo_of == silo) for silo in range(len(SILOS)))

    @cached_property
    def parts(self) -> tuple[Interactions, ...]:
        """Training rows of each silo, as a plan caps them."""
        return tuple(_capped(self.members.select(own)) for own in self.users)

    def plan(self, parts: Sequence[Interactions], epsilon: float) -> Plan:
        """What such silos would agree on."""
        catalogue, setting = parts[0].catalogue, self.setting
        return complete_plan(
            Draft(
                silos=SILOS, catalogue_sha256=catalogue.sha256, catalogue_items=len(catalogue),
                family="sequence", architecture=setting.architecture, hidden=setting.hidden,
                places=setting.places, features=setting.features, input_dropout=setting.input_dropout,
                rounds=setting.rounds, learning_rate=setting.learning_rate,
                target_epsilon=epsilon, target_delta=DELTA,
                max_silos_per_user=1, max_interactions_per_user=MAX_INTERACTIONS, colluding_silos=COLLUDING,
                max_users_per_silo=max(part.num_users for part in parts),
                expected_batch_size=float(sum(part.num_users for part in parts)),
            )
        )  # fmt: skip

    @cached_property
    def start(self) -> tuple[State, Scorer]:
        """Weights that public people are trained to, without noise, and the model they make."""
        people = (self.public,) * len(SILOS)  # a plan has several silos; the one that trains counts a share
        plan = self.plan(people, PUBLIC_EPSILON)
        [family], state = learn(Simulation(plan, people[:1], 1, 0.0, is_clamped=False))
        return family.checkpoint(state) or {}, family.finish(state)

    def federation(self, epsilon: float) -> Simulation:
        """The four silos, from the plan's seed."""
        return Simulation(self.plan(self.parts, epsilon), self.parts, 1, 1.0, is_clamped=True)

    def figures(self, model: Scorer) -> dict[str, float]:
        """All members ranked by one model."""
        return self._means([per_user_metrics(rank(model, self.members, self.held_out))])

    def figures_by_silo(self, models: Sequence[Scorer]) -> dict[str, float]:
        """Each silo's people ranked by its own model."""
        return self._means(
            [
                per_user_metrics(rank(model, self.members.select(own), self.held_out.select(own)))
                for model, own in zip(models, self.users, strict=True)
            ]
        )

    def _means(self, values: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {metric: float(np.concatenate([of[metric] for of in values]).mean()) for metric in METRICS}


def _capped(rows: Interactions) -> Interactions:
    """What a contribution may be made of: no more than ``MAX_INTERACTIONS`` of a person."""
    users = pl.Series("user_id", rows.user_ids, dtype=pl.String)
    items = pl.Series("item_id", rows.catalogue.item_ids, dtype=pl.String)
    named = rows.frame.select(
        users.gather(rows.frame["user_index"]).alias("user_id"),
        items.gather(rows.frame["item_index"]).alias("item_id"),
        pl.col("timestamp"),
    )
    capped, _ = clean(named, rows.catalogue, max_interactions_per_user=MAX_INTERACTIONS)
    return capped
