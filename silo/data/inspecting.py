"""``archipel data check`` of one file or dataset: read whatever can be read, then count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl

from policies.silo_policy import Dataset
from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.encodings import guess_encoding
from silo.data.item_files import read_item_file
from silo.data.mapping import columns_line, match_columns
from silo.data.public_sets import HEADERLESS_ROWS, read_headerless
from silo.data.quality import Finding, Quality, inspect_rows
from silo.data.sources import source_files
from silo.data.tables import MissingColumnError, TableFormat, UnreadableTableError, read_table, standard_rows
from silo.data.titles import inspect_titles

_FORMATS: Final[dict[str, TableFormat]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".inter": "inter",
}
_ITEM_NAMES: Final = ("movies.dat", "u.item")
_ITEM_SUFFIXES: Final = (".item", ".jsonl")
_KINDS_SHOWN: Final = 20


@dataclass(frozen=True)
class InspectedFile:
    """A file nobody has declared yet.

    Attributes:
        columns: role -> column, by the names of the columns.
        quality: what is in it.
        suggestion: lines for ``policy.yaml``.
    """

    columns: dict[str, str]
    quality: Quality
    suggestion: tuple[str, ...]


def inspect_dataset(dataset: Dataset, directory: Path, *, now: datetime) -> Quality:
    """Count what is in the files of a dataset of the policy.

    Raises:
        DataError: a file or a column is missing, or no table can be read.
    """
    named = {role: name for role, name in dataset.columns.model_dump().items() if name is not None}
    files = source_files(dataset, directory)
    rows, extra = _read_all(files, dataset.source.format, named)
    quality = inspect_rows(rows, now=now, cap=dataset.max_interactions_per_user)
    return _with(quality, extra + _event_findings(quality, dataset))


def inspect_file(path: Path, *, now: datetime) -> InspectedFile:
    """Count what is in one file of interactions, its columns told by their names.

    Raises:
        DataError: missing, in no known format, or without a column for users or items.
    """
    if path.name in HEADERLESS_ROWS:
        table, extra = read_headerless(path), list[Finding]()
        columns, rows = match_columns(table.columns), read_file(path)
    else:
        kind = format_of(path)
        table = read_table(path, kind, strict=False)
        columns = _matched(table, path)
        rows, extra = _read_all([path], kind, columns)
    quality = _with(inspect_rows(rows, now=now), extra)
    return InspectedFile(columns, quality, _suggestion(path, table.columns, columns, quality))


def read_file(path: Path) -> pl.DataFrame:
    """All rows of one file in standard columns, those told by their names; not strict.

    Raises:
        DataError: as :func:`inspect_file`.
    """
    is_headerless = path.name in HEADERLESS_ROWS
    table = read_headerless(path) if is_headerless else read_table(path, format_of(path), strict=False)
    return standard_rows(table, _matched(table, path), where=str(path), first_line=2, strict=False)


def inspect_items(path: Path) -> tuple[Catalogue, tuple[Finding, ...]]:
    """Read a public item file and look at its titles.

    Raises:
        DataError: no item file, or an item without a usable id or twice.
    """
    items = read_item_file(path)
    return items, inspect_titles(items)


def is_item_file(path: Path) -> bool:
    """Whether a file lists items: by its name, or by a table that has no column of users."""
    if path.name in _ITEM_NAMES or path.suffix in _ITEM_SUFFIXES:
        return True
    if path.name in HEADERLESS_ROWS or path.suffix not in _FORMATS:
        return False
    try:
        found = read_table(path, _FORMATS[path.suffix], strict=False).columns
    except DataError:
        return False
    return "user_id" not in match_columns(found)


def format_of(path: Path) -> TableFormat:
    """The format that a file's name says.

    Raises:
        UnreadableTableError: it says none.
    """
    try:
        return _FORMATS[path.suffix]
    except KeyError:
        raise UnreadableTableError(
            "the name does not tell the format",
            where=str(path),
            remedy=f"Give a file that ends in {', '.join(_FORMATS)}, or MovieLens' u.data or ratings.dat.",
        ) from None


def _read_all(
    files: Sequence[Path], kind: TableFormat, columns: Mapping[str, str]
) -> tuple[pl.DataFrame, list[Finding]]:
    tables, rewritten, garbled, encodings = [], 0, 0, set()
    for path in files:
        table = read_table(path, kind, may_be_empty=True, strict=False)
        rows = standard_rows(table, columns, where=str(path), first_line=2, strict=False)
        ids = rows.select("user_id", "item_id")
        raw = table.select(pl.col(columns[role]).cast(pl.String).alias(role) for role in ids.columns)
        rewritten += _differing(ids, raw)
        if kind != "parquet" and (encoding := guess_encoding(path.read_bytes())) is not None:
            encodings.add(f"iconv -f {encoding} -t UTF-8 {path.name} > new.csv")
            broken = pl.any_horizontal(pl.all().str.contains("\N{REPLACEMENT CHARACTER}").fill_null(False))
            garbled += table.filter(broken).height
        tables.append(rows)
    findings = [
        _found(
            "rewritten_ids", rewritten, "rows whose ids get another text (blanks, 7.0 for 7, Unicode forms)"
        ),
        _found("not_utf8", garbled, f"rows that are not UTF-8; probably {'; '.join(sorted(encodings))}"),
    ]
    return pl.concat(tables), [finding for finding in findings if finding.count]


def _found(code: str, count: int, text: str) -> Finding:
    return Finding(code=code, is_problem=code == "not_utf8", count=count, text=text)


def _differing(ids: pl.DataFrame, raw: pl.DataFrame) -> int:
    both = pl.concat([ids, raw.rename(lambda name: f"raw_{name}")], how="horizontal")
    changed = [(pl.col(name) != pl.col(f"raw_{name}")).fill_null(False) for name in ids.columns]
    return both.filter(pl.any_horizontal(changed)).height


def _event_findings(quality: Quality, dataset: Dataset) -> list[Finding]:
    if dataset.events is None:
        return []
    unknown = {kind: count for kind, count in quality.events.items() if kind not in dataset.events}
    if not unknown:
        return []
    text = f"rows of events that `events` does not name: {', '.join(unknown)}: left out"
    return [_found("uncounted_events", sum(unknown.values()), text)]


def _with(quality: Quality, more: Sequence[Finding]) -> Quality:
    findings = sorted((*quality.findings, *more), key=lambda finding: not finding.is_problem)
    return quality.model_copy(update={"findings": tuple(findings)})


def _matched(table: pl.DataFrame, path: Path) -> dict[str, str]:
    columns = match_columns(table.columns)
    for role in ("user_id", "item_id"):
        if role not in columns:
            raise MissingColumnError(
                f"no column's name says that it is {role}; the columns are {', '.join(table.columns)}",
                where=str(path),
                remedy=f"Name it in `columns` of policy.yaml, or call it {role}.",
            )
    return columns


def _suggestion(
    path: Path, found: Sequence[str], columns: dict[str, str], quality: Quality
) -> tuple[str, ...]:
    if path.name in HEADERLESS_ROWS:
        return (f"the file has no header: archipel data clean {path} --out rows.parquet",)
    lines = [f"source: {{{format_of(path)}: {path}}}", columns_line(columns)]
    if unmatched := [name for name in found if name not in columns.values()]:
        lines[-1] += f"    # without a role: {', '.join(unmatched)}"
    if "event" in columns:
        counts = ", ".join(f"{name}: 1" for name in list(quality.events)[:_KINDS_SHOWN])
        lines.append(f"events: {{{counts}}}    # what one of each counts")
    if "rating" in quality.values:
        lowest, _, highest = quality.values["rating"]
        lines.append(f"min_rating: {_liked_from(lowest, highest):g}    # rated lower is no interaction")
    return tuple(lines)


def _liked_from(lowest: float, highest: float) -> float:
    """Four of five stars, and the same share of another scale, on a half step."""
    return round(2 * (lowest + 0.75 * (highest - lowest))) / 2
