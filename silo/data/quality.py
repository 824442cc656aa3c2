"""What stands in a table of interactions, counted: for the silo's own people, before any plan reads it.

Every figure is exact and private. Nothing here changes a row; what a job leaves out is decided by
``silo.data.cleaning``, which looks at one person at a time. Findings that concern many people at once (odd
items, suspiciously long histories) are shown and acted on by nobody but the reader: a filter across people
would make one person's rows depend on another's, and the noise of a plan does not cover that.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import polars as pl
from pydantic import BaseModel, ConfigDict

from silo.data.tables import IMPOSSIBLE_TIME

DAY_SECONDS: Final = 86_400
BURST_ROWS: Final = 50
"""So many rows of one user in one second were not made by hand."""
MANY_ROWS: Final = 1_000
TIMES_THE_MEDIAN: Final = 50
"""A history is called an outlier above both."""
MAX_SCALE: Final = 20
"""A column of at most so many different values reads like a scale of ratings."""


class Finding(BaseModel):
    """One thing that somebody should know of.

    Attributes:
        code: stable name.
        is_problem: a job leaves these rows out, and ``data check`` ends with exit code 6.
        count: of what the text says: rows, users or items.
        text: in words, with what to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    is_problem: bool
    count: int
    text: str


class Quality(BaseModel):
    """Size, ranges and findings of one table. Private to the silo.

    Attributes:
        rows: all.
        users: different ids.
        items: different ids.
        rows_per_user: smallest, median, 99th percentile and largest.
        first_time: earliest possible time, ISO 8601 UTC; None without times.
        last_time: latest possible time.
        values: of ``weight`` and ``rating``: smallest, mean and largest.
        events: rows of each kind of event.
        findings: problems first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    users: int
    items: int
    rows_per_user: tuple[int, int, int, int]
    first_time: str | None
    last_time: str | None
    values: dict[str, tuple[float, float, float]]
    events: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def has_problems(self) -> bool:
        """Whether a job would leave rows out for what is wrong with them."""
        return any(finding.is_problem for finding in self.findings)


def inspect_rows(rows: pl.DataFrame, *, now: datetime, cap: int | None = None) -> Quality:
    """Count what is in a table.

    Args:
        rows: as ``silo.data.tables.standard_rows`` gives them, not strict.
        now: later times are findings.
        cap: of one person's history; ``None`` if none is known yet.
    """
    lengths = rows.drop_nulls("user_id").group_by("user_id").len()["len"].sort()
    times = _possible_times(rows)
    findings = [
        *_id_findings(rows),
        *_time_findings(rows, now),
        *_pair_findings(rows),
        *(found for column in ("weight", "rating") for found in _value_findings(rows, column)),
        *_history_findings(lengths, cap),
    ]
    return Quality(
        rows=rows.height,
        users=len(lengths),
        items=rows["item_id"].drop_nulls().n_unique(),
        rows_per_user=_spread(lengths),
        first_time=None if times.is_empty() else _written(int(times.to_numpy().min())),
        last_time=None if times.is_empty() else _written(int(times.to_numpy().max())),
        values={name: _range(rows[name]) for name in ("weight", "rating") if _finite(rows, name).len()},
        events=dict(rows["event"].drop_nulls().value_counts(sort=True).head(20).iter_rows())
        if "event" in rows.columns
        else {},
        findings=tuple(sorted((it for it in findings if it.count), key=lambda it: not it.is_problem)),
    )


def _problem(code: str, count: int, text: str) -> Finding:
    return Finding(code=code, is_problem=True, count=count, text=text)


def _notice(code: str, count: int, text: str) -> Finding:
    return Finding(code=code, is_problem=False, count=count, text=text)


def _id_findings(rows: pl.DataFrame) -> list[Finding]:
    unusable = rows.filter(pl.col("user_id").is_null() | pl.col("item_id").is_null()).height
    found = [_problem("unusable_ids", unusable, "rows whose user or item is blank, negative or garbled")]
    for column, whose in (("user_id", "users"), ("item_id", "items")):
        ids = rows[column].drop_nulls().unique()
        alike = ids.str.to_lowercase().str.replace(r"^0+(.)", "${1}").value_counts()
        count = int(alike.filter(pl.col("count") > 1)["count"].sum())
        text = f"{whose} whose ids differ in upper and lower case or leading zeros only: are they the same?"
        found.append(_notice(f"similar_{column}s", count, text))
    return found


def _time_findings(rows: pl.DataFrame, now: datetime) -> list[Finding]:
    if "timestamp" not in rows.columns or rows["timestamp"].null_count() == rows.height:
        return [_notice("no_times", rows.height, "rows without a time: nobody's last row can be held out")]
    times = rows["timestamp"]
    impossible = int((times == IMPOSSIBLE_TIME).sum())
    possible = rows.filter(pl.col("timestamp") >= 0)
    at = possible["timestamp"]
    early, late = int((at < DAY_SECONDS).sum()), int((at > int(now.timestamp())).sum())
    moments = possible.drop_nulls("user_id").group_by("user_id", "timestamp").len()["len"]
    tied, bursts = int(moments.filter(moments > 1).sum()), int((moments >= BURST_ROWS).sum())
    are_days = len(at) > 0 and bool((at % DAY_SECONDS == 0).all())
    return [
        _notice(
            "impossible_times",
            impossible,
            "rows with an impossible time: left out",
        ),
        _notice("missing_times", times.null_count(), "rows without a time: they count as the oldest"),
        _notice("epoch_times", early, "rows of 1 January 1970: often a zero that means 'unknown'"),
        _notice("future_times", late, "rows later than now: clocks, or times in another unit"),
        _notice("tied_times", tied, "rows share user and time with another: a hash orders them"),
        _notice("whole_days", at.len() if are_days else 0, "rows are dated by the day only"),
        _notice("bursts", bursts, f"moments with {BURST_ROWS} rows or more of one user: a machine?"),
    ]


def _pair_findings(rows: pl.DataFrame) -> list[Finding]:
    named = rows.drop_nulls(["user_id", "item_id"])
    pairs = named.select("user_id", "item_id").unique().height
    whole = named.height - named.unique().height
    again = named.height - pairs - whole
    return [
        _notice("repeated_rows", whole, "rows repeat another in every column: an import that ran twice?"),
        _notice("repeated_pairs", again, "more rows of pairs that stand there already: one row counts"),
    ]


def _value_findings(rows: pl.DataFrame, column: str) -> list[Finding]:
    if column not in rows.columns:
        return []
    values = rows[column]
    finite = _finite(rows, column)
    low = int((finite <= 0).sum()) if column == "weight" else 0
    scale = finite.unique().sort()
    is_scale = column == "weight" and 1 < len(scale) <= MAX_SCALE and bool((scale * 2 % 1 == 0).all())
    few = f"{scale[0]:g} to {scale[-1]:g}" if is_scale else ""
    scale_text = (
        f"different weights, {few}: ratings? Name the column `rating`, and what is liked `min_rating`"
    )
    return [
        _problem(f"no_number_{column}", int(values.is_nan().sum()), f"rows whose {column} is no number"),
        _notice(f"missing_{column}", values.null_count(), f"rows without a {column}"),
        _notice("low_weights", low, "rows with a weight of zero or less: left out"),
        _notice("weights_like_ratings", len(scale) if is_scale else 0, scale_text),
    ]


def _history_findings(lengths: pl.Series, cap: int | None) -> list[Finding]:
    median = float(lengths.to_numpy()[len(lengths) // 2]) if len(lengths) else 0.0
    long = int((lengths > max(MANY_ROWS, TIMES_THE_MEDIAN * median)).sum())
    long_text = f"users with over {TIMES_THE_MEDIAN} times the median: machines belong into `exclude_users`"
    found = [
        _notice("single_rows", int((lengths == 1).sum()), "users with one row: none of theirs is held out"),
        _notice("long_histories", long, long_text),
    ]
    if cap is not None:
        over = lengths.filter(lengths > cap)
        lost = int(over.sum()) - cap * len(over)
        found.append(_notice("over_cap", len(over), f"users above the cap of {cap:,}: {lost:,} rows unused"))
    return found


def _possible_times(rows: pl.DataFrame) -> pl.Series:
    if "timestamp" not in rows.columns:
        return pl.Series("timestamp", [], dtype=pl.Int64)
    return rows["timestamp"].drop_nulls().filter(rows["timestamp"].drop_nulls() >= 0)


def _finite(rows: pl.DataFrame, column: str) -> pl.Series:
    if column not in rows.columns:
        return pl.Series(column, [], dtype=pl.Float64)
    values = rows[column].drop_nulls()
    return values.filter(values.is_finite())


def _range(values: pl.Series) -> tuple[float, float, float]:
    numbers = values.drop_nulls().drop_nans().to_numpy()
    return float(numbers.min()), float(numbers.mean()), float(numbers.max())


def _spread(lengths: pl.Series) -> tuple[int, int, int, int]:
    if lengths.is_empty():
        return 0, 0, 0, 0
    last = len(lengths) - 1
    smallest, median, high, largest = (int(lengths[round(last * share)]) for share in (0.0, 0.5, 0.99, 1.0))
    return smallest, median, high, largest


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
