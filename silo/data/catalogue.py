"""The public item list a plan names by its SHA-256, and its one file format.

``catalogues/<sha256>.jsonl`` holds one RFC 8785 object a line, ``{attributes, item_id, text, title}``, sorted
by ``item_id``; line number = item index. There is exactly one byte string for a given list, so parties who
hold the same list hold the same digest. The bytes may come from a peer: they are parsed strictly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from privacy.errors import DataError, TrustError
from silo.data.ids import canonical_id

MAX_CATALOGUE_BYTES: Final = 512 * 1024 * 1024
MAX_ITEM_ID_CHARS: Final = 256


class CatalogueError(DataError):
    """An item list that cannot be used as it is."""

    code = "catalogue"


class CatalogueMismatchError(TrustError):
    """A catalogue file whose bytes are not those the plan names."""

    code = "catalogue_mismatch"


class CatalogueItem(BaseModel):
    """One public item.

    Attributes:
        item_id: external id, as it stands in the organisations' own tables, in its one text.
        title: what a person calls it.
        text: a short description in words.
        attributes: public labels such as genres; kept sorted and unique.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    item_id: str = Field(min_length=1, max_length=MAX_ITEM_ID_CHARS)
    title: str = ""
    text: str = ""
    attributes: tuple[str, ...] = Field(default=(), strict=False)

    @field_validator("item_id")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if value != value.strip() or any(ord(character) < 32 for character in value):
            raise ValueError("item_id has surrounding blanks or control characters")
        if value != canonical_id(value):
            raise ValueError(f"item_id is not written as '{canonical_id(value)}'")
        return value

    @field_validator("attributes")
    @classmethod
    def _sorted_and_unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({attribute for attribute in value if attribute}))

    def line(self) -> bytes:
        """The item's canonical line, newline included."""
        return rfc8785.dumps(self.model_dump(mode="json")) + b"\n"


@dataclass(frozen=True, eq=False)
class Catalogue:
    """An immutable public item list, sorted by ``item_id``.

    Args:
        items: items in ascending, strictly increasing ``item_id`` (``from_items`` sorts).

    Raises:
        CatalogueError: it is empty, or an item stands twice or out of order.
    """

    items: tuple[CatalogueItem, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise CatalogueError("the catalogue has no items", remedy="Give an item file with items in it.")
        for before, after in zip(self.items, self.items[1:], strict=False):
            if before.item_id >= after.item_id:
                what = "stands twice" if before.item_id == after.item_id else "is out of order"
                raise CatalogueError(
                    f"item '{after.item_id}' {what} in the catalogue",
                    remedy="List every item once; `archipel data catalogue FILE` sorts them.",
                )

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @classmethod
    def from_items(cls, items: Iterable[CatalogueItem]) -> Catalogue:
        """Sort ``items`` into a catalogue. Raises CatalogueError on a repeated ``item_id``."""
        return cls(tuple(sorted(items, key=lambda item: item.item_id)))

    @classmethod
    def parse(cls, data: bytes, *, where: str = "catalogue") -> Catalogue:
        """Read the bytes of a catalogue file.

        Args:
            data: the whole file.
            where: what to call it in an error.

        Raises:
            CatalogueError: a line is not the canonical form of one item, or the order is wrong.
        """
        if len(data) > MAX_CATALOGUE_BYTES:
            raise CatalogueError(f"larger than {MAX_CATALOGUE_BYTES:,} bytes", where=where)
        if data and not data.endswith(b"\n"):
            raise CatalogueError("the last line is cut short", where=where, remedy="Fetch the file again.")
        items = tuple(
            _parse_line(line, f"{where}:{number}")
            for number, line in enumerate(data.splitlines(keepends=True), 1)
        )
        try:
            return cls(items)
        except CatalogueError as error:
            raise CatalogueError(error.message, where=where, remedy=error.remedy) from error

    @classmethod
    def load(cls, path: Path, expected_sha256: str | None = None) -> Catalogue:
        """Read a catalogue file, after comparing its digest with the one the plan names.

        Args:
            path: a ``.jsonl`` file as ``save`` writes it.
            expected_sha256: hex digest; ``None`` accepts any.

        Raises:
            CatalogueMismatchError: other bytes than the plan's.
            CatalogueError: missing, too large, or not in canonical form.
        """
        try:
            if path.stat().st_size > MAX_CATALOGUE_BYTES:
                raise CatalogueError(f"larger than {MAX_CATALOGUE_BYTES:,} bytes", where=str(path))
            data = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise CatalogueError(
                "no such catalogue file",
                where=str(path),
                remedy="Make one with `archipel data catalogue FILE`.",
            ) from error
        if expected_sha256 is not None and hashlib.sha256(data).hexdigest() != expected_sha256:
            raise CatalogueMismatchError(
                f"these bytes are not catalogue {expected_sha256}",
                where=str(path),
                remedy="Get the file the plan names from whoever proposed the plan.",
            )
        return cls.parse(data, where=str(path))

    def save(self, directory: Path) -> Path:
        """Write ``directory/<sha256>.jsonl`` (atomically) and return its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.sha256}.jsonl"
        partial = path.with_suffix(".partial")
        partial.write_bytes(self.encoded)
        partial.replace(path)
        return path

    @cached_property
    def encoded(self) -> bytes:
        """The file's bytes."""
        return b"".join(item.line() for item in self.items)

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the file's bytes: what a plan calls this catalogue."""
        return hashlib.sha256(self.encoded).hexdigest()

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """External ids, in index order."""
        return tuple(item.item_id for item in self.items)

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """All attribute labels, sorted: the columns of ``features``."""
        return tuple(sorted({attribute for item in self.items for attribute in item.attributes}))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index

    def index(self, item_id: str) -> int:
        """Dense index of ``item_id``.

        Raises:
            CatalogueError: the item is not in the list.
        """
        try:
            return self._index[item_id]
        except KeyError:
            raise CatalogueError(
                f"item '{item_id}' is not in the catalogue",
                remedy="Use an item id of the plan's catalogue.",
            ) from None

    def features(self) -> npt.NDArray[np.float64]:
        """Public one-hots of the attributes, shape (items, ``len(attributes)``)."""
        column = {attribute: number for number, attribute in enumerate(self.attributes)}
        one_hots = np.zeros((len(self.items), len(column)), dtype=np.float64)
        for row, item in enumerate(self.items):
            for attribute in item.attributes:
                one_hots[row, column[attribute]] = 1.0
        return one_hots


def _parse_line(line: bytes, where: str) -> CatalogueItem:
    try:
        item = CatalogueItem.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CatalogueError(
            f"not a catalogue item: {field + ': ' if field else ''}{first['msg']}",
            where=where,
            remedy="Make the file with `archipel data catalogue FILE`.",
        ) from error
    if item.line() != line:
        raise CatalogueError(
            "not the canonical form (RFC 8785) of this item",
            where=where,
            remedy="Make the file with `archipel data catalogue FILE` instead of by hand.",
        )
    return item
