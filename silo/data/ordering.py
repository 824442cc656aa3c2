"""One keyed order of (user, item) pairs that is the same on every machine and for each user alone.

Caps and splits need "random" choices that depend on nobody else's rows: a pair's place is a hash of the key,
the user and the item, so adding or removing one person never moves another person's rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)


def pair_hashes(user_ids: pl.Series, item_ids: pl.Series, *, key: str) -> npt.NDArray[np.uint64]:
    """Hash each pair; equal pairs hash equally whatever stands beside them.

    Args:
        user_ids: external ids as text, one a row.
        item_ids: external ids as text, one a row.
        key: separates uses, for instance ``"split/7"``.

    Returns:
        uint64, one a row. BLAKE2b of each id, combined by the finaliser of SplitMix64 (Steele et al. 2014).
    """
    users = _id_hashes(user_ids, f"user/{key}")
    items = _id_hashes(item_ids, f"item/{key}")
    return _mix(users ^ _mix(items))


def _id_hashes(ids: pl.Series, key: str) -> npt.NDArray[np.uint64]:
    distinct = ids.unique().sort()
    digests = np.frombuffer(b"".join(_digests(distinct.to_list(), key)), dtype="<u8").astype(np.uint64)
    table = pl.DataFrame({"id": distinct, "hash": digests}, schema={"id": pl.String, "hash": pl.UInt64})
    joined = ids.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")
    return joined["hash"].to_numpy()


def _digests(ids: Iterable[str], key: str) -> Iterable[bytes]:
    keyed = hashlib.blake2b(key.encode(), digest_size=8)
    for text in ids:
        one = keyed.copy()
        one.update(b"\0" + text.encode())
        yield one.digest()


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = words + _ODD
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
