"""What can be written for other programs: tables with one formula, or a network between tables.

With ``u`` the sum of ``left[item]`` over the ``n`` items of a history, tables score by one of::

    scores = bias + (u / n) @ right.T                   a job's model, local popularity and item graph
    scores = bias + tanh(hidden + u / √n) @ right.T     one with hidden units
    scores = u                                          local item neighbours, ``left`` being items × items

Networks are in :mod:`silo.export.networks`. Somebody without a history, and everybody where the model fell
back, gets ``popularity``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from typing_extensions import override

from privacy.errors import UsageError
from silo.export.graph import FLOAT, INPUT, Graph
from silo.local.fusion import Blend
from silo.local.models import MAX_GRAPH_ITEMS, ItemNeighbours, RankingModel
from silo.models.recommender import Floats, Recommender
from silo.tensor_files import Tables
from silo.tuning.postprocessing import TunedModel

MIN_SLOPE: Final = 1e-4
"""A hidden unit that every item saturates: its numbers are large, and hardly count."""


class NotExportableError(UsageError):
    """A model that no such file can hold: several in one, without vectors, or too large for the format."""

    code = "not_exportable"


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The items' side of a model: ``scores = user_vector @ vectors.T + bias``.

    Attributes:
        vectors: items × dimensions float32.
        bias: (items,) float32.
        popularity: (items,) float32, what people without a history get.
    """

    vectors: Floats
    bias: Floats
    popularity: Floats


class ExportableModel(ABC):
    """A model as what it is made of."""

    @property
    @abstractmethod
    def popularity(self) -> Floats:
        """(items,) float32, what people without a history get."""

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.popularity)

    @property
    def is_fallback(self) -> bool:
        """Whether everybody gets ``popularity``."""
        return False

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Width of its item vectors."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """How its tables make scores, in words."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What else is needed to read the tables, JSON values."""
        return {}

    def balanced(self) -> ExportableModel:
        """A model of the same scores whose vectors lose less when they are written in bytes."""
        return self

    @abstractmethod
    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items for each history: users × items in, users × items float32 out."""

    @abstractmethod
    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        """What the items' side is multiplied with, users × dimensions float32; of no history, anything."""

    @abstractmethod
    def tables(self) -> Tables:
        """Every table by its name."""

    @abstractmethod
    def of_items(self) -> dict[str, Floats]:
        """Columns of a table with one row an item: ``bias`` and vectors."""

    @abstractmethod
    def item_vectors(self) -> ItemVectors | None:
        """The items' side; None where there is none."""

    @abstractmethod
    def write_user(self, graph: Graph) -> str:
        """Write the nodes of a user's vector; returns the name of users × dimensions."""

    @abstractmethod
    def write_scores(self, graph: Graph, user: str) -> str:
        """Write the nodes from a user's vector to scores; returns the name of users × items."""


@dataclass(frozen=True, eq=False)
class Scales:
    """How much smaller or larger a model with hidden units is written: tanh lets no scale through.

    Attributes:
        left: (r,) float32; the table is divided by it, and its sums are multiplied with it.
        right: (r,) float32; the table is multiplied with it, and what hidden units say is divided by it.
    """

    left: Floats
    right: Floats


