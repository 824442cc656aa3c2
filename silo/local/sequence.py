"""``transformer`` and its kin: a network over the ids of a history in its order, which says what comes next.

Items are trained vectors, used both to read a history and to score (Kang & McAuley, ICDM 2018), with a bias
for each item. What stands between is a trunk of :mod:`silo.models.sequence`, as in federated plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from policies.plans.models import ArchitectureName
from silo.local.errors import LocalPartsError
from silo.models.recommender import Floats
from silo.models.sequence.trunk import NO_ITEM, TrunkSize, newest_items, trunk_of
from silo.tensor_files import Tables

USERS_AT_ONCE: Final = 256
ITEM_SPREAD: Final = 0.02


class IdNetwork(nn.Module):
    """Vectors of ids, a trunk, and scores by the same vectors.

    Args:
        num_items: of the catalogue.
        architecture: of the trunk.
        size: of the trunk.
    """

    def __init__(self, num_items: int, architecture: ArchitectureName, size: TrunkSize) -> None:
        super().__init__()
        self.num_items = num_items
        self.hidden, self.padding = num_items, num_items + 1
        self.items = nn.Embedding(num_items + 2, size.width)
        nn.init.normal_(self.items.weight, std=ITEM_SPREAD)
        self.dropout = nn.Dropout(size.dropout)
        self.trunk = trunk_of(architecture)(size)
        self.bias = nn.Parameter(torch.zeros(num_items))

    def values(self) -> dict[str, Tensor]:
        """Copies of all trained values by name."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def set_values(self, values: Mapping[str, Tensor]) -> None:
        """The reverse of :meth:`values`.

        Raises:
            ValueError: other names or shapes.
        """
        parameters = dict(self.named_parameters())
        if {name: value.shape for name, value in values.items()} != {
            name: parameter.shape for name, parameter in parameters.items()
        }:
            raise ValueError("values of another network")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])

    @property
    def places(self) -> int:
        """Most items that are read of a history."""
        return self.trunk.size.places - (not self.trunk.is_causal)

    def forward(self, sequences: Tensor) -> Tensor:
        """(users, places) items, ``hidden`` or ``NO_ITEM``, to (users, places, width)."""
        is_item = sequences != NO_ITEM
        vectors = self.items(torch.where(is_item, sequences, self.padding)) * self.items.embedding_dim**0.5
        read: Tensor = self.trunk(self.dropout(vectors), is_item)
        return read

    def logits(self, vectors: Tensor) -> Tensor:
        """(…, width) to (…, items)."""
        return vectors @ self.items.weight[: self.num_items].T + self.bias

    def next_logits(self, sequences: Tensor) -> Tensor:
        """What comes after each history: (users, places) from the left to (users, items); none is empty."""
        return self.logits(self.next_vectors(sequences))

    def next_vectors(self, sequences: Tensor) -> Tensor:
        """The same as (users, width)."""
        lengths = (sequences != NO_ITEM).sum(dim=1)
        users = torch.arange(len(sequences))
        if self.trunk.is_causal:
            newest: Tensor = self(sequences)[users, lengths - 1]
            return newest
        asked = torch.cat([sequences, sequences.new_full((len(sequences), 1), NO_ITEM)], dim=1)
        asked[users, lengths] = self.hidden
        hidden: Tensor = self(asked)[users, lengths]
        return hidden


@dataclass(frozen=True, eq=False)
class SequenceModel:
    """A trained network as a scorer.

    Attributes:
        network: trained.
        architecture: of its trunk.
        popularity: (items,) what people without a history get.
        is_fallback: never.
    """

    network: IdNetwork
    architecture: ArchitectureName
    popularity: Floats
    is_fallback: bool = False

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return self.network.num_items

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score what comes next: users × items in order of time in, users × items float32 out."""
        found = np.tile(self.popularity, (histories.shape[0], 1))
        return self._filled(found, histories, self.network.next_logits)

    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        """What vectors of items are multiplied with: users × width float32, zero without a history."""
        found = np.zeros((histories.shape[0], self.network.items.embedding_dim), np.float32)
        return self._filled(found, histories, self.network.next_vectors)

    def _filled(self, found: Floats, histories: sp.csr_matrix, read: Callable[[Tensor], Tensor]) -> Floats:
        """``found``, with what is read of each history in its row."""
        known = np.flatnonzero(np.diff(histories.indptr))
        sequences = torch.from_numpy(newest_items(histories[known], self.network.places))
        self.network.eval()
        with torch.no_grad():
            for start in range(0, known.size, USERS_AT_ONCE):
                part = slice(start, start + USERS_AT_ONCE)
                found[known[part]] = read(sequences[part]).numpy()
        return found

    def tables(self) -> Tables:
        """Every trained value by its name."""
        return {name: values.numpy() for name, values in self.network.values().items()}

    def about(self) -> dict[str, Any]:
        """What is needed to build the network that the tables fill; JSON values."""
        return {"architecture": self.architecture, "size": asdict(self.network.trunk.size)}

    @classmethod
    def of_tables(cls, tables: Tables, about: Mapping[str, Any], popularity: Floats) -> SequenceModel:
        """The reverse of :meth:`tables` and :meth:`about`.

        Raises:
            LocalPartsError: the tables are not those of such a network.
        """
        try:
            architecture: ArchitectureName = about["architecture"]
            network = IdNetwork(len(popularity), architecture, TrunkSize(**about["size"]))
            network.set_values({name: torch.from_numpy(table) for name, table in tables.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise LocalPartsError(
                "the tables are not those of the network they name", remedy="run `archipel fit --local` again"
            ) from error
        return cls(network, architecture, popularity)
