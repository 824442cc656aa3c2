"""Bytes of a table file to plain columns, and the checks every row passes before anything counts it.

What is wrong with the *file* (a missing column, no rows, an id that is NaN or negative) is an error that says
where. What is wrong with a *time* is kept as ``IMPOSSIBLE_TIME``: cleaning drops such rows one by one, which
costs no privacy; an abort would tell the other silos something about one person's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import polars as pl

from privacy.errors import DataError

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
}


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


def read_table(path: Path, kind: TableFormat, *, may_be_empty: bool = False) -> pl.DataFrame:
    """Read a whole table; text formats give text columns.

    Args:
        path: one file.
        kind: ``csv`` (comma, semicolon, tab or pipe; with a header), ``parquet`` or RecBole's ``inter``
            (tab-separated, header ``name:type``; types are dropped from the names).
        may_be_empty: accept a header without rows.

    Raises:
        UnreadableTableError: missing, a folder, or not in this format.
        EmptyTableError: no rows.
    """
    try:
        frame = pl.read_parquet(path, glob=False) if kind == "parquet" else _read_text(path, kind)
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
            remedy=f"Save it again as {kind}" + (" in UTF-8." if kind != "parquet" else "."),
        ) from error
    if frame.is_empty() and not may_be_empty:
        raise EmptyTableError("the table has no rows", where=str(path), remedy="Give a file with rows.")
    return frame


def _read_text(path: Path, kind: TableFormat) -> pl.DataFrame:
    header = path.read_bytes().split(b"\n", 1)[0].decode()
    if kind == "csv":
        separator = max(",;\t|", key=header.count)
        return pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    frame = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None, glob=False)
    untyped = [column for column in frame.columns if ":" not in column]
    if untyped:
        raise UnreadableTableError(
            f"header '{untyped[0]}' has no type",
            where=f"{path}:1",
            remedy="Write headers as RecBole does: user_id:token, item_id:token, timestamp:float.",
        )
    return frame.rename({column: column.split(":", 1)[0] for column in frame.columns})


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def standard_rows(
    frame: pl.DataFrame, columns: Mapping[str, str], *, where: str, first_line: int
) -> pl.DataFrame:
    """Bring a table's own columns into standard names and types.

    Args:
        frame: as ``read_table`` gives it.
        columns: role (``user_id``, ``item_id``, ``timestamp``, ``weight``, ``rating``) -> column.
        where: file name for errors.
        first_line: line number of the first row, for errors.

    Returns:
        One column for each role: ids as text, ``timestamp`` as Unix seconds (null where there is none,
        ``IMPOSSIBLE_TIME`` where there cannot be one), the rest float64.

    Raises:
        MissingColumnError: a named column is not there.
        BadValueError: an id is missing, NaN, fractional or negative, or a number is none.
    """
    for role, column in columns.items():
        if column not in frame.columns:
            found = ", ".join(frame.columns)
            raise MissingColumnError(
                f"no column '{column}' for {role}; the columns are {found}",
                where=where,
                remedy=f"Rename a column or name the right one for {role}.",
            )
    convert = {"id": _ids, "time": _times, "number": _numbers}
    return pl.DataFrame(
        [
            convert[_ROLE_TYPES[role]](frame[column], where, first_line).rename(role)
            for role, column in columns.items()
        ]
    )


def _refuse_first(bad: pl.Series, what: str, where: str, first_line: int, remedy: str) -> None:
    if bad.any():
        row = int(bad.arg_true()[0])
        raise BadValueError(
            f"{what} (row {row + 1} of the table; {bad.sum():,} such rows)",
            where=f"{where}:{row + first_line}",
            remedy=remedy,
        )


def _ids(values: pl.Series, where: str, first_line: int) -> pl.Series:
    name = values.name
    if values.dtype.is_float():
        broken = values.is_null() | ~values.is_finite().fill_null(False)
        _refuse_first(broken, f"'{name}' is missing or NaN", where, first_line, "Remove or repair such rows.")
        fractional = values != values.floor()
        _refuse_first(fractional, f"'{name}' is not a whole number", where, first_line, "Store ids as text.")
        values = values.cast(pl.Int64)
    if not (
        values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical) or values.dtype == pl.Null
    ):
        raise BadValueError(
            f"column '{name}' is {values.dtype}, not ids",
            where=where,
            remedy="Store ids as text or whole numbers.",
        )
    text = values.cast(pl.String).str.strip_chars()
    missing = text.is_null() | text.str.to_lowercase().is_in(["", "nan"]).fill_null(False)
    _refuse_first(missing, f"'{name}' is missing or NaN", where, first_line, "Remove or repair such rows.")
    negative = text.str.contains(r"^-\d+(\.\d+)?$")
    _refuse_first(
        negative, f"'{name}' is negative", where, first_line, "Ids are text or numbers from zero up."
    )
    return text


def _numbers(values: pl.Series, where: str, first_line: int) -> pl.Series:
    name = values.name
    if values.dtype == pl.String:
        stripped = values.str.strip_chars()
        values = stripped.set(stripped == "", None)
    numbers = values.cast(pl.Float64, strict=False)
    broken = (numbers.is_null() & values.is_not_null()) | numbers.is_nan().fill_null(False)
    _refuse_first(broken, f"'{name}' is not a number", where, first_line, "Remove or repair such rows.")
    return numbers


def _times(values: pl.Series, where: str, _first_line: int) -> pl.Series:
    if values.dtype == pl.String:
        seconds = _times_from_text(values)
    elif values.dtype in (pl.Date, pl.Datetime):
        seconds = values.dt.epoch("s").cast(pl.Float64)
    elif values.dtype.is_numeric() or values.dtype == pl.Null:
        seconds = values.cast(pl.Float64)
    else:
        raise BadValueError(
            f"column '{values.name}' is {values.dtype}, not times",
            where=where,
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
