"""Public data sets as they ship, for experiments: the one place where somebody owns all rows and the split.

No agent uses this module. Since nobody's privacy hangs on it, what cleaning would drop quietly inside a silo
(an impossible time) is an error here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import refuse_outside
from silo.data.item_files import read_item_file
from silo.data.mapping import match_columns
from silo.data.tables import (
    IMPOSSIBLE_TIME,
    BadValueError,
    EmptyTableError,
    MissingColumnError,
    TableFormat,
    UnreadableTableError,
    read_table,
    standard_rows,
)

PublicFormat = Literal["movielens", "csv", "parquet", "inter"]

ROW_SCHEMA: Final = pl.Schema(
    {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
)
HEADERLESS_ROWS: Final = ("u.data", "ratings.dat")
_MOVIELENS_ROWS: Final = ("u.data", "ratings.parquet", "ratings.dat", "ratings.csv")
_ROW_NAMES: Final = ("interactions", "ratings", "events", "purchases", "transactions")
_ITEM_FILES: Final = (
    *("u.item", "movies.dat", "movies.csv", "movies.parquet", "items.csv", "items.parquet", "items.jsonl"),
    *("catalogue.csv", "catalogue.parquet", "catalogue.jsonl"),
)
_SUFFIXES: Final[dict[str, TableFormat]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".inter": "inter",
}


class UnknownSetError(DataError):
    """A path that holds no data set we can read."""

    code = "unknown_set"


@dataclass(frozen=True, eq=False)
class PublicSet:
    """A whole data set with its public item list.

    Attributes:
        name: what to call it in a table.
        rows: columns of ``ROW_SCHEMA``; each (user, item) once; times in Unix seconds or null.
        catalogue: all items that may be recommended, those nobody touched included.
        notes: what a reader of results must know, such as an assumed catalogue.
        friends: columns ``user_id``, ``friend_id`` where the set has a graph of its users.
    """

    name: str
    rows: pl.DataFrame
    catalogue: Catalogue
    notes: tuple[str, ...] = ()
    friends: pl.DataFrame | None = None


def load_public_set(
    path: Path,
    format: PublicFormat | None = None,
    *,
    min_rating: float | None = None,
) -> PublicSet:
    """Read a data set; every rating row is one interaction.

    Args:
        path: its folder, or the file of its interactions.
        format: ``movielens`` (100k, 1m and latest-small as they ship), ``csv``, ``parquet`` or ``inter``
            (RecBole); ``None`` tells by the names of the files.
        min_rating: keep only rows rated at least this.

    Raises:
        UnknownSetError: nothing there that we can read.
        MissingColumnError, EmptyTableError, UnreadableTableError, BadValueError: what is wrong, and where.
        OutsideCatalogueError: rows name items that the item file does not hold.
    """
    file = _find_rows(path, format)
    rows = _read_rows(file, format)
    impossible = (rows["timestamp"] == IMPOSSIBLE_TIME).fill_null(False)
    if impossible.any():
        first = int(impossible.arg_true()[0]) + 1
        raise BadValueError(
            f"{impossible.sum():,} times are negative, NaN or in no calendar (first in row {first})",
            where=str(file),
            remedy="Remove or repair these rows.",
        )
    rows, notes = _thresholded(rows, min_rating, file)
    once = rows.sort("timestamp", nulls_last=False, maintain_order=True).unique(
        ["user_id", "item_id"], keep="last", maintain_order=True
    )
    if once.height < rows.height:
        notes.append(f"{rows.height - once.height:,} repeated (user, item) pairs count once.")
    catalogue, catalogue_note = _catalogue_of(file, once)
    if catalogue_note:
        notes.append(catalogue_note)
    refuse_outside(once["item_id"], catalogue, where=str(file))
    name = path.name if path.is_dir() else path.stem
    return PublicSet(name, once.sort("user_id", "item_id"), catalogue, tuple(notes))


def _thresholded(rows: pl.DataFrame, min_rating: float | None, file: Path) -> tuple[pl.DataFrame, list[str]]:
    if min_rating is None:
        return rows, []
    if rows["rating"].null_count() == rows.height:
        raise MissingColumnError(
            "no ratings to compare with the threshold", where=str(file), remedy="Leave the threshold out."
        )
    kept = rows.filter(pl.col("rating") >= min_rating)
    if kept.is_empty():
        raise EmptyTableError(
            f"no row is rated {min_rating:g} or better", where=str(file), remedy="Lower the threshold."
        )
    return kept, [f"Only rows rated at least {min_rating:g} count ({rows.height - kept.height:,} left out)."]


def _find_rows(path: Path, kind: PublicFormat | None) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UnknownSetError("no such file or folder", where=str(path), remedy="Check the path.")
    if kind in (None, "movielens"):
        for name in _MOVIELENS_ROWS:
            if (path / name).is_file():
                return path / name
    wanted = {suffix for suffix, table in _SUFFIXES.items() if kind in (None, table)}
    found = sorted(
        file for file in path.iterdir() if file.suffix in wanted and file.name.lower() not in _ITEM_FILES
    )
    named = [file for file in found if file.stem.lower() in _ROW_NAMES]
    candidates = named or found
    if kind != "movielens" and len(candidates) == 1:
        return candidates[0]
    what = "several files could hold the interactions" if candidates else "no file of interactions"
    expected = "u.data, ratings.csv, ratings.dat, ratings.parquet, or one .csv, .parquet or .inter file"
    raise UnknownSetError(what, where=str(path), remedy=f"Give the file itself, or a folder with {expected}.")


def _read_rows(file: Path, kind: PublicFormat | None) -> pl.DataFrame:
    if file.name in HEADERLESS_ROWS:
        frame, first_line = read_headerless(file), 1
    else:
        table = kind if kind in ("csv", "parquet", "inter") else _SUFFIXES.get(file.suffix)
        if table is None:
            raise UnknownSetError(
                "the name does not tell the format", where=str(file), remedy="Say it with --format."
            )
        frame, first_line = read_table(file, table), 1 if table == "parquet" else 2
    columns = _match_columns(frame.columns, file)
    rows = standard_rows(frame, columns, where=str(file), first_line=first_line)
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in ROW_SCHEMA.items() if name not in columns]
    return rows.with_columns(absent).select(ROW_SCHEMA.names())


def read_headerless(file: Path) -> pl.DataFrame:
    """User, item, rating and time of MovieLens' ``u.data`` or ``ratings.dat``, as text.

    Raises:
        EmptyTableError, UnreadableTableError: no rows, or another table.
    """
    data = file.read_bytes().replace(b"::", b"\t")
    names = ["user_id", "item_id", "rating", "timestamp"]
    try:
        frame = pl.read_csv(data, separator="\t", has_header=False, infer_schema=False, quote_char=None)
    except pl.exceptions.NoDataError as error:
        raise EmptyTableError(
            "the file is empty", where=str(file), remedy="Give a file with rows."
        ) from error
    except pl.exceptions.PolarsError as error:
        raise UnreadableTableError("not a readable table", where=str(file), remedy="Get it anew.") from error
    if frame.width != len(names):
        raise UnreadableTableError(
            f"{frame.width} columns instead of user, item, rating, time",
            where=str(file),
            remedy="Get it anew.",
        )
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _match_columns(found: list[str], file: Path) -> dict[str, str]:
    columns = match_columns(found)
    if "rating" not in columns and "weight" in columns:
        columns["rating"] = columns["weight"]
    for role in ("user_id", "item_id"):
        if role not in columns:
            raise MissingColumnError(
                f"no column for {role}; the columns are {', '.join(found)}",
                where=str(file),
                remedy=f"Name the column `{role}`.",
            )
    return {role: columns[role] for role in ROW_SCHEMA.names() if role in columns}


def _catalogue_of(file: Path, rows: pl.DataFrame) -> tuple[Catalogue, str | None]:
    beside = [file.with_suffix(".item")] if file.suffix == ".inter" else []
    beside += [file.with_name(name) for name in _ITEM_FILES]
    for candidate in beside:
        if candidate != file and candidate.is_file():
            return read_item_file(candidate), None
    items = rows["item_id"].unique().sort().to_list()
    catalogue = Catalogue.from_items(CatalogueItem(item_id=item_id) for item_id in items)
    return catalogue, (
        f"This set ships no item file: its catalogue is assumed to be the {len(catalogue):,} items that "
        "occur. Real silos must agree on a public list instead."
    )
