"""One encoding, independent of order and of fields that were never said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from policies.canonical import CanonicalError, canonical_bytes, digest, sha256_hex, signed_bytes

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**53), 2.0**53, exclude_min=True, exclude_max=True)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abé😀", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


class Old(BaseModel):
    name: str
    size: int = 3


class New(Old):
    colour: str = "none"


@settings(max_examples=100)
@given(st.dictionaries(st.text("abz€", max_size=3), JSON, max_size=5))
def test_bytes_survive_a_round_trip_and_any_order(value):
    encoded = canonical_bytes(value)
    assert canonical_bytes(json.loads(encoded)) == encoded
    assert canonical_bytes(dict(reversed(list(value.items())))) == encoded


def test_a_field_added_later_leaves_old_bytes_alone():
    assert canonical_bytes(Old(name="a")) == canonical_bytes(New(name="a")) == b'{"name":"a"}'
    assert canonical_bytes(New(name="a", colour="none")) != canonical_bytes(New(name="a"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**53)])
def test_numbers_without_one_meaning_are_refused(value):
    with pytest.raises(CanonicalError) as caught:
        canonical_bytes({"x": value})
    assert caught.value.code == "not_canonical"


def test_kinds_keep_signatures_apart():
    assert signed_bytes("charter", {"a": 1}) == b'archipel/charter/v1\0{"a":1}'
    assert signed_bytes("charter", {}) != signed_bytes("plan", {})


@pytest.mark.parametrize("kind", ["", "Charter", "a/b", "a\0b", "ä", "1a"])
def test_a_kind_that_could_be_read_two_ways_is_refused(kind):
    with pytest.raises(ValueError, match="kind"):
        signed_bytes(kind, {})


def test_digest_is_that_of_the_canonical_bytes():
    assert digest({"b": 1, "a": 2}) == sha256_hex(b'{"a":2,"b":1}')
