"""One seed's data: every shop has items of its own, and rows about these alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.data.public_sets import PublicSet, load_public_set
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.dataset import everybody, notes_on, split_of, with_ids
from silo.demo.settings import DemoSettings, DemoSplit

NUM_PEOPLE = 4_096
NUM_ITEMS = 1_000
LEAST_ITEMS = 20
"""Of a list: from fewer, a list of twenty is everything."""


@dataclass(frozen=True)
class Shop:
    """One institution.

    Attributes:
        name: of it.
        train: what it holds, over its own items.
        held_out: what nobody but the harness holds.
    """

    name: str
    train: Interactions
    held_out: Interactions

    @property
    def catalogue(self) -> Catalogue:
        """Its own items."""
        return self.train.catalogue

    def rows(self) -> pl.DataFrame:
        """Training rows with external ids: what goes into its directory."""
        return with_ids(self.train)


@dataclass(frozen=True)
class LanguageData:
    """All rows of all shops: what only the harness has.

    Attributes:
        name: of the set.
        members: the shops of the job, in the roster's order.
        newcomer: a shop that is not in the job.
        split: how rows were held out.
        notes: what a reader of the figures must know.
    """

    name: str
    members: tuple[Shop, ...]
    newcomer: Shop
    split: DemoSplit
    notes: tuple[str, ...]

    def shop(self, name: str) -> Shop:
        """A member or the newcomer."""
        return next(shop for shop in (*self.members, self.newcomer) if shop.name == name)


def load_set(settings: DemoSettings, seed: int) -> PublicSet:
    """The set the demo runs on: a given one, or a marketplace with fewer people than the usual."""
    if settings.data is None:
        return marketplace(seed, NUM_PEOPLE, NUM_ITEMS)
    return load_public_set(settings.data, settings.format, min_rating=settings.min_rating)


def prepare(settings: DemoSettings, source: PublicSet, seed: int) -> LanguageData:
    """Split people by taste, items by chance and rows by user, all by ``seed``.

    Raises:
        DataError: too few people or items, or a split the rows do not allow.
    """
    names = (*settings.silo_names, settings.newcomer_name)
    rows = everybody(source, len(names))
    if len(source.catalogue) < len(names) * LEAST_ITEMS:
        raise DataError(
            f"{len(source.catalogue)} items make no {len(names)} lists of {LEAST_ITEMS}, with the newcomer's",
            remedy="choose fewer --silos, or a larger set with --data",
        )
    split = split_of(settings, rows)
    silo_of = partition_by_taste(rows.matrix(), len(names), seed)
    lists = _lists(source.catalogue, len(names), seed)
    *members, newcomer = shops = tuple(_shops(names, rows, silo_of, lists, split, seed))
    if any(shop.held_out.num_interactions == 0 for shop in shops):
        raise DataError(
            "a shop has nobody with two of its items, so nothing of it can be measured",
            remedy="choose fewer --silos, or a set with longer histories with --data",
        )
    return LanguageData(source.name, tuple(members), newcomer, split, notes_on(settings, source, rows))


def _lists(catalogue: Catalogue, number: int, seed: int) -> list[Catalogue]:
    """Items dealt out like cards."""
    order = np.random.default_rng([seed, number]).permutation(len(catalogue))
    return [
        Catalogue.from_items(catalogue.items[index] for index in part)
        for part in np.array_split(order, number)
    ]


def _shops(
    names: tuple[str, ...],
    rows: Interactions,
    silo_of: NDArray[np.int64],
    lists: list[Catalogue],
    split: DemoSplit,
    seed: int,
) -> Iterator[Shop]:
    for number, (name, items) in enumerate(zip(names, lists, strict=True)):
        own = rows.select(np.flatnonzero(silo_of == number)).over(items)
        train, held_out = hold_out(
            own.select(np.unique(own.frame["user_index"].to_numpy())), split, seed=seed
        )
        yield Shop(name, train, held_out)
