"""One seed's data: who is where, what is trained on, what is held back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import PublicSet, load_public_set
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.settings import DemoSettings, DemoSplit

NO_ORDER = "No row has a time: histories are sets, which this model reads in an order by hash."


@dataclass(frozen=True)
class DemoData:
    """All rows of all silos: what only the harness has.

    Attributes:
        name: of the set.
        catalogue: public items.
        train: what the silos hold.
        held_out: what nobody but the harness holds.
        silo_of: silo number of each user.
        split: how rows were held out.
        notes: what a reader of the figures must know.
    """

    name: str
    catalogue: Catalogue
    train: Interactions
    held_out: Interactions
    silo_of: NDArray[np.int64]
    split: DemoSplit
    notes: tuple[str, ...]

    def users_of(self, silo: int) -> NDArray[np.int64]:
        """User indices of one silo."""
        return np.flatnonzero(self.silo_of == silo)

    def rows_of(self, silo: int) -> pl.DataFrame:
        """Training rows of one silo, with external ids: what goes into its directory."""
        return with_ids(self.train.select(self.users_of(silo)))


def with_ids(rows: Interactions) -> pl.DataFrame:
    """Rows with external ids, as an institution would keep them."""
    users = pl.Series("user_id", rows.user_ids, dtype=pl.String)
    items = pl.Series("item_id", rows.catalogue.item_ids, dtype=pl.String)
    return rows.frame.select(
        users.gather(rows.frame["user_index"]).alias("user_id"),
        items.gather(rows.frame["item_index"]).alias("item_id"),
        pl.col("timestamp"),
    )


def load_set(settings: DemoSettings, seed: int) -> PublicSet:
    """The set the demo runs on: a given one, or the built-in marketplace."""
    if settings.data is None:
        return marketplace(seed)
    return load_public_set(settings.data, settings.format, min_rating=settings.min_rating)


def prepare(settings: DemoSettings, source: PublicSet, seed: int) -> DemoData:
    """Split rows by user and users by taste, both by ``seed``.

    Raises:
        DataError: more silos than users, or a split the rows do not allow.
    """
    everything = everybody(source, settings.num_silos)
    split, notes = split_of(settings, everything), notes_on(settings, source, everything)
    train, held_out = hold_out(everything, split, seed=seed)
    silo_of = partition_by_taste(train.matrix(), settings.num_silos, seed)
    return DemoData(source.name, source.catalogue, train, held_out, silo_of, split, notes)


def everybody(source: PublicSet, num_parts: int) -> Interactions:
    """All rows, cleaned.

    Raises:
        DataError: fewer people than parts to put them into.
    """
    rows, _ = clean(source.rows, source.catalogue, max_interactions_per_user=len(source.catalogue))
    if rows.num_users < num_parts:
        raise DataError(f"{num_parts} silos for {rows.num_users} users", remedy="choose fewer --silos")
    return rows


def split_of(settings: DemoSettings, rows: Interactions) -> DemoSplit:
    """How rows are held out: as asked, or by what the model is for and the rows can tell."""
    if settings.split is not None:
        return settings.split
    return "last" if (settings.is_sequence or settings.is_language) and _has_times(rows) else "random"


def notes_on(settings: DemoSettings, source: PublicSet, rows: Interactions) -> tuple[str, ...]:
    """What a reader of the figures must know."""
    return (*source.notes, *([NO_ORDER] if settings.reads_order and not _has_times(rows) else []))


def _has_times(rows: Interactions) -> bool:
    return rows.frame["timestamp"].null_count() < rows.num_interactions
