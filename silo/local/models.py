"""Models of one silo's own rows, exact: nothing is noised, because nothing of them leaves the silo.

- ``popularity``: how many people have an item, by the weight of what they did with it.
- ``item-knn``: an item's nearest items by cosine (Deshpande & Karypis, TOIS 2004); a history votes.
- ``item-graph``: EASE (Steck, WWW 2019) of the exact Gram.
- a network over ordered histories, by the name of its architecture: :mod:`silo.local.sequence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.evaluation import Scorer
from silo.local.errors import LocalPartsError
from silo.models.item_graph import BLOCK_ITEMS, exact_ease
from silo.models.recommender import Floats, Recommender
from silo.tensor_files import Tables

if TYPE_CHECKING:
    from silo.local.sequence import SequenceModel
    from silo.local.sequence_training import Look, SequenceOptions

POPULARITY: Final = "popularity"
ITEM_KNN: Final = "item-knn"
ITEM_GRAPH: Final = "item-graph"
SEQUENCE: Final = "sequence"
"""Before the names of a network's tables in a file."""
NUM_NEIGHBOURS: Final = 200
MAX_GRAPH_ITEMS: Final = 10_000
"""An item graph holds and inverts items × items values; above this there is none."""


class RankingModel(Scorer, Protocol):
    """What a list can be made with."""

    @property
    def num_items(self) -> int:
        """Items of the catalogue that it ranks."""
        ...

    @property
    def is_fallback(self) -> bool:
        """Whether it found itself no better than popularity."""
        ...


