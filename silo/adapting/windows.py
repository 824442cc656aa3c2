"""A silo's rows before and after its model was trained."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from privacy.errors import DataError
from privacy.ledger.chain import LogReader
from privacy.ledger.records import COMMITTED
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.sources import read_dataset
from silo.data.splits import NoTimesError
from silo.finished import Finished
from silo.rows import split_rows, who_said_no

DAY_SECONDS = 86_400


class TrainingTimeError(DataError):
    """When a model was trained cannot be told."""

    code = "training_time"


@dataclass(frozen=True, eq=False)
class Windows:
    """One silo's people, the same in every part, and what they did when.

    Attributes:
        since: Unix seconds; the model has seen nothing later.
        before: everybody's rows until then.
        recent: rows since then; no pair that stands in ``before``.
        targets: last recent row of each person who has one.
        train: rows until then as the model's training read them: capped, without the rows held out.
        held_out: last row until then of each person, where the plan held that row out; empty where it held
            out nothing.
        outside_rows: recent rows of items outside the catalogue.
        recent_rows: all recent rows, repeated ones and those outside among them.
    """

    since: int
    before: Interactions
    recent: Interactions
    targets: Interactions
    train: Interactions
    held_out: Interactions
    outside_rows: int
    recent_rows: int

    @property
    def followed(self) -> Interactions:
        """What is known of everybody when the target is asked for: rows until then, the recent rest."""
        targets = self.targets.frame.select("user_index", "item_index")
        rest = self.recent.frame.join(targets, on=["user_index", "item_index"], how="anti")
        return Interactions(self.before.user_ids, pl.concat([self.before.frame, rest]), self.before.catalogue)

    def stretch(self, start: int, end: int) -> NDArray[np.int64]:
        """Items of the rows with ``start <= timestamp < end``, before and recent ones."""
        rows = pl.concat([self.before.frame, self.recent.frame])
        chosen = rows.filter(pl.col("timestamp").is_between(start, end, closed="left"))
        return chosen["item_index"].to_numpy().astype(np.int64)

    @property
    def end(self) -> int:
        """One second after the last row."""
        last = self.recent.frame["timestamp"].max()
        return self.since + 1 if last is None else int(last) + 1  # type: ignore[arg-type]  # int64 column


def training_time(directory: Path, job: str) -> datetime:
    """When this silo's last contribution to a job was charged.

    Raises:
        TrainingTimeError: the ledger does not know the job, or there is none.
    """
    path, latest = directory / "ledger.db", None
    if path.exists():
        with LogReader.open(path) as reader:
            for entry in reader.entries():
                if entry.kind == COMMITTED and entry.payload["job"] == job:
                    latest = entry.at
    if latest is None:
        raise TrainingTimeError(
            f"the ledger has no contribution to job {job}",
            where=str(path),
            remedy="say since when rows are new to the model: --since 2026-05-01",
        )
    return datetime.fromisoformat(latest).astimezone(UTC)


def load_windows(directory: Path, finished: Finished, since: datetime) -> Windows:
    """Read a silo's rows and part them at ``since``; rows without a time count as earlier.

    Raises:
        NoTimesError: the policy names no column of times.
        DataError: what is wrong with the tables.
    """
    dataset, catalogue = finished.dataset, finished.catalogue
    if dataset.columns.timestamp is None:
        raise NoTimesError(
            "without times nobody can tell what is recent",
            where="columns.timestamp",
            remedy="Name the column of times in policy.yaml.",
        )
    raw = read_dataset(dataset, directory, catalogue, strict=False)
    said_no = who_said_no(directory, finished.plan, dataset, raw)
    moment = int(since.timestamp())
    is_recent = (pl.col("timestamp") >= moment).fill_null(False)
    late = raw.filter(is_recent & ~pl.col("user_id").is_in(list(said_no)).fill_null(True))
    earlier, later = raw.filter(~is_recent), raw.filter(is_recent)
    before, recent = (_uncapped(part, finished, said_no) for part in (earlier, later))
    everybody = tuple(sorted({*before.user_ids, *recent.user_ids}))
    before, recent = before.among(everybody), recent.among(everybody)
    new = recent.frame.join(before.frame, on=["user_index", "item_index"], how="anti")
    recent = Interactions(everybody, new, catalogue)
    train, held_out = _as_trained(earlier, everybody, finished, said_no)
    return Windows(
        since=moment,
        before=before,
        recent=recent,
        targets=last_rows(recent),
        train=train,
        held_out=held_out,
        outside_rows=late.filter(~pl.col("item_id").is_in(list(catalogue.item_ids)).fill_null(False)).height,
        recent_rows=late.height,
    )


def _uncapped(table: pl.DataFrame, finished: Finished, said_no: frozenset[str]) -> Interactions:
    """Whole histories of what counts as an interaction, as it did for the model."""
    interactions, _ = clean(
        table,
        finished.catalogue,
        max_interactions_per_user=len(finished.catalogue),
        exclude_users=said_no,
        min_rating=finished.dataset.min_rating,
        strict=False,
    )
    return interactions


def _as_trained(
    earlier: pl.DataFrame, everybody: tuple[str, ...], finished: Finished, said_no: frozenset[str]
) -> tuple[Interactions, Interactions]:
    """Training rows as they were read then, and each person's last row where it was held out."""
    plan = finished.plan
    rows = split_rows(earlier, finished.catalogue, plan, finished.dataset, said_no)
    train, held_out = rows.train.among(everybody), rows.held_out.among(everybody)
    if plan.holdout.kind == "last":
        return train, held_out
    both = pl.concat([train.frame, held_out.frame])
    last = last_rows(Interactions(everybody, both, finished.catalogue)).frame.select(
        "user_index", "item_index"
    )
    held_last = held_out.frame.join(last, on=["user_index", "item_index"], how="semi")
    return train, Interactions(everybody, held_last, finished.catalogue)


def last_rows(interactions: Interactions) -> Interactions:
    """Each person's latest row; of equal times the item that comes later in the catalogue."""
    ordered = interactions.frame.sort("user_index", "timestamp", "item_index", nulls_last=False)
    frame = ordered.group_by("user_index", maintain_order=True).last()
    return Interactions(interactions.user_ids, frame, interactions.catalogue)
