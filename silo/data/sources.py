"""A silo's own tables, read as its signed policy declares them.

``strict`` is as in ``silo.data.tables``: errors about single rows are for the silo's own people, never for a
contribution.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Final

import polars as pl

from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue
from silo.data.cleaning import refuse_outside
from silo.data.tables import (
    EmptyTableError,
    MissingColumnError,
    UnreadableTableError,
    read_table,
    standard_rows,
)

_USER_ID: Final = "user_id"
_OPTIONAL: Final = {"timestamp": pl.Int64, "weight": pl.Float64, "rating": pl.Float64, "event": pl.String}


def read_dataset(
    dataset: Dataset, directory: Path, catalogue: Catalogue | None, *, strict: bool = True
) -> pl.DataFrame:
    """Read all rows of a dataset; nothing is dropped yet.

    Args:
        dataset: from the policy: files, column names.
        directory: the silo's directory; relative paths start there.
        catalogue: if ``strict``, items outside it are refused, with the file's name; ``None`` skips that.
        strict: refuse what is wrong with single rows. Otherwise they stay, marked, for ``clean`` to drop.

    Returns:
        ``user_id``, ``item_id`` (canonical text, null where there cannot be one), ``timestamp`` (Unix
        seconds, null where there is none, ``IMPOSSIBLE_TIME`` where there cannot be one), ``weight`` and
        ``rating`` (float64, null where there is none, NaN where there cannot be one) and ``event`` (text,
        null where there is none). Where the policy says what kinds of events count, that is a factor of
        ``weight``: zero for a kind that it does not name.

    Raises:
        UnreadableTableError: no file there, or not in the declared format.
        EmptyTableError: no row in any file; if ``strict``, a file without rows.
        MissingColumnError: a file without a column the policy names.
        BadValueError: a column of a type that cannot be right; if ``strict``, a value, with its line.
        OutsideCatalogueError: if ``strict``, a file names items the catalogue does not hold.
    """
    columns = {role: name for role, name in dataset.columns.model_dump().items() if name is not None}
    absent = [pl.lit(None, kind).alias(role) for role, kind in _OPTIONAL.items() if role not in columns]
    tables = []
    for path in source_files(dataset, directory):
        table = read_table(path, dataset.source.format, may_be_empty=not strict, strict=strict)
        first_line = 1 if dataset.source.format == "parquet" else 2
        rows = standard_rows(
            table, columns, where=str(path), first_line=first_line, strict=strict
        ).with_columns(absent)
        if strict and catalogue is not None:
            refuse_outside(rows["item_id"], catalogue, where=str(path))
        tables.append(rows.select("user_id", "item_id", *_OPTIONAL))
    everything = _weighed(pl.concat(tables), dataset)
    if everything.is_empty():
        raise EmptyTableError(
            "the dataset has no rows", where=dataset.source.path, remedy="Give files with rows."
        )
    return everything


def _weighed(rows: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    if dataset.events is None:
        return rows
    factor = pl.col("event").replace_strict(dataset.events, default=0.0, return_dtype=pl.Float64)
    return rows.with_columns(pl.col("weight").fill_null(1.0) * factor)


def read_exclusions(dataset: Dataset, directory: Path, *, strict: bool = True) -> frozenset[str]:
    """External ids of the people who said no (``exclude_users``); empty where the policy names no file.

    Args:
        dataset: from the policy.
        directory: the silo's directory.
        strict: refuse a value that cannot be an id. Otherwise it excludes nobody, which overlooks nobody:
            rows under such an id are dropped too.

    Returns:
        Canonical texts, as ``read_dataset`` writes ids.

    Raises:
        UnreadableTableError: the file is missing or no CSV, in either mode: nobody's no is overlooked.
        MissingColumnError: its header has neither ``user_id`` nor the dataset's own name of that column.
        EmptyTableError: it has not even a header (cut short?); a header without ids is fine.
        BadValueError: if ``strict``, an id is missing, NaN, negative or garbled.
    """
    if dataset.exclude_users is None:
        return frozenset()
    path = directory / dataset.exclude_users
    table = read_table(path, "csv", may_be_empty=True)
    column = next((name for name in (dataset.columns.user_id, _USER_ID) if name in table.columns), None)
    if column is None:
        raise MissingColumnError(
            f"no column '{dataset.columns.user_id}' of people who opted out",
            where=f"{path}:1",
            remedy=f"Make '{dataset.columns.user_id}' the first line, then one id a line.",
        )
    ids = standard_rows(table, {_USER_ID: column}, where=str(path), first_line=2, strict=strict)[_USER_ID]
    return frozenset(ids.drop_nulls().to_list())


def source_files(dataset: Dataset, directory: Path) -> list[Path]:
    """The files a dataset is read from, sorted.

    Raises:
        UnreadableTableError: nothing matches.
    """
    pattern = dataset.source.path
    absolute = pattern if Path(pattern).is_absolute() else f"{glob.escape(str(directory))}/{pattern}"
    found = sorted(Path(match) for match in glob.glob(absolute, recursive=True))
    if not found:
        raise UnreadableTableError(
            "no file matches", where=absolute, remedy="Check `source` in policy.yaml; paths start at --dir."
        )
    return found
