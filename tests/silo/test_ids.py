from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.data.catalogue import CatalogueItem
from silo.data.ids import canonical_id, canonical_ids


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("7", "7"),
        (" 7.0\t", "7"),
        ("12.000", "12"),
        ("0.0", "0"),
        ("e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("\N{NO-BREAK SPACE}ann ", "ann"),
        ("007", "007"),
        ("007.0", "007.0"),
        ("7.50", "7.50"),
        ("1.2.0", "1.2.0"),
        ("Ann", "Ann"),
        ("7.", "7."),
        ("\N{ARABIC-INDIC DIGIT SEVEN}.0", "\N{ARABIC-INDIC DIGIT SEVEN}.0"),
    ],
)
def test_one_text_however_it_is_written(written: str, text: str) -> None:
    assert canonical_id(written) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8))
def test_the_one_text_is_final_and_a_columns_is_the_same(text: str) -> None:
    once = canonical_id(text)
    assert canonical_id(once) == once
    assert canonical_id(unicodedata.normalize("NFD", text)) == once
    assert canonical_ids(pl.Series("x", [text, None, text])).to_list() == [once, None, once]


def test_a_catalogue_holds_items_under_their_one_text() -> None:
    with pytest.raises(ValueError, match="not written as '7'"):
        CatalogueItem(item_id="7.0")
