"""What a feature silo knows of each person, as a row of bounded length: the columns depend on nobody.

A silo with a public list of its own items has a column for each of them. Without one, or with a longer list
than :data:`MAX_COLUMNS`, items are folded into so many columns, each at a place and with a sign that a public
hash of its id gives (count sketch: Charikar, Chen, Farach-Colton 2002). A vocabulary of the items that rows
happen to name would tell of whoever is the only one with some item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.sources import read_dataset
from silo.rows import who_said_no

MAX_COLUMNS = 2_048
"""The Gram of so many columns takes 32 MB and its eigenvectors seconds."""

FOLDED_COLUMNS = 1_024
_KEY = b"archipel/columns/v1"


def feature_interactions(directory: Path, plan: Plan, dataset: Dataset) -> Interactions:
    """Read a feature silo's rows by the rules of every contribution, over its own items.

    Args:
        directory: the silo's.
        plan: for its cap.
        dataset: from the policy; ``item_list`` says whether the silo has a public list.
    """
    rows = read_dataset(dataset, directory, None, strict=False)
    items = Catalogue.load(directory / dataset.item_list) if dataset.item_list else _index_of(rows["item_id"])
    interactions, _ = clean(
        rows,
        items,
        max_interactions_per_user=min(plan.max_interactions_per_user, dataset.max_interactions_per_user),
        max_users=plan.max_users_per_silo,
        exclude_users=who_said_no(directory, plan, dataset, rows),
        min_rating=dataset.min_rating,
        strict=False,
    )
    return interactions


def column_map(item_ids: Sequence[str], *, is_public_list: bool) -> sp.csr_matrix:
    """Items × columns: which columns an item counts in, and with which sign."""
    count = len(item_ids)
    if is_public_list and count <= MAX_COLUMNS:
        return sp.identity(count, format="csr")
    places, signs = zip(*(_place(item_id) for item_id in item_ids), strict=True)
    return sp.csr_matrix((signs, (np.arange(count), places)), shape=(count, FOLDED_COLUMNS))


def unit_rows(rows: sp.csr_matrix, columns: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """People × items to people × columns, each row of norm 1 or zero."""
    dense = np.asarray((rows @ columns).toarray(), dtype=np.float64)
    norms = np.sqrt(np.square(dense).sum(axis=1, keepdims=True))
    scaled: npt.NDArray[np.float64] = dense / np.where(norms > 0, norms, 1.0)
    return scaled


def _place(item_id: str) -> tuple[int, float]:
    """Independent of how many other items there are."""
    word = int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=8, key=_KEY).digest(), "little")
    return word % FOLDED_COLUMNS, 1.0 if word >> 63 else -1.0


def _index_of(item_ids: object) -> Catalogue:
    """A local numbering of what the rows name; nothing that leaves depends on it."""
    names = sorted(item_ids.drop_nulls().unique().to_list())  # type: ignore[attr-defined]
    return Catalogue(tuple(CatalogueItem.model_construct(item_id=name) for name in names))
