"""Item files as sets ship them (movies.dat, u.item, csv, parquet, RecBole .item, jsonl) to a catalogue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from silo.data.catalogue import Catalogue, CatalogueError, CatalogueItem
from silo.data.ids import canonical_id
from silo.data.tables import MissingColumnError, TableFormat, UnreadableTableError, read_table

MOVIELENS_GENRES: Final = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *(
        "Fantasy",
        "Film-Noir",
        "Horror",
        "Musical",
        "Mystery",
        "Romance",
        "Sci-Fi",
        "Thriller",
        "War",
        "Western",
    ),
)
_U_ITEM_FIRST_GENRE: Final = 5
_ID_NAMES: Final = ("itemid", "movieid", "productid", "articleid", "sku", "asin", "item", "id")
_TITLE_NAMES: Final = ("title", "movietitle", "itemtitle", "productname", "name")
_TEXT_NAMES: Final = ("text", "description", "overview", "summary")
_ATTRIBUTE_NAMES: Final = (
    *("attributes", "genres", "genre", "categories", "category", "class", "tags", "brand", "type"),
)
_NO_ATTRIBUTE: Final = frozenset({"", "(no genres listed)"})

Record = Mapping[str, object]


def plain(name: str) -> str:
    """A column name without case, blanks and punctuation: ``userID``, ``user_id`` -> ``userid``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_item_file(path: Path) -> Catalogue:
    """Read a public item file; its name says the format.

    Args:
        path: ``movies.dat`` (``::``), ``u.item`` (pipes, 19 genre flags), ``.csv``, ``.tsv``, ``.parquet``,
            RecBole ``.item`` or ``.jsonl``.

    Raises:
        UnreadableTableError: missing or in no known format.
        MissingColumnError: no column of item ids.
        CatalogueError: an item is repeated or has no usable id.
    """
    if path.name in {"movies.dat", "u.item"}:
        records = list(_movies_dat(path) if path.name == "movies.dat" else _u_item(path))
    elif path.suffix == ".jsonl":
        records = list(_json_lines(path))
    else:
        formats: dict[str, TableFormat] = {
            ".csv": "csv",
            ".tsv": "csv",
            ".parquet": "parquet",
            ".item": "inter",
        }
        if path.suffix not in formats:
            raise UnreadableTableError(
                "not a known item file",
                where=str(path),
                remedy="Give movies.dat, u.item, .csv, .parquet, .item or .jsonl.",
            )
        blanks = path.suffix == ".item"
        records = [
            _standard(row, blanks) for row in read_table(path, formats[path.suffix]).iter_rows(named=True)
        ]
    return _catalogue(records, path)


def _catalogue(records: list[Record], path: Path) -> Catalogue:
    items = []
    for number, record in enumerate(records, 1):
        if "item_id" not in record:
            raise MissingColumnError(
                "no column of item ids", where=str(path), remedy="Name the column of item ids `item_id`."
            )
        try:
            item_id = canonical_id(str(record["item_id"]))
            items.append(CatalogueItem.model_validate({**record, "item_id": item_id}))
        except ValidationError as error:
            what = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise CatalogueError(
                f"item {number} cannot be used: {what}", where=str(path), remedy="Mend that item's id."
            ) from error
    try:
        return Catalogue.from_items(items)
    except CatalogueError as error:
        raise CatalogueError(error.message, where=str(path), remedy=error.remedy) from error


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UnreadableTableError("no such file", where=str(path), remedy="Check the path.") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line for line in text.split("\n") if line.strip()]


def _described(item_id: str, title: str, attributes: Iterable[str]) -> Record:
    labels = [label for label in attributes if label not in _NO_ATTRIBUTE]
    text = f"{title}. {', '.join(labels)}." if labels else title
    return {"item_id": item_id, "title": title, "text": text, "attributes": tuple(labels)}


def _movies_dat(path: Path) -> Iterable[Record]:
    for number, line in enumerate(_lines(path), 1):
        fields = line.strip("\r").split("::")
        if len(fields) != 3:
            raise UnreadableTableError(
                "not `id::title::genres`", where=f"{path}:{number}", remedy="Mend the line."
            )
        yield _described(fields[0], fields[1], fields[2].split("|"))


def _u_item(path: Path) -> Iterable[Record]:
    for number, line in enumerate(_lines(path), 1):
        fields = line.strip("\r").split("|")
        flags = fields[_U_ITEM_FIRST_GENRE:]
        if len(flags) != len(MOVIELENS_GENRES):
            raise UnreadableTableError(
                f"not 5 fields and {len(MOVIELENS_GENRES)} genre flags",
                where=f"{path}:{number}",
                remedy="Mend the line.",
            )
        genres = [genre for genre, flag in zip(MOVIELENS_GENRES, flags, strict=True) if flag == "1"]
        yield _described(fields[0], fields[1], genres)


def _json_lines(path: Path) -> Iterable[Record]:
    for number, line in enumerate(_lines(path), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UnreadableTableError(
                "not JSON", where=f"{path}:{number}", remedy="One object a line."
            ) from error
        if not isinstance(record, dict):
            raise UnreadableTableError("not an object", where=f"{path}:{number}", remedy="One object a line.")
        yield _standard(record, blanks=False)


def _standard(row: Mapping[str, object], blanks: bool) -> Record:
    """Find id, title, text and attributes among a row's own names; ``blanks`` separate RecBole labels."""
    named = {plain(name): value for name, value in row.items() if value is not None}
    labels: list[str] = []
    for name in _ATTRIBUTE_NAMES:
        labels += _labels(named.get(name), blanks)
    title = next((str(named[name]).strip() for name in _TITLE_NAMES if name in named), "")
    described = _described("", title, labels)
    text = next((str(named[name]).strip() for name in _TEXT_NAMES if name in named), described["text"])
    identity = next((named[name] for name in _ID_NAMES if name in named), None)
    record: dict[str, object] = {**described, "text": text}
    del record["item_id"]
    if identity is not None:
        record["item_id"] = str(identity).strip()
    return record


def _labels(value: object, blanks: bool) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        found = re.split(r"\s+" if blanks else r"\s*[|;]\s*", value.strip())
        return [label for label in found if label not in _NO_ATTRIBUTE]
    if isinstance(value, Iterable):
        return [str(label) for label in value if str(label) not in _NO_ATTRIBUTE]
    return [str(value)]
