"""The items' side of a model in one byte a value, for vector stores and servers: ``--format index``.

``scores = (user_vector @ values.T) * scales + bias``; users' vectors come from ``--format user-onnx``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.export.quantising import QuantisedTable
from silo.export.scorers import ExportableModel, ItemVectors, NotExportableError
from silo.models.recommender import Floats


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Quantised vectors of items and what is needed to score by them.

    Attributes:
        vectors: items × dimensions, in bytes.
        bias: (items,) float32.
        popularity: (items,) float32, what people without a history get.
    """

    vectors: QuantisedTable
    bias: Floats
    popularity: Floats

    @classmethod
    def of(cls, items: ItemVectors) -> ItemIndex:
        """Quantise a model's vectors, one scale for each item."""
        return cls(QuantisedTable.of(items.vectors), items.bias, items.popularity)

    def tables(self) -> dict[str, NDArray[Any]]:
        """What the file holds, by name."""
        return {
            "values": self.vectors.values,
            "scales": self.vectors.scales,
            "bias": self.bias,
            "popularity": self.popularity,
        }

    def scores(self, users: Floats) -> Floats:
        """Score all items: users × dimensions in, users × items float32 out."""
        found: Floats = (users @ self.vectors.values.T.astype(np.float32)) * self.vectors.scales + self.bias
        return found


@dataclass(frozen=True, eq=False)
class IndexedModel:
    """A model whose items are looked up in an index: what becomes of its lists.

    Attributes:
        model: makes users' vectors.
        index: of its items.
    """

    model: ExportableModel
    index: ItemIndex

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items for each history: users × items in, users × items float32 out."""
        scores = self.index.scores(self.model.user_vectors(histories))
        scores[np.diff(histories.indptr) == 0] = self.index.popularity
        return scores


def vectors_of(model: ExportableModel, where: str) -> ItemVectors:
    """The items' side of a model; ``where`` is for errors.

    Raises:
        NotExportableError: it has none.
    """
    found = model.item_vectors()
    if found is None:
        raise NotExportableError(
            "this model has no vectors of users and items: it ranks by popularity, or by a table of items × "
            "items",
            where=where,
            remedy="export it as onnx, which scores, or as safetensors",
        )
    return found
