"""Ciao as it ships: products that people rated, by category, and whom they trust.

J. Tang, H. Gao, H. Liu, A. Das Sarma: eTrust (KDD 2012). Two MATLAB files; no agent uses this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from privacy.errors import DataError

RATINGS_FILE: Final = "rating_with_timestamp.mat"
TRUST_FILE: Final = "trustnetwork.mat"
_USER, _ITEM, _CATEGORY, _TIME = 0, 1, 2, 5


class CiaoError(DataError):
    """Files that are not this set."""

    code = "ciao"


@dataclass(frozen=True, eq=False)
class Ciao:
    """The set.

    Attributes:
        ratings: columns ``user_id``, ``item_id`` (text), ``category`` (number) and ``timestamp``; a person
            may have rated an item in two categories.
        trust: columns ``user_id`` and ``item_id``, whom that person trusts; each pair once.
    """

    ratings: pl.DataFrame
    trust: pl.DataFrame


def is_ciao(path: Path) -> bool:
    """Whether a folder holds this set."""
    return (path / RATINGS_FILE).is_file()


def load_ciao(folder: Path) -> Ciao:
    """Read both files.

    Raises:
        CiaoError: one is missing, or is something else.
    """
    ratings = _matrix(folder / RATINGS_FILE, "rating")
    trust = _matrix(folder / TRUST_FILE, "trustnetwork")
    return Ciao(
        pl.DataFrame(
            {
                "user_id": pl.Series(ratings[:, _USER]).cast(pl.String),
                "item_id": pl.Series(ratings[:, _ITEM]).cast(pl.String),
                "category": ratings[:, _CATEGORY],
                "timestamp": ratings[:, _TIME],
            }
        ),
        pl.DataFrame({"user_id": trust[:, 0], "item_id": trust[:, 1]})
        .cast(pl.String)
        .unique(maintain_order=True),
    )


def alternate_categories(ratings: pl.DataFrame) -> pl.Series:
    """Flag the ratings of every second category, from the largest on."""
    sizes = ratings.group_by("category").len().sort("len", "category", descending=[True, False])
    chosen = sizes["category"].gather_every(2)
    return ratings["category"].is_in(chosen.implode())


def _matrix(path: Path, name: str) -> npt.NDArray[np.int64]:
    import scipy.io

    try:
        table: npt.NDArray[np.int64] = scipy.io.loadmat(path)[name].astype(np.int64)
        return table
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise CiaoError(
            f"no MATLAB file with the table {name}", where=str(path), remedy="give the folder of the set"
        ) from error