@dataclass(frozen=True, eq=False)
class TableModel(ExportableModel):
    """The tables, and which of the formulas they belong to.

    Attributes:
        recommender: the tables.
        is_summed: the third formula: the user's vector is not divided by the length of the history.
        scales: of one with hidden units that is balanced.
    """

    recommender: Recommender
    is_summed: bool = False
    scales: Scales | None = None

    @property
    @override
    def popularity(self) -> Floats:
        return self.recommender.popularity

    @property
    @override
    def is_fallback(self) -> bool:
        return self.recommender.is_fallback or self.dimensions == 0

    @property
    @override
    def dimensions(self) -> int:
        return int(self.recommender.left.shape[1])

    @property
    @override
    def formula(self) -> str:
        model = self.recommender
        if self.is_fallback:
            return "popularity"
        if self.is_summed:
            return "sum(left[history])"
        user = (
            "mean(left[history])" if model.hidden is None else "tanh(hidden + sum(left[history]) / sqrt(n))"
        )
        return user + (" @ right.T" if model.right is not None else "") + " + bias"

    @override
    def balanced(self) -> TableModel:
        """Each dimension as long in ``left`` as in ``right``: one scale then fits all values of an item.

        A hidden unit stands between the two. ``left`` counts by how much of it the unit lets through, and
        ``right`` by how much the unit says, both of histories of one item: the tables' own.
        """
        model = self.recommender
        if model.right is None or self.scales is not None:
            return self
        left, right = (_lengths(table) for table in (model.left, model.right))
        if model.hidden is None:
            factor = _balance(left, right)
            tables = replace(model, left=model.left / factor, right=model.right * factor)
            return replace(self, recommender=tables)
        said = np.tanh(model.hidden + model.left)
        passed = np.maximum(_lengths(1 - said**2), MIN_SLOPE)
        return replace(self, scales=Scales(_balance(left, passed * right), _balance(_lengths(said), right)))

    @override
    def scores(self, histories: sp.csr_matrix) -> Floats:
        scores = self.recommender.scores(histories)
        if self.is_summed:
            scores *= np.diff(histories.indptr).astype(np.float32)[:, None]
        return scores

    @override
    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        vectors = self.recommender.user_vectors(histories)
        return vectors if self.scales is None else vectors / self.scales.right

    @override
    def tables(self) -> Tables:
        model = self.recommender
        tables = {"left": model.left, "bias": model.bias, "popularity": model.popularity}
        tables |= {} if model.right is None else {"right": model.right}
        return tables | ({} if model.hidden is None else {"hidden": model.hidden})

    @override
    def of_items(self) -> dict[str, Floats]:
        model = self.recommender
        columns = {"bias": model.bias, "left": model.left}
        return columns if model.right is None else columns | {"right": model.right}

    @override
    def item_vectors(self) -> ItemVectors | None:
        model = self._written
        if model.right is None or self.is_fallback:
            return None
        return ItemVectors(model.right, model.bias, model.popularity)

    @property
    def _written(self) -> Recommender:
        """The tables at the scales at which they are written."""
        model, scales = self.recommender, self.scales
        if scales is None or model.right is None:
            return model
        return replace(model, left=model.left / scales.left, right=model.right * scales.right)

    @override
    def write_user(self, graph: Graph) -> str:
        model = self._written
        is_item = graph.add("GreaterOrEqual", INPUT, graph.whole(0))
        present = graph.add("Cast", is_item, to=FLOAT)
        rows = graph.rows("left", model.left, graph.add("Where", is_item, INPUT, graph.whole(0)))
        rows = graph.add("Mul", rows, graph.add("Unsqueeze", present, graph.axis(2)))
        user = graph.add("ReduceSum", rows, graph.axis(1), keepdims=0)
        length = graph.add("ReduceSum", present, graph.axis(1), keepdims=1)
        length = graph.add("Max", length, graph.number(1))
        if model.hidden is not None:
            return self._write_units(graph, graph.add("Div", user, graph.add("Sqrt", length)), model.hidden)
        return user if self.is_summed else graph.add("Div", user, length)

    def _write_units(self, graph: Graph, user: str, hidden: Floats) -> str:
        if self.scales is None:
            return graph.add("Tanh", graph.add("Add", user, graph.constant("hidden", hidden)))
        user = graph.add("Mul", user, graph.constant("hidden.left", self.scales.left))
        said = graph.add("Tanh", graph.add("Add", user, graph.constant("hidden", hidden)))
        return graph.add("Div", said, graph.constant("hidden.right", self.scales.right))

    @override
    def write_scores(self, graph: Graph, user: str) -> str:
        model = self._written
        scores = user if model.right is None else graph.against(user, "right", model.right)
        return graph.add("Add", scores, graph.constant("bias", model.bias))


def _lengths(table: Floats) -> Floats:
    """Of each column."""
    found: Floats = np.linalg.norm(table, axis=0)
    return found


def _balance(one: Floats, other: Floats) -> Floats:
    """What to divide one by and multiply the other with, so that they meet; 1 where one is nothing."""
    is_used = (one > 0) & (other > 0)
    factor = np.sqrt(np.where(is_used, one, 1.0) / np.where(is_used, other, 1.0))
    found: Floats = factor.astype(np.float32)
    return found


def exportable(name: str, model: RankingModel) -> ExportableModel:
    """A served model as what it is made of.

    Args:
        name: as ``recommend --model`` knows it, for errors.
        model: the model.

    Raises:
        NotExportableError: a blend, or neighbours among more than ``MAX_GRAPH_ITEMS`` items.
    """
    if isinstance(model, Recommender):
        return TableModel(model)
    if isinstance(model, ItemNeighbours):
        if model.num_items > MAX_GRAPH_ITEMS:
            raise NotExportableError(
                f"neighbours among {model.num_items:,} items make too large a table",
                where=f"--model {name}",
                remedy="export the job's model, or local:item-graph of a smaller catalogue",
            )
        zeros = np.zeros(model.num_items, np.float32)
        weights = np.asarray(model.weights.toarray(), dtype=np.float32)
        return TableModel(Recommender(weights, None, zeros, zeros), is_summed=True)
    if isinstance(model, Blend | TunedModel):
        raise NotExportableError(
            "this is no single model: a blend is several, and a tuned one adds to each person's scores",
            where=f"--model {name}",
            remedy="export its parts: --model federated, or --model local:NAME",
        )
    # Torch stays out of a process that only writes tables.
    from silo.export.networks import network_model

    return network_model(name, model)
