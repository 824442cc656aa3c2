"""From a history and its targets to what a network reads and is asked for, place by place."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.models.sequence.network import HIDDEN
from silo.models.sequence.trunk import NO_ITEM

Items = NDArray[np.int64]
Flags = NDArray[np.bool_]


def what_is_asked(
    inputs: sp.csr_matrix, targets: sp.csr_matrix, places: int, is_causal: bool
) -> tuple[Items, Items]:
    """Tables of each user's newest places, from the left.

    A target that stands in the history is asked for where it stands, one that does not after the whole
    history. A causal network is asked at the place before, so never for the first item it reads. One that
    looks both ways is asked at places that it does not see: those hidden from it, or, where none of the
    newest is hidden, the last one, target or not.

    Args:
        inputs: users × items in order of time: 1 what is seen, 0 stored for what is hidden.
        targets: users × items, 1 what is asked for; at most one a user outside the history.
        places: most items that are read.
        is_causal: of the network.

    Returns:
        ``seen`` (items, ``HIDDEN`` or ``NO_ITEM``) and ``wanted`` (items or ``NO_ITEM``), (users, places).
    """
    items, is_seen, is_wanted, first = _histories(inputs, targets)
    # A causal network says at a place what comes after it, so it reads one item less than there are.
    table = _newest(first, places + is_causal)
    is_item = table >= 0
    read, wanted = np.where(is_item, items[table], NO_ITEM), is_item & is_wanted[table]
    is_hidden = is_item & ~is_seen[table]
    last = is_item.sum(axis=1) - 1
    some = np.flatnonzero(last >= 0)
    if is_causal:
        seen = np.where(is_hidden, HIDDEN, read)
        seen[some, last[some]] = NO_ITEM
        return seen[:, :-1], np.where(wanted, read, NO_ITEM)[:, 1:]
    alone = some[~is_hidden[some].any(axis=1)]  # no coin fell on these; they would pay and teach nothing
    is_hidden[alone, last[alone]], wanted[alone, last[alone]] = True, True
    return np.where(is_hidden, HIDDEN, read), np.where(wanted & is_hidden, read, NO_ITEM)


def _histories(inputs: sp.csr_matrix, targets: sp.csr_matrix) -> tuple[Items, Flags, Flags, Items]:
    """Items of everybody in order, whether each is seen and wanted, and where each user's begin and end."""
    if np.array_equal(inputs.indptr, targets.indptr) and np.array_equal(inputs.indices, targets.indices):
        parts = [(inputs.indices.astype(np.int64), inputs.data > 0, targets.data > 0)]
        first = inputs.indptr.astype(np.int64)
    else:
        parts = [_with_what_comes_after(inputs, targets, user) for user in range(inputs.shape[0])]
        first = np.cumsum([0, *(items.size for items, _, _ in parts)])
    items, is_seen, is_wanted = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not items.size:  # so that there is something to look up, which nobody has
        items, is_seen, is_wanted = np.array([NO_ITEM]), np.array([False]), np.array([False])
    return items, is_seen, is_wanted, first


def _with_what_comes_after(
    inputs: sp.csr_matrix, targets: sp.csr_matrix, user: int
) -> tuple[Items, Flags, Flags]:
    """One history and, behind it, the target that it does not hold."""
    own = slice(inputs.indptr[user], inputs.indptr[user + 1])
    asked = slice(targets.indptr[user], targets.indptr[user + 1])
    items, is_seen = inputs.indices[own], inputs.data[own] > 0
    wanted = targets.indices[asked][targets.data[asked] > 0]
    after = wanted[~np.isin(wanted, items)][:1]
    whole = np.concatenate([items, after]).astype(np.int64)
    return whole, np.append(is_seen, np.zeros(after.size, dtype=bool)), np.isin(whole, wanted)


def _newest(first: Items, places: int) -> Items:
    """Where the newest of each user's items stand, oldest of them at the left; -1 behind the last."""
    kept = np.minimum(np.diff(first), places)[:, None]
    place = np.arange(places)[None, :]
    return np.where(place < kept, first[1:, None] - kept + place, -1)
