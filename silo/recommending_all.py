"""``archipel recommend --all``: everybody's list in one table, the same lists that ``--user`` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.evaluation import USERS_PER_BLOCK
from silo.local.cold_start import new_item
from silo.local.models import RankingModel
from silo.local.serving import BLEND, ServedModel, served_model
from silo.outputs import new_file, refuse_existing
from silo.rows import KnownRows, known_rows
from silo.serving import best_unseen

OUTPUT_FORMATS: Final = ("parquet", "csv")
SCHEMA: Final = pl.Schema(
    {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "rank": pl.UInt32, "is_new": pl.Boolean}
)


@dataclass(frozen=True)
class WrittenLists:
    """What was written.

    Attributes:
        path: the file.
        served: what the lists were made with.
        users: how many lists.
        rows: of all of them.
    """

    path: Path
    served: ServedModel
    users: int
    rows: int


def recommend_all(
    directory: Path, job: str | None, k: int, model: str | None, out: Path, *,
    notice: Callable[[int, int], None] = lambda _done, _all: None,
) -> WrittenLists:  # fmt: skip
    """Write the list of everybody with a history here who did not opt out.

    Args:
        directory: the silo's.
        job: as ``served_model``.
        k: length of each list.
        model: as ``served_model``.
        out: new file that ends in one of ``OUTPUT_FORMATS``: ``SCHEMA``, by user and rank.
        notice: called with users done and all users.

    Raises:
        UsageError: a name of another kind, or ``k`` below 1. OutputExistsError: the name is taken.
        NoModelError, LocalPartsError: the model is not there.
    """
    if out.suffix.removeprefix(".") not in OUTPUT_FORMATS:
        raise UsageError(
            f"lists are not written as '{out.suffix}'",
            where="--out",
            remedy=f"end it with .{' or .'.join(OUTPUT_FORMATS)}",
        )
    if k < 1:
        raise UsageError(f"a list of {k} items cannot be made", where="-k", remedy="ask for at least 1")
    refuse_existing(out)
    served = served_model(directory, job, model)
    rows = known_rows(directory, served.source.plan, served.source.dataset)
    blocks = []
    num_users = rows.seen.num_users
    for first in range(0, num_users, USERS_PER_BLOCK):
        notice(first, num_users)
        users = range(first, min(first + USERS_PER_BLOCK, num_users))
        blocks.append(_lists(served.model, served.catalogue, rows, users, k, reserve=served.name == BLEND))
    table = pl.concat(blocks) if blocks else pl.DataFrame(schema=SCHEMA)
    with new_file(out) as file:
        if out.suffix == ".csv":
            table.write_csv(file)
        else:
            table.write_parquet(file)
    return WrittenLists(out, served, num_users, table.height)


def _lists(
    model: RankingModel, catalogue: Catalogue, rows: KnownRows, users: range, k: int, *, reserve: bool
) -> pl.DataFrame:
    block, histories = rows.seen.select(users), rows.liked.select(users).histories()
    owners: list[str] = []
    items: list[str] = []
    values: list[float] = []
    ranks: list[int] = []
    news: list[bool] = []
    for row, user_id in enumerate(block.user_ids):
        # One history a call, as for one person: a product over many rounds otherwise and turns near-ties.
        scores = model.scores(histories[row : row + 1])[0]
        ranked = best_unseen(scores, block.of(user_id), k)
        new = new_item(catalogue, rows.seen, user_id, ranked, liked=rows.liked) if reserve else None
        if new is not None:
            ranked[-1] = new
        owners += [user_id] * len(ranked)
        items += [catalogue.item_ids[item] for item in ranked]
        values += scores[ranked].tolist()
        ranks += range(1, len(ranked) + 1)
        news += [item == new for item in ranked]
    return pl.DataFrame([owners, items, np.array(values, np.float64), ranks, news], schema=SCHEMA)
