"""Networks over ordered histories as files: a job's and a silo's own.

Both are vectors of items in, a trunk, and a product with vectors of items; see :class:`Network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import nn
from typing_extensions import override

from silo.export.graph import FLOAT, INPUT, INT64, PADDING, Graph
from silo.export.scorers import ExportableModel, ItemVectors, NotExportableError
from silo.export.trunk_graph import linear, values_of, write_trunk
from silo.local.sequence import SequenceModel as LocalSequence
from silo.models.recommender import Floats
from silo.models.sequence.network import HIDDEN
from silo.models.sequence.recommender import SequenceRecommender
from silo.models.sequence.trunk import NO_ITEM, Trunk
from silo.tensor_files import Tables


@dataclass(frozen=True, eq=False)
class Network:
    """What networks with public item features and those with trained ids have in common.

    Attributes:
        trunk: in the middle.
        vectors: one row an item; of trained ids two rows more, for a hidden item and for padding.
        scale: what the trunk reads is so many times the vector.
        enter: from a vector to the trunk, or None: as it is.
        leave: back from it, or None.
        bias: (items,) float32, added to everybody's scores.
        popularity: (items,) float32, what people without a history get.
    """

    trunk: Trunk
    vectors: Floats
    scale: float
    enter: nn.Linear | None
    leave: nn.Linear | None
    bias: Floats
    popularity: Floats

    @property
    def has_rows_for_none(self) -> bool:
        """Whether a hidden item and padding have vectors of their own, after the items'."""
        return len(self.vectors) > len(self.bias)


@dataclass(frozen=True, eq=False)
class NetworkModel(ExportableModel):
    """A network, and the model that it is of.

    Attributes:
        model: as it is served.
        network: its parts.
        sizes: architecture and sizes, JSON values.
        named: every table by its name.
    """

    model: SequenceRecommender | LocalSequence
    network: Network
    sizes: Mapping[str, Any]
    named: Tables

    @classmethod
    def of(cls, model: SequenceRecommender | LocalSequence) -> NetworkModel:
        """Take a model apart."""
        if isinstance(model, SequenceRecommender):
            own = model.network
            parts = Network(
                own.trunk, model.features, 1.0, own.enter, own.leave, model.bias, model.popularity
            )
            return cls(model, parts, model.size.model_dump(mode="json"), model.tables())
        ids = model.network
        vectors = values_of(ids.items.weight)
        parts = Network(
            ids.trunk, vectors, sqrt(vectors.shape[1]), None, None, values_of(ids.bias), model.popularity
        )
        return cls(model, parts, model.about(), model.tables() | {"popularity": model.popularity})

    @property
    @override
    def popularity(self) -> Floats:
        return self.network.popularity

    @property
    @override
    def dimensions(self) -> int:
        return int(self.network.vectors.shape[1])

    @property
    @override
    def about(self) -> Mapping[str, Any]:
        return self.sizes

    @property
    @override
    def formula(self) -> str:
        return "network(history in order of time) @ vectors.T + bias"

    @override
    def scores(self, histories: sp.csr_matrix) -> Floats:
        return self.model.scores(histories)

    @override
    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        return self.model.user_vectors(histories)

    @override
    def tables(self) -> Tables:
        return dict(self.named)

    @override
    def of_items(self) -> dict[str, Floats]:
        return {"bias": self.network.bias, "vector": self.item_vectors().vectors}

    @override
    def item_vectors(self) -> ItemVectors:
        network = self.network
        return ItemVectors(network.vectors[: self.num_items], network.bias, network.popularity)

    @override
    def write_user(self, graph: Graph) -> str:
        """Read the newest places of each history; what the trunk says where it is asked."""
        network, places = self.network, self.network.trunk.size.places
        items, asked = _questions(graph, network.trunk)
        is_item = graph.add("Not", graph.add("Equal", items, graph.whole(NO_ITEM)))
        read = write_trunk(graph, network.trunk, self._entered(graph, items), is_item)
        at = graph.add("Equal", graph.constant("places", np.arange(places)), asked)
        factor = graph.add("Unsqueeze", graph.add("Cast", at, to=FLOAT), graph.axis(2))
        user = graph.add("ReduceSum", graph.add("Mul", read, factor), graph.axis(1), keepdims=0)
        return user if network.leave is None else linear(graph, "leave", network.leave, user)

    @override
    def write_scores(self, graph: Graph, user: str) -> str:
        network = self.network
        scores = graph.against(user, "vectors", network.vectors)
        if network.has_rows_for_none:
            scores = graph.add("Slice", scores, graph.axis(0), graph.axis(self.num_items), graph.axis(1))
        return graph.add("Add", scores, graph.constant("bias", network.bias))

    def _entered(self, graph: Graph, items: str) -> str:
        """What the trunk reads at each place: users × places × width."""
        network = self.network
        there = graph.add("GreaterOrEqual", items, graph.whole(0))
        if network.has_rows_for_none:
            is_hidden = graph.add("Equal", items, graph.whole(HIDDEN))
            hidden, padding = graph.whole(self.num_items), graph.whole(self.num_items + 1)
            none = graph.add("Where", is_hidden, hidden, padding)
            rows = graph.rows("vectors", network.vectors, graph.add("Where", there, items, none))
        else:
            safe = graph.add("Where", there, items, graph.whole(0))
            factor = graph.add("Unsqueeze", graph.add("Cast", there, to=FLOAT), graph.axis(2))
            rows = graph.add("Mul", graph.rows("vectors", network.vectors, safe), factor)
        if network.scale != 1.0:
            rows = graph.add("Mul", rows, graph.number(network.scale))
        return rows if network.enter is None else linear(graph, "enter", network.enter, rows)


def network_model(name: str, model: object) -> NetworkModel:
    """A served network as what it is made of; ``name`` is for errors.

    Raises:
        NotExportableError: no network of ours.
    """
    if isinstance(model, SequenceRecommender | LocalSequence):
        return NetworkModel.of(model)
    raise NotExportableError(f"{type(model).__name__} is no model that is exported", where=f"--model {name}")


def _questions(graph: Graph, trunk: Trunk) -> tuple[str, str]:
    """What is read, (users, places) items, ``HIDDEN`` or ``NO_ITEM``, and (users, 1) where it is asked.

    Causal networks are asked at the newest item, others at a hidden place after it.
    """
    places = trunk.size.places
    kept = places if trunk.is_causal else places - 1
    is_item = graph.add("GreaterOrEqual", INPUT, graph.whole(0))
    length = graph.add("ReduceSum", graph.add("Cast", is_item, to=INT64), graph.axis(1), keepdims=1)
    start = graph.add("Max", graph.add("Sub", length, graph.whole(kept)), graph.whole(0))
    at = graph.add("Add", start, graph.constant("kept_places", np.arange(kept)))
    padded = graph.add("Pad", INPUT, graph.axis(0, 0, 0, kept), graph.whole(PADDING))
    newest = graph.add("GatherElements", padded, at, axis=1)
    number = graph.add("Min", length, graph.whole(kept))
    if trunk.is_causal:
        return newest, graph.add("Max", graph.add("Sub", number, graph.whole(1)), graph.whole(0))
    with_room = graph.add("Pad", newest, graph.axis(0, 0, 0, 1), graph.whole(NO_ITEM))
    is_asked = graph.add("Equal", graph.constant("places", np.arange(places)), number)
    return graph.add("Where", is_asked, graph.whole(HIDDEN), with_room), number
