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
from typing import Any

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
class TableModel(ExportableModel):
    """The tables, and which of the formulas they belong to.

    Attributes:
        recommender: the tables.
        is_summed: the third formula: the user's vector is not divided by the length of the history.
    """

    recommender: Recommender
    is_summed: bool = False

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
        """Each dimension as long in ``left`` as in ``right``: one scale then fits all values of an item."""
        model = self.recommender
        if model.right is None or model.hidden is not None:
            return self
        lengths = [np.linalg.norm(table, axis=0) for table in (model.left, model.right)]
        is_used = (lengths[0] > 0) & (lengths[1] > 0)
        left, right = (np.where(is_used, length, 1.0) for length in lengths)
        factor = np.sqrt(left / right).astype(np.float32)
        return replace(self, recommender=replace(model, left=model.left / factor, right=model.right * factor))

    @override
    def scores(self, histories: sp.csr_matrix) -> Floats:
        scores = self.recommender.scores(histories)
        if self.is_summed:
            scores *= np.diff(histories.indptr).astype(np.float32)[:, None]
        return scores

    @override
    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        return self.recommender.user_vectors(histories)

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
        model = self.recommender
        if model.right is None or self.is_fallback:
            return None
        return ItemVectors(model.right, model.bias, model.popularity)

    @override
    def write_user(self, graph: Graph) -> str:
        model = self.recommender
        is_item = graph.add("GreaterOrEqual", INPUT, graph.whole(0))
        present = graph.add("Cast", is_item, to=FLOAT)
        rows = graph.rows("left", model.left, graph.add("Where", is_item, INPUT, graph.whole(0)))
        rows = graph.add("Mul", rows, graph.add("Unsqueeze", present, graph.axis(2)))
        user = graph.add("ReduceSum", rows, graph.axis(1), keepdims=0)
        length = graph.add("ReduceSum", present, graph.axis(1), keepdims=1)
        length = graph.add("Max", length, graph.number(1))
        if model.hidden is not None:
            scaled = graph.add("Div", user, graph.add("Sqrt", length))
            return graph.add("Tanh", graph.add("Add", scaled, graph.constant("hidden", model.hidden)))
        return user if self.is_summed else graph.add("Div", user, length)

    @override
    def write_scores(self, graph: Graph, user: str) -> str:
        model = self.recommender
        scores = user if model.right is None else graph.against(user, "right", model.right)
        return graph.add("Add", scores, graph.constant("bias", model.bias))


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
