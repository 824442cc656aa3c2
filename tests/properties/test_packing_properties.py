from __future__ import annotations

import os
from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.masking import Keystream, apply_masks, tag_coefficients, tag_of
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME, Layout, largest_bits


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    roster_size = draw(st.integers(2, 190))
    values_per_slot = draw(st.integers(1, 4))
    bits = draw(st.integers(1, largest_bits(roster_size, values_per_slot)))
    return Layout(roster_size, bits, draw(st.integers(1, 20_000)))


@settings(max_examples=60, deadline=None)
@given(layouts(), st.integers(0, 2**32), st.integers(1, 190))
def test_the_sum_of_packs_unpacks_to_the_sum(layout: Layout, seed: int, silos: int) -> None:
    rng = np.random.default_rng(seed)
    silos = min(silos, layout.roster_size)
    total = np.zeros(layout.total_slots, np.int64)
    want = np.zeros(layout.values, np.int64)
    for _ in range(silos):
        levels = rng.choice([0, 1, layout.max_level, layout.max_level // 2], layout.values)
        want += levels
        total += layout.pack(levels)
    assert int(total.max()) < layout.slot_bound <= PLAIN_MODULUS
    np.testing.assert_array_equal(layout.unpack(total), want)


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_values_tag_and_padding_have_room(layout: Layout) -> None:
    assert layout.values_per_slot * layout.data_slots >= layout.values
    assert layout.values_per_slot * (layout.data_slots - 1) < layout.values
    assert layout.data_slots + 1 <= layout.total_slots < layout.data_slots + 1 + SLOTS_PER_FRAME


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(1, 5000), st.integers(0, 2**32))
def test_masks_of_a_whole_roster_vanish(silos: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"silo-{index}" for index in rng.permutation(silos)]
    keys = {frozenset((a, b)): os.urandom(32) for a in names for b in names if a < b}
    slots = {name: rng.integers(0, PLAIN_MODULUS, count) for name in names}
    masked = [
        apply_masks(slots[me], {peer: keys[frozenset((me, peer))] for peer in names if peer != me}, me)
        for me in names
    ]
    assert all(int(part.min()) >= 0 and int(part.max()) < PLAIN_MODULUS for part in masked)

    def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a + b) % PLAIN_MODULUS

    np.testing.assert_array_equal(reduce(add, masked), reduce(add, slots.values()))


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(0, 300), max_size=6))
def test_a_keystream_does_not_depend_on_how_it_is_cut(key: bytes, cuts: list[int]) -> None:
    half_rejected = (1 << 46) + 1
    for modulus in (PLAIN_MODULUS, half_rejected):
        stream = Keystream(key, modulus)
        parts = [stream.take(cut) for cut in cuts]
        whole = Keystream(key, modulus).take(sum(cuts))
        np.testing.assert_array_equal(np.concatenate([np.zeros(0, np.int64), *parts]), whole)
        assert (whole < modulus).all()


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 9000), st.integers(0, 2**32), st.booleans())
def test_the_tag_is_the_inner_product_modulo_t(key: bytes, count: int, seed: int, top: bool) -> None:
    slots = np.random.default_rng(seed).integers(0, PLAIN_MODULUS, count)
    if top:
        slots[:] = PLAIN_MODULUS - 1
    coefficients = tag_coefficients(key, count)
    want = sum(r * v for r, v in zip(coefficients.tolist(), slots.tolist(), strict=True)) % PLAIN_MODULUS
    assert tag_of(slots, key) == want