@dataclass(frozen=True, eq=False)
class ItemNeighbours:
    """Scores an item by how near it is to those of a history.

    Attributes:
        weights: items × items float32; column j holds the similarity of j's nearest items to it.
        is_fallback: never.
    """

    weights: sp.csr_matrix
    is_fallback: bool = False

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return int(self.weights.shape[0])

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Sum the similarities: users × items in, users × items float32 out; zeros without a history."""
        return np.asarray((histories.astype(np.float32) @ self.weights).toarray(), dtype=np.float32)


def nearest_items(histories: sp.csr_matrix, num_neighbours: int = NUM_NEIGHBOURS) -> sp.csr_matrix:
    """The nearest items of each item by cosine, itself left out; ties go to the lower index.

    Args:
        histories: users × items, weights of interactions, 0 elsewhere.
        num_neighbours: most neighbours of one item.

    Returns:
        items × items float32 as :class:`ItemNeighbours` has it. Memory beyond it is that of a block of
        ``BLOCK_ITEMS`` items.
    """
    squares = np.asarray(histories.power(2).sum(axis=0), dtype=np.float64).ravel()
    lengths = np.sqrt(np.where(squares > 0, squares, 1.0))
    by_item = sp.csr_matrix(histories.T)
    neighbours: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    for first in range(0, squares.size, BLOCK_ITEMS):
        common = sp.csr_matrix(by_item[first : first + BLOCK_ITEMS] @ histories)
        common.sort_indices()
        for row, item in enumerate(range(first, first + common.shape[0])):
            inside = slice(common.indptr[row], common.indptr[row + 1])
            others, shared = common.indices[inside], common.data[inside]
            others, shared = others[others != item], shared[others != item]
            similarity = shared / (lengths[others] * lengths[item])
            best = np.argsort(-similarity, kind="stable")[:num_neighbours]
            neighbours.append(others[best].astype(np.int64))
            values.append(similarity[best].astype(np.float32))
    starts = np.concatenate(([0], np.cumsum([len(found) for found in neighbours])))
    by_target = sp.csr_matrix(
        (np.concatenate(values), np.concatenate(neighbours), starts), shape=(squares.size, squares.size)
    )
    weights = sp.csr_matrix(by_target.T)
    weights.sort_indices()
    return weights


@dataclass(frozen=True, eq=False)
class LocalModels:
    """The local models of one silo.

    Attributes:
        popularity: weights of each item's interactions added up, (items,) float32.
        neighbours: as :func:`nearest_items` gives them.
        graph: EASE weights, items × items float32; None where the catalogue is larger than
            ``MAX_GRAPH_ITEMS``.
        sequence: a network over ordered histories, where one was asked for.
    """

    popularity: Floats
    neighbours: sp.csr_matrix
    graph: Floats | None
    sequence: SequenceModel | None = None

    @classmethod
    def fit(
        cls,
        histories: sp.csr_matrix,
        options: SequenceOptions | None = None,
        notice: Callable[[Look], None] = lambda _: None,
        *,
        ordered: sp.csr_matrix | None = None,
    ) -> LocalModels:
        """Learn all models.

        Args:
            histories: users × items of weights, 0 where there is no interaction.
            options: of a network over ordered histories; None trains none.
            notice: called while a network is trained.
            ordered: the same interactions in order of time (``Interactions.histories``), for a network;
                None where ``histories`` itself is in order.

        Raises:
            LocalPartsError: a network for a catalogue or histories that it cannot be trained on.
        """
        graph = None
        if histories.shape[1] <= MAX_GRAPH_ITEMS and histories.nnz:
            graph = exact_ease(np.asarray((histories.T @ histories).toarray())).left
        counts = np.asarray(histories.sum(axis=0), dtype=np.float32).ravel()
        sequence = None
        if options is not None:
            from silo.local.sequence_training import fit_sequence

            in_order = histories if ordered is None else ordered
            sequence = fit_sequence(in_order, counts, options, notice)
        return cls(counts, nearest_items(histories), graph, sequence)

    def scorers(self) -> dict[str, RankingModel]:
        """Each model by its name."""
        models: dict[str, RankingModel] = {
            POPULARITY: Recommender.of_popularity(self.popularity, {"family": POPULARITY}, is_fallback=False),
            ITEM_KNN: ItemNeighbours(self.neighbours),
        }
        if self.graph is not None:
            zeros = np.zeros(len(self.popularity), np.float32)
            models[ITEM_GRAPH] = Recommender(self.graph, None, zeros, self.popularity)
        if self.sequence is not None:
            models[self.sequence.architecture] = self.sequence
        return models

    def tables(self) -> Tables:
        """What a file holds of them."""
        tables: Tables = {
            POPULARITY: self.popularity,
            f"{ITEM_KNN}.values": self.neighbours.data,
            f"{ITEM_KNN}.items": self.neighbours.indices.astype(np.int64),
            f"{ITEM_KNN}.starts": self.neighbours.indptr.astype(np.int64),
        }
        if self.graph is not None:
            tables[ITEM_GRAPH] = self.graph
        if self.sequence is not None:
            tables |= {f"{SEQUENCE}.{name}": table for name, table in self.sequence.tables().items()}
        return tables

    @classmethod
    def of_tables(
        cls, tables: Tables, num_items: int, network: Mapping[str, Any] | None = None
    ) -> LocalModels:
        """The reverse of :meth:`tables`.

        Args:
            tables: of the file.
            num_items: of the catalogue.
            network: what the file says of a network over ordered histories; None if it holds none.

        Raises:
            LocalPartsError: a table is missing, or the tables do not fit a catalogue of ``num_items``.
        """
        try:
            popularity, graph = tables[POPULARITY], tables.get(ITEM_GRAPH)
            neighbours = sp.csr_matrix(
                tuple(tables[f"{ITEM_KNN}.{name}"] for name in ("values", "items", "starts")),
                shape=(num_items, num_items),
            )
            neighbours.check_format(full_check=True)
        except (KeyError, ValueError) as error:
            raise _damaged() from error
        if popularity.shape != (num_items,) or (graph is not None and graph.shape != (num_items, num_items)):
            raise _damaged()
        if not all(np.isfinite(table).all() for table in tables.values()):
            raise _damaged()
        if network is None:
            return cls(popularity, neighbours, graph)
        from silo.local.sequence import SequenceModel

        own = {
            name.removeprefix(f"{SEQUENCE}."): table
            for name, table in tables.items()
            if name.startswith(f"{SEQUENCE}.")
        }
        return cls(popularity, neighbours, graph, SequenceModel.of_tables(own, network, popularity))


def _damaged() -> LocalPartsError:
    return LocalPartsError(
        "the tables do not fit each other or the catalogue", remedy="run `archipel fit --local` again"
    )
