"""Public data sets split as if two organisations knew the same people: for experiments and the demo.

Nobody's privacy hangs on it: one place owns all rows. Matrices are users × items of 0 and 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from privacy.errors import UsageError
from silo.vertical.joint.selection import LabelUsers, random_halves


def halved_columns(
    interactions: sp.csr_matrix, *, seed: int, min_users: int = 20
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Halve a catalogue at random: which items each half has, in random order.

    Args:
        interactions: users × items of 0 and 1.
        seed: of the halves.
        min_users: items that fewer users have are left out beforehand (public data).
    """
    kept = np.flatnonzero(np.asarray(interactions.sum(axis=0)).ravel() >= min_users)
    order = np.random.default_rng(seed).permutation(kept.size)
    first, second = np.array_split(kept[order], 2)
    return first, second


def most_frequent_columns(rows: sp.csr_matrix, num_items: int) -> tuple[npt.NDArray[np.int64], float]:
    """Which items most users have, ascending, and the share of the interactions that they hold.

    A label silo may choose them so: nothing of it leaves.
    """
    counts = np.asarray(rows.sum(axis=0)).ravel()
    chosen = np.sort(np.argsort(-counts, kind="stable")[:num_items])
    return chosen, float(counts[chosen].sum() / max(counts.sum(), 1.0))


def label_users(rows: sp.csr_matrix, label_items: int, seed: int) -> LabelUsers:
    """Give each user ``label_items`` training items, at most half of what they have, and hold out the rest.

    A user with one item keeps it and is not evaluated.
    """
    if label_items < 1:
        raise UsageError(f"label_items is {label_items}", where="label_items", remedy="choose 1 or more")
    rows = sp.csr_matrix(rows)
    rng = np.random.default_rng([seed, 7])
    is_training = np.zeros(rows.nnz, dtype=np.bool_)
    for first, last in zip(rows.indptr, rows.indptr[1:], strict=False):
        order = rng.permutation(np.arange(first, last))
        is_training[order[: min(label_items, max(1, (last - first) // 2))]] = True
    halves = random_halves(rows.shape[0], seed)
    return LabelUsers(_only(rows, is_training), _only(rows, ~is_training), halves)


def _only(rows: sp.csr_matrix, chosen: npt.NDArray[np.bool_]) -> sp.csr_matrix:
    kept = sp.csr_matrix((rows.data * chosen, rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)
    kept.eliminate_zeros()
    return kept
