"""What networks over ordered histories have in common, whatever stands before and behind them.

A trunk turns vectors of items into vectors of what comes next, place by place. Item vectors may be trained
ids (a silo's local model) or public features (a federated one); the trunks are the same.

Histories stand at the left, padding at the right, so a causal trunk never sees padding from where it counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Final, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.plans.models import ArchitectureName

NO_ITEM: Final = -1


@dataclass(frozen=True, kw_only=True)
class TrunkSize:
    """How large a trunk is.

    Attributes:
        width: of the vector at each place.
        layers: one upon the other.
        places: most items that it reads at once.
        dropout: probability of a value to be dropped while training; 0 where people's gradients are told
            apart, because a gradient has to be a function of its person alone.
    """

    width: int
    layers: int
    places: int
    dropout: float = 0.0


class Trunk(nn.Module, ABC):
    """From (users, places, width) to the same; what is said at a place is of the place after it.

    Attributes:
        is_causal: whether a place depends on itself and those before it alone. One that looks both ways is
            asked at places whose item is hidden from it, about that very place.
    """

    is_causal: ClassVar[bool] = True

    def __init__(self, size: TrunkSize) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def forward(self, vectors: Tensor, is_item: Tensor) -> Tensor:
        """Read histories.

        Args:
            vectors: (users, places, width), at most ``size.places`` places.
            is_item: (users, places) bool, false where a history is shorter; at the right only.
        """


# Named, not imported: a process that trains no recurrent network needs none of their library.
TRUNKS: Final[Mapping[ArchitectureName, tuple[str, str]]] = {
    "transformer": ("silo.models.sequence.transformer", "Transformer"),
    "masked": ("silo.models.sequence.masked", "Masked"),
    "gru": ("silo.models.sequence.gru", "Gru"),
    "lstm": ("silo.models.sequence.lstm", "Lstm"),
    "cnn": ("silo.models.sequence.cnn", "Cnn"),
}


def trunk_of(architecture: ArchitectureName) -> type[Trunk]:
    """The class of an architecture's trunk."""
    module, name = TRUNKS[architecture]
    return cast(type[Trunk], getattr(import_module(module), name))


def newest_items(histories: sp.csr_matrix, places: int) -> NDArray[np.int64]:
    """The newest items of each history, oldest of them first.

    Args:
        histories: users × items, in order of time (:meth:`silo.data.interactions.Interactions.histories`).
        places: most items of one user.

    Returns:
        (users, places) item indices from the left, then ``NO_ITEM``.
    """
    lengths = np.diff(histories.indptr)
    kept = np.minimum(lengths, places)
    found = np.full((len(lengths), places), NO_ITEM, dtype=np.int64)
    users = np.repeat(np.arange(len(lengths)), kept)
    at = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    found[users, at] = histories.indices[np.repeat(histories.indptr[1:] - kept, kept) + at]
    return found
