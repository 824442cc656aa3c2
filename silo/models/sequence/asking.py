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
    seen = np.full((inputs.shape[0], places), NO_ITEM, dtype=np.int64)
    wanted = np.full_like(seen, NO_ITEM)
    ask = _ask_for_next if is_causal else _ask_for_hidden
    for user in range(inputs.shape[0]):
        items, is_seen, is_wanted = _history(inputs, targets, user)
        read, asked = ask(items, is_seen, is_wanted, places)
        seen[user, : read.size], wanted[user, : asked.size] = read, asked
    return seen, wanted


def _history(inputs: sp.csr_matrix, targets: sp.csr_matrix, user: int) -> tuple[Items, Flags, Flags]:
    """Items in order with the target that comes after them, whether each is seen, whether it is wanted."""
    own = slice(inputs.indptr[user], inputs.indptr[user + 1])
    asked = slice(targets.indptr[user], targets.indptr[user + 1])
    items, is_seen = inputs.indices[own], inputs.data[own] > 0
    wanted = targets.indices[asked][targets.data[asked] > 0]
    after = wanted[~np.isin(wanted, items)][:1]
    whole = np.concatenate([items, after]).astype(np.int64)
    return whole, np.append(is_seen, np.zeros(after.size, dtype=bool)), np.isin(whole, wanted)


def _ask_for_next(items: Items, is_seen: Flags, is_wanted: Flags, places: int) -> tuple[Items, Items]:
    newest = slice(-places - 1, None)
    items, is_seen, is_wanted = items[newest], is_seen[newest], is_wanted[newest]
    return np.where(is_seen, items, HIDDEN)[:-1], np.where(is_wanted, items, NO_ITEM)[1:]


def _ask_for_hidden(items: Items, is_seen: Flags, is_wanted: Flags, places: int) -> tuple[Items, Items]:
    newest = slice(-places, None)
    items, is_seen, is_wanted = items[newest], is_seen[newest].copy(), is_wanted[newest].copy()
    if is_seen.all():  # no coin fell on these; a user without a target would pay and teach nothing
        is_seen[-1:], is_wanted[-1:] = False, True
    return np.where(is_seen, items, HIDDEN), np.where(is_wanted & ~is_seen, items, NO_ITEM)
