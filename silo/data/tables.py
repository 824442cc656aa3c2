"""Bytes of a table file to plain columns, and the checks every row passes before anything counts it.

What is wrong with the *file* (missing, no table, no such column, no rows) is an error in every mode. What is
wrong with *one row* depends on who reads:

- ``strict=True``, for a person at the keyboard and for public sets: an error that says where.
- ``strict=False``, for contributions: an abort would tell the other silos something about one person, so the
  row is marked (a null id, a NaN number) and cleaning drops and counts it.

What is wrong with a *time* is kept as ``IMPOSSIBLE_TIME`` in both: cleaning drops such rows one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from privacy.errors import DataError
from silo.data.encodings import guess_encoding
from silo.data.ids import canonical_ids

TableFormat = Literal["csv", "parquet", "inter"]

IMPOSSIBLE_TIME: Final = -1
_DATE_PATTERNS: Final = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")
# milli-, micro-, nanoseconds, told by their size: as seconds, 1e11 is the year 5138
_SUBSECOND_UNITS: Final = ((1e11, 1e3), (1e14, 1e6), (1e17, 1e9))
LATEST_TIME: Final = 4_102_444_800  # 2100-01-01 UTC, a constant: "later than now" would depend on the clock
_ROLE_TYPES: Final = {
    "user_id": "id",
    "item_id": "id",
    "timestamp": "time",
    "weight": "number",
    "rating": "number",
    "event": "label",
}
_OVERFLOW: Final = "archipel:overflow"
_FIRST_INEXACT: Final = 2.0**53  # from here on, neighbouring whole numbers are one float


class MissingColumnError(DataError):
    """A table without a column that is needed."""

    code = "missing_column"


class EmptyTableError(DataError):
    """A table without rows."""

    code = "empty_table"


class UnreadableTableError(DataError):
    """A file that is missing or is not what its name says."""

    code = "unreadable_table"


class BadValueError(DataError):
    """A value that cannot be an id, a time or a number."""

    code = "bad_value"


def read_table(
    path: Path, kind: TableFormat, *, may_be_empty: bool = False, strict: bool = True
) -> pl.DataFrame:
    """Read a whole table; text formats give text columns.

    Args:
        path: one file.
        kind: ``csv`` (comma, semicolon, tab or pipe; with a header), ``parquet`` or RecBole's ``inter``
            (tab-separated, header ``name:type``; types are dropped from the names).
        may_be_empty: accept a header without rows.
        strict: refuse a text file in which a line has more fields than the header, or is not UTF-8. Otherwise
            such a line is one row of nulls, or its broken characters are U+FFFD. (An opened quote that is
            never closed is an error either way: nobody can say where the row ends.)

    Raises:
        UnreadableTableError: missing, a folder, or not in this format.
        EmptyTableError: no rows.
    """
    try:
        frame = pl.read_parquet(path, glob=False) if kind == "parquet" else _read_text(path, kind, strict)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UnreadableTableError(
            "no such file", where=str(path), remedy="Check the path; relative paths start at the directory."
        ) from error
    except pl.exceptions.NoDataError as error:
        raise EmptyTableError(
            "the file is empty", where=str(path), remedy="Give a file with rows."
        ) from error
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UnreadableTableError(
            f"not a readable {kind} file: {_first_line(error)}",
            where=str(path),
            remedy=_how_to_save(path, kind),
        ) from error
    if frame.is_empty() and not may_be_empty:
        raise EmptyTableError("the table has no rows", where=str(path), remedy="Give a file with rows.")
    return frame


def _read_text(path: Path, kind: TableFormat, strict: bool) -> pl.DataFrame:
    header, _, body = path.read_bytes().lstrip(b"\r\n").partition(b"\n")
    separator = max(",;\t|", key=header.decode().count) if kind == "csv" else "\t"
    # A column of our own behind the last one catches what a line has too many.
    header = header.rstrip(b"\r") + f"{separator}{_OVERFLOW}\n".encode() if header else b""
    wider = pl.read_csv(
        header + body,
        separator=separator,
        infer_schema=False,
        quote_char='"' if kind == "csv" else None,
        truncate_ragged_lines=True,
        encoding="utf8" if strict else "utf8-lossy",
    )
    overflow = wider[_OVERFLOW]
    if strict and overflow.null_count() < wider.height:
        row = int(overflow.is_not_null().arg_true()[0])
        raise UnreadableTableError(
            f"row {row + 1} has more fields than the header",
            where=f"{path}:{row + 2}",
            remedy=f"Put fields that hold {separator!r} in quotes." if kind == "csv" else "Mend that line.",
        )
    frame = wider.select(pl.when(overflow.is_null()).then(pl.exclude(_OVERFLOW)))
    return frame if kind == "csv" else _without_types(frame, path)


def _without_types(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    untyped = [column for column in frame.columns if ":" not in column]
    if untyped:
        raise UnreadableTableError(
            f"header '{untyped[0]}' has no type",
            where=f"{path}:1",
            remedy="Write headers as RecBole does: user_id:token, item_id:token, timestamp:float.",
        )
    return frame.rename({column: column.split(":", 1)[0] for column in frame.columns})


def _how_to_save(path: Path, kind: TableFormat) -> str:
    encoding = None if kind == "parquet" else guess_encoding(path.read_bytes())
    if encoding is not None:
        return f"It looks like {encoding}: iconv -f {encoding} -t UTF-8 '{path}' > converted.csv"
    return f"Save it again as {kind}" + (" in UTF-8." if kind != "parquet" else ".")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class _Reading:
    """Where values stand, and whether a bad one is an error or is marked."""

    where: str
    first_line: int
    strict: bool

    def marked(self, values: pl.Series, bad: pl.Series, what: str, remedy: str) -> pl.Series:
        """``values`` with null instead of the bad ones."""
        if self.strict and bad.any():
            row = int(bad.arg_true()[0])
            raise BadValueError(
                f"'{values.name}' {what} (row {row + 1} of the table; {bad.sum():,} such rows)",
                where=f"{self.where}:{row + self.first_line}",
                remedy=remedy,
            )
        return values.set(bad, None)


def standard_rows(
    frame: pl.DataFrame, columns: Mapping[str, str], *, where: str, first_line: int, strict: bool = True
) -> pl.DataFrame:
    """Bring a table's own columns into standard names and types.

    Args:
        frame: as ``read_table`` gives it.
        columns: role (``user_id``, ``item_id``, ``timestamp``, ``weight``, ``rating``, ``event``) -> column.
        where: file name for errors.
        first_line: line number of the first row, for errors.
        strict: whether an id or a number that cannot be one is an error or is marked.

    Returns:
        One column for each role: ids as their one text (``silo.data.ids``; null where there cannot be one),
        ``timestamp`` as Unix seconds (null where there is none, ``IMPOSSIBLE_TIME`` where there cannot be
        one), ``event`` as text without blanks around it (null where there is none), the rest float64 (null
        where there is none, NaN where there cannot be one).

    Raises:
        MissingColumnError: a named column is not there.
        BadValueError: a column is of a type that holds no ids or times. If ``strict`` also: an id is missing,
            NaN, fractional, negative or garbled, or a number is none or infinite.
    """
    for role, column in columns.items():
        if column not in frame.columns:
            found = ", ".join(frame.columns)
            raise MissingColumnError(
                f"no column '{column}' for {role}; the columns are {found}",
                where=where,
                remedy=f"Rename a column or name the right one for {role}.",
            )
    convert = {"id": _ids, "time": _times, "number": _numbers, "label": _labels}
    reading = _Reading(where, first_line, strict)
    return pl.DataFrame(
        [convert[_ROLE_TYPES[role]](frame[column], reading).rename(role) for role, column in columns.items()]
    )


def _ids(values: pl.Series, reading: _Reading) -> pl.Series:
    remove = "Remove or repair such rows."
    if values.dtype.is_float():
        unknown = values.is_null() | ~values.is_finite().fill_null(False)
        values = reading.marked(values, unknown, "is missing or NaN", remove)
        fractional = (values != values.floor()).fill_null(False)
        values = reading.marked(values, fractional, "is not a whole number", "Store ids as text.")
        inexact = (values.abs() >= _FIRST_INEXACT).fill_null(False)
        values = reading.marked(values, inexact, "is too large to be exact", "Store ids as text.")
        values = values.cast(pl.Int64)
    if not (
        values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical) or values.dtype == pl.Null
    ):
        raise BadValueError(
            f"column '{values.name}' is {values.dtype}, not ids",
            where=reading.where,
            remedy="Store ids as text or whole numbers.",
        )
    text = canonical_ids(values.cast(pl.String))
    missing = text.is_null() | text.str.to_lowercase().is_in(["", "nan"]).fill_null(False)
    text = reading.marked(text, missing, "is missing or NaN", remove)
    negative = text.str.contains(r"^-\d+(\.\d+)?$").fill_null(False)
    text = reading.marked(text, negative, "is negative", "Ids are text or numbers from zero up.")
    garbled = text.str.contains("\N{REPLACEMENT CHARACTER}", literal=True).fill_null(False)
    return reading.marked(text, garbled, "holds U+FFFD, so its text is lost", remove)


def _labels(values: pl.Series, _: _Reading) -> pl.Series:
    text = values.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _numbers(values: pl.Series, reading: _Reading) -> pl.Series:
    if values.dtype == pl.String:
        stripped = values.str.strip_chars()
        values = stripped.set(stripped == "", None)
    numbers = values.cast(pl.Float64, strict=False)
    broken = (numbers.is_null() & values.is_not_null()) | ~numbers.is_finite().fill_null(True)
    given = reading.marked(numbers, broken, "is not a number", "Remove or repair such rows.")
    return given.set(broken, float("nan"))


def _times(values: pl.Series, reading: _Reading) -> pl.Series:
    if values.dtype == pl.String:
        seconds = _times_from_text(values)
    elif values.dtype in (pl.Date, pl.Datetime):
        seconds = values.dt.epoch("s").cast(pl.Float64)
    elif values.dtype.is_numeric() or values.dtype == pl.Null:
        seconds = values.cast(pl.Float64)
    else:
        raise BadValueError(
            f"column '{values.name}' is {values.dtype}, not times",
            where=reading.where,
            remedy="Store Unix seconds or ISO dates.",
        )
    given = values.is_not_null()
    if values.dtype == pl.String:
        given &= values.str.strip_chars() != ""
    frame = pl.DataFrame({"seconds": seconds, "given": given})
    value = pl.col("seconds")
    for smallest, per_second in _SUBSECOND_UNITS:
        value = pl.when(pl.col("seconds") > smallest).then(pl.col("seconds") / per_second).otherwise(value)
    possible = value.is_finite() & (value >= 0) & (value < LATEST_TIME)
    return frame.select(
        pl.when(pl.col("given") & possible.fill_null(False))
        .then(value.floor())
        .when(pl.col("given"))
        .then(IMPOSSIBLE_TIME)
        .cast(pl.Int64)
        .alias("timestamp")
    )["timestamp"]


def _times_from_text(values: pl.Series) -> pl.Series:
    stripped = values.str.strip_chars()
    seconds = stripped.cast(pl.Float64, strict=False)
    if (seconds.is_null() & (stripped != "").fill_null(False)).any():
        dates = pl.coalesce(
            pl.col("text").str.to_datetime(pattern, strict=False) for pattern in _DATE_PATTERNS
        )
        parsed = pl.DataFrame({"text": stripped}).select(dates.dt.epoch("s").cast(pl.Float64).alias("s"))["s"]
        return seconds.fill_null(parsed)
    return seconds
