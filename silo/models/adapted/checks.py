"""What goes wrong with adapters in silence: they stay as they were, do nothing, or are not in the model.

Libraries that wrap one another (hooks around adapters around an encoder) have left adapters untrained, or
written a model without them, and no figure said so. So it is looked at, each time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from privacy.errors import DataError
from silo.models.architecture import Weights
from silo.models.base import Integers
from silo.models.features import Matrix
from silo.models.shipped import ShippedModel

SHIPPED_TOLERANCE: Final = 1e-3
"""Of a mean loss: tables are float32, a network without its adapters is off by far more."""
_PEOPLE: Final = 3


class AdapterError(DataError):
    """Adapters that do not do what their weights say: a model that would not be the one that was trained."""

    code = "adapters"


def check_moved(before: Weights, after: Weights, sums: Integers) -> None:
    """A round that sums something for adapters moves them.

    Args:
        before: the adapters' weights.
        after: the same after the round.
        sums: the round's sum, the adapters' values first.

    Raises:
        AdapterError: none of them moved.
    """
    num_values = sum(values.size for values in before.values())
    is_moved = any(not np.array_equal(values, after[name]) for name, values in before.items())
    if sums[:num_values].any() and not is_moved:
        raise AdapterError("a round's sum left all adapters as they were")


def check_read(adapters: Weights, frozen: Matrix, read: Matrix) -> None:
    """Adapters that are not zero move what the encoder says of texts.

    Args:
        adapters: their weights.
        frozen: items × dimensions without them.
        read: the same with them.

    Raises:
        AdapterError: they move nothing.
    """
    is_zero = not any(values.any() for values in adapters.values())
    if not is_zero and np.array_equal(frozen, read):
        raise AdapterError("trained adapters leave every item where it was")


def made_up_histories(num_items: int, length: int) -> sp.csr_matrix:
    """Three people who have neighbouring items, nobody's rows: people × items, at most ``length`` each."""
    rows, columns = np.divmod(np.arange(_PEOPLE * min(length, num_items)), min(length, num_items))
    table = sp.csr_matrix(
        (np.ones(len(rows)), (rows, (5 * rows + columns) % num_items)), (_PEOPLE, num_items)
    )
    table.sort_indices()
    return table


def check_shipped(losses: NDArray[np.float64], model: ShippedModel, histories: sp.csr_matrix) -> None:
    """A model file scores as the network that was trained does.

    Args:
        losses: (people,) of the network in memory, asked for the histories themselves.
        model: the tables.
        histories: people × items, no longer than what a step reads.

    Raises:
        AdapterError: they differ.
    """
    scores = model.scores(histories).astype(np.float64)
    highest = scores.max(axis=1, keepdims=True)
    of_all = highest[:, 0] + np.log(np.exp(scores - highest).sum(axis=1))
    of_own = np.asarray(histories.multiply(scores).sum(axis=1)).ravel() / np.diff(histories.indptr)
    difference = float(np.abs(of_all - of_own - losses).max())
    if not difference <= SHIPPED_TOLERANCE * max(1.0, float(np.abs(losses).max())):
        raise AdapterError(f"the model's tables and the trained network differ by {difference:.3g} in a loss")
