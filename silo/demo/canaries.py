"""Who is in a recorded demo: made-up canary people, and real people whom a coin keeps out.

Only the demo's world knows any of this. A silo of it sees rows like any others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from privacy.errors import DataError
from silo.audit.attack.recording import Coin
from silo.data.interactions import Interactions
from silo.demo.dataset import DemoData
from silo.demo.settings import DemoSettings

CANARY_ITEMS: Final = 8
"""Items of a canary: few, so that two hardly overlap and the grid rounds nothing away."""
MAX_PEOPLE: Final = 1024
_CANARY_TIME: Final = 1_700_000_000


@dataclass(frozen=True)
class Cast:
    """The data of a recorded demo, and what only the recording knows.

    Attributes:
        data: what the silos get: real people without those kept out, and the canaries that are in.
        original: what they would have without the recording.
        canaries: their coins.
        rows: all canaries' rows, in or out, with ``user_id`` and ``item_id``.
        people: coins of real people.
    """

    data: DemoData
    original: DemoData
    canaries: tuple[Coin, ...]
    rows: pl.DataFrame
    people: tuple[Coin, ...]

    def canary_rows(self, silo: str) -> pl.DataFrame:
        """Rows of one silo's canaries, in or out."""
        return self._of(self.rows, {coin.user_id for coin in self.canaries if coin.silo == silo})

    def real_rows(self, silo: str, number: int, *, took_part: bool) -> pl.DataFrame:
        """Rows of the real people of one silo that took part, or of those that a coin kept out."""
        kept_out = {coin.user_id for coin in self.people if coin.silo == silo and not coin.is_in}
        rows = self.original.rows_of(number)
        return rows.filter(pl.col("user_id").is_in(sorted(kept_out)) != took_part)

    @staticmethod
    def _of(rows: pl.DataFrame, users: set[str]) -> pl.DataFrame:
        return rows.filter(pl.col("user_id").is_in(sorted(users)))


def cast(data: DemoData, settings: DemoSettings, honest: tuple[str, ...], seed: int) -> Cast:
    """Toss a fair coin for each canary and for some real people, and make the data that follows.

    Args:
        data: the demo's.
        settings: how many canaries, which silos.
        honest: the silos with canaries: an adversary need not guess about its own people.
        seed: of everything here.
    """
    rng = np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, seed >> 64])
    names, num_canaries = settings.silo_names, settings.num_canaries
    coins = rng.random(num_canaries) < 0.5
    canaries = tuple(
        Coin(user_id=f"canary-{i:06d}", silo=honest[i % len(honest)], is_in=bool(coins[i]))
        for i in range(num_canaries)
    )
    rows = _canary_rows(canaries, data, rng)
    people = _people(data, names, rng)
    kept_out = {coin.user_id for coin in people if not coin.is_in}
    keep = np.array([user_id not in kept_out for user_id in data.train.user_ids])
    silo_of = {name: number for number, name in enumerate(names)}
    return Cast(
        _with_canaries(_only(data, np.flatnonzero(keep)), canaries, rows, silo_of),
        data,
        canaries,
        rows,
        people,
    )


def _people(data: DemoData, names: tuple[str, ...], rng: np.random.Generator) -> tuple[Coin, ...]:
    """Some real people with a history, half of whom a coin keeps out."""
    active = np.flatnonzero(np.diff(data.train.matrix().indptr) > 0)
    chosen = rng.permutation(active)[: min(MAX_PEOPLE, active.size // 4)]
    ids = data.train.user_ids
    return tuple(
        Coin(user_id=ids[user], silo=names[data.silo_of[user]], is_in=bool(rng.random() < 0.5))
        for user in chosen
    )


def _canary_rows(canaries: tuple[Coin, ...], data: DemoData, rng: np.random.Generator) -> pl.DataFrame:
    """Each canary likes a random few of the catalogue, so that two canaries share next to nothing."""
    items = np.array(data.catalogue.item_ids)
    length = min(CANARY_ITEMS, items.size // 3)
    if not length:
        raise DataError("a catalogue of fewer than three items has no room for canaries")
    histories = [np.sort(rng.choice(items.size, length, replace=False)) for _ in canaries]
    return pl.DataFrame(
        {
            "user_id": [coin.user_id for coin in canaries for _ in range(length)],
            "item_id": items[np.concatenate(histories)].tolist(),
            "timestamp": pl.Series([_CANARY_TIME] * (length * len(canaries)), dtype=pl.Int64),
        }
    )


def _only(data: DemoData, users: NDArray[np.int64]) -> DemoData:
    return replace(
        data,
        train=data.train.select(users),
        held_out=data.held_out.select(users),
        silo_of=data.silo_of[users],
    )


def _with_canaries(
    data: DemoData, canaries: tuple[Coin, ...], rows: pl.DataFrame, silo_of: dict[str, int]
) -> DemoData:
    present = [coin for coin in canaries if coin.is_in]
    index = {coin.user_id: data.train.num_users + place for place, coin in enumerate(present)}
    item = {item_id: place for place, item_id in enumerate(data.catalogue.item_ids)}
    mine = rows.filter(pl.col("user_id").is_in(sorted(index)))
    frame = pl.DataFrame(
        {
            "user_index": [index[user] for user in mine["user_id"]],
            "item_index": [item[name] for name in mine["item_id"]],
            "timestamp": mine["timestamp"],
            "weight": [1.0] * mine.height,
        },
        schema=data.train.frame.schema,
    )
    user_ids = (*data.train.user_ids, *index)
    return replace(
        data,
        train=Interactions(user_ids, pl.concat([data.train.frame, frame]), data.catalogue),
        held_out=Interactions(user_ids, data.held_out.frame, data.catalogue),
        silo_of=np.concatenate([data.silo_of, [silo_of[coin.silo] for coin in present]]).astype(np.int64),
    )
