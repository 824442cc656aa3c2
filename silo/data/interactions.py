"""One organisation's interactions after cleaning: who touched what, as dense indices.

External ids stay at the edge: ``user_ids`` and ``catalogue`` translate, everything inside counts from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.ids import canonical_id
from silo.data.ordering import pair_hashes

SCHEMA: Final = pl.Schema({"user_index": pl.UInt32, "item_index": pl.UInt32, "timestamp": pl.Int64})
_WITH_WEIGHT: Final = pl.Schema([*SCHEMA.items(), ("weight", pl.Float32)])

UserIndices: TypeAlias = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Interactions:
    """Each (user, item) pair at most once.

    Args:
        user_ids: external ids; position = user index. Users without rows are allowed.
        frame: columns ``user_index``, ``item_index`` (dense), ``timestamp`` (Unix seconds or null) and
            ``weight`` (above 0; left out: 1 everywhere); put into the order user, item.
        catalogue: the public list ``item_index`` refers to.

    Raises:
        DataError: an index out of range, or a pair that occurs twice.
    """

    user_ids: tuple[str, ...]
    frame: pl.DataFrame
    catalogue: Catalogue

    def __post_init__(self) -> None:
        frame = self.frame
        if "weight" not in frame.columns:
            frame = frame.with_columns(pl.lit(1.0, pl.Float32).alias("weight"))
        try:
            frame = frame.select(_WITH_WEIGHT.names()).cast(_WITH_WEIGHT).sort("user_index", "item_index")
        except pl.exceptions.InvalidOperationError as error:
            raise DataError("an interaction points outside the user list or the catalogue") from error
        object.__setattr__(self, "frame", frame)
        if frame.is_empty():
            return
        users, items = frame["user_index"].to_numpy(), frame["item_index"].to_numpy()
        if int(users[-1]) >= len(self.user_ids) or int(items.max()) >= len(self.catalogue):
            raise DataError("an interaction points outside the user list or the catalogue")
        if np.any((users[1:] == users[:-1]) & (items[1:] == items[:-1])):
            raise DataError("a (user, item) pair occurs twice", remedy="Clean the rows first.")

    @property
    def num_users(self) -> int:
        """Number of users, those without rows included."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.catalogue)

    @property
    def num_interactions(self) -> int:
        """Number of (user, item) pairs."""
        return self.frame.height

    def matrix(self) -> sp.csr_matrix:
        """Users × catalogue items, 1.0 where there is an interaction; float64, sorted indices."""
        return self._of_values(np.ones(self.frame.height))

    def weights(self) -> sp.csr_matrix:
        """Users × catalogue items, the weight of each interaction; float64, sorted indices.

        For what stays in the silo: the norm of a contribution is bounded for zeros and ones only.
        """
        return self._of_values(self.frame["weight"].to_numpy().astype(np.float64))

    def _of_values(self, values: npt.NDArray[np.float64]) -> sp.csr_matrix:
        return sp.csr_matrix(
            (values, self._items.astype(np.int32), self._starts.astype(np.int64)),
            shape=(self.num_users, self.num_items),
        )

    def histories(self) -> sp.csr_matrix:
        """``matrix`` with each row's ``indices`` in order of time, from the oldest to the newest.

        Rows without a time are the oldest, equal times are ordered by a hash of user and item (see
        :meth:`disorder`). Sums and products are those of ``matrix``; what sorts indices forgets the order.
        """
        users = pl.Series("user_id", self.user_ids, dtype=pl.String).gather(self.frame["user_index"])
        items = pl.Series("item_id", self.catalogue.item_ids, dtype=pl.String).gather(self._items)
        order = pl.Series("order", pair_hashes(users, items, key="history"))
        ordered = self.frame.with_columns(order).sort("user_index", "timestamp", "order", nulls_last=False)
        matrix = self.matrix()
        matrix.indices = ordered["item_index"].to_numpy().astype(matrix.indices.dtype)
        matrix.has_sorted_indices = False
        return matrix

    def history(self, user_id: str) -> sp.csr_matrix:
        """One user's row of ``histories``, 1 × items, however the id is written; empty for a stranger."""
        index = self._user_index.get(canonical_id(user_id))
        return sp.csr_matrix((1, self.num_items)) if index is None else self.select([index]).histories()

    def disorder(self) -> tuple[int, int]:
        """How many rows have no time, and how many share theirs with another row of their user."""
        timed = self.frame.drop_nulls("timestamp")
        tied = timed.select("user_index", "timestamp").is_duplicated()
        return self.num_interactions - timed.height, int(tied.sum())

    def of(self, user_id: str) -> npt.NDArray[np.int64]:
        """Item indices of one user, ascending, however the id is written; empty for someone unknown here."""
        index = self._user_index.get(canonical_id(user_id))
        if index is None:
            return np.empty(0, dtype=np.int64)
        return self._items[self._starts[index] : self._starts[index + 1]].astype(np.int64)

    def select(self, user_indices: UserIndices) -> Interactions:
        """The interactions of some users, who are numbered anew in the order given.

        Raises:
            DataError: an index out of range or given twice.
        """
        chosen = np.asarray(user_indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.num_users):
            raise DataError("a selected user index is out of range")
        if np.unique(chosen).size != chosen.size:
            raise DataError("a user is selected twice")
        renumbered = np.full(self.num_users, -1, dtype=np.int64)
        renumbered[chosen] = np.arange(chosen.size)
        frame = self.frame.with_columns(
            pl.Series("user_index", renumbered[self.frame["user_index"].to_numpy()], dtype=pl.Int64)
        ).filter(pl.col("user_index") >= 0)
        return Interactions(tuple(self.user_ids[index] for index in chosen), frame, self.catalogue)

    def among(self, user_ids: Sequence[str]) -> Interactions:
        """The same rows under the indices of a longer list of people, which holds all of these."""
        place = {user_id: index for index, user_id in enumerate(user_ids)}
        index = pl.Series([place[user_id] for user_id in self.user_ids], dtype=pl.UInt32)
        frame = self.frame.with_columns(index.gather(self.frame["user_index"]).alias("user_index"))
        return Interactions(tuple(user_ids), frame, self.catalogue)

    def over(self, catalogue: Catalogue) -> Interactions:
        """The rows about items of another list, under its indices; the same people under theirs."""
        place = {item_id: index for index, item_id in enumerate(catalogue.item_ids)}
        moved = np.array([place.get(item_id, -1) for item_id in self.catalogue.item_ids], dtype=np.int64)
        frame = self.frame.with_columns(pl.Series("item_index", moved[self._items]))
        return Interactions(self.user_ids, frame.filter(pl.col("item_index") >= 0), catalogue)

    @cached_property
    def _user_index(self) -> dict[str, int]:
        return {user_id: index for index, user_id in enumerate(self.user_ids)}

    @cached_property
    def _items(self) -> npt.NDArray[np.uint32]:
        return self.frame["item_index"].to_numpy()

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        counts = np.bincount(self.frame["user_index"].to_numpy(), minlength=self.num_users)
        return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
