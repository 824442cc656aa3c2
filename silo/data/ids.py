"""One text for each id, however a file writes it: the only place that decides who is the same person.

A person under two texts would contribute twice, and a no under another text than the rows' would exclude
nobody, in silence. So rows, lists of people who opted out, item files and what an operator types all pass
through here before any two ids are compared.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import polars as pl

# What spreadsheets and data frames make of whole numbers as soon as one row lacks an id.
_WHOLE_FLOAT: Final = re.compile(r"(0|[1-9][0-9]*)\.0+")


def canonical_id(text: str) -> str:
    """The one text of an id: Unicode NFC, no surrounding blanks, ``7.0`` as ``7``.

    Case, leading zeros and everything else stay: ``007`` and ``7`` are two ids.
    """
    plain = unicodedata.normalize("NFC", text).strip()
    whole = _WHOLE_FLOAT.fullmatch(plain)
    return whole[1] if whole else plain


def canonical_ids(values: pl.Series) -> pl.Series:
    """``canonical_id`` of each text of a column; null stays null."""
    distinct = values.drop_nulls().unique()
    table = pl.DataFrame(
        {"text": distinct, "canonical": [canonical_id(text) for text in distinct]},
        schema={"text": pl.String, "canonical": pl.String},
    )
    joined = values.alias("text").to_frame().join(table, on="text", how="left", maintain_order="left")
    return joined["canonical"].alias(values.name)
