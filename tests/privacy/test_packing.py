from __future__ import annotations

import numpy as np
import pytest

from privacy.packing import MAX_ROSTER_SIZE, PLAIN_MODULUS, SLOTS_PER_FRAME, Layout, LayoutError, largest_bits


@pytest.mark.parametrize(
    ("values_per_slot", "bits"),
    [(2, (22, 21, 20, 19, 17)), (3, (14, 13, 12, 11, 9))],
)
def test_bits_for_2_4_8_16_and_64_silos(values_per_slot: int, bits: tuple[int, ...]) -> None:
    assert tuple(largest_bits(n, values_per_slot) for n in (2, 4, 8, 16, 64)) == bits


@pytest.mark.parametrize("roster_size", [2, 3, 4, 7, 16, 64, MAX_ROSTER_SIZE])
@pytest.mark.parametrize("values_per_slot", [1, 2, 3, 5])
def test_one_more_bit_would_not_fit(roster_size: int, values_per_slot: int) -> None:
    layout = Layout.with_values_per_slot(roster_size, values_per_slot, 10)
    assert layout.values_per_slot >= values_per_slot
    assert layout.slot_bound <= PLAIN_MODULUS < layout.slot_bound * layout.radix
    coarser = roster_size * ((1 << (layout.bits + 1)) - 1) + 1
    assert coarser**values_per_slot > PLAIN_MODULUS


def test_plain_modulus_is_a_prime_that_batches() -> None:
    assert PLAIN_MODULUS.bit_length() == 47
    assert PLAIN_MODULUS % (2 * SLOTS_PER_FRAME) == 1
    assert all(pow(base, PLAIN_MODULUS - 1, PLAIN_MODULUS) == 1 for base in (2, 3, 5, 7, 11, 13, 17))


@pytest.mark.parametrize(
    ("values", "num_frames"),
    [(1, 1), (2 * 4095, 1), (2 * 4095 + 1, 2), (2 * 8191, 2), (2 * 8191 + 1, 3)],
)
def test_the_tag_has_its_slot_in_the_last_frame(values: int, num_frames: int) -> None:
    layout = Layout(4, 21, values)
    assert layout.num_frames == num_frames
    assert layout.data_slots < layout.total_slots == num_frames * SLOTS_PER_FRAME


def test_ranges_packed_one_by_one_are_the_whole() -> None:
    layout = Layout(3, 13, 20_011)
    levels = np.random.default_rng(1).integers(0, layout.max_level + 1, layout.values)
    parts = [
        layout.pack_range(levels, start, start + SLOTS_PER_FRAME)
        for start in range(0, layout.total_slots, SLOTS_PER_FRAME)
    ]
    whole = layout.pack(levels)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not whole[layout.data_slots :].any()
    assert int(whole.max()) < layout.slot_bound


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.int32, np.int64])
def test_levels_of_any_integer_type(dtype: type[np.integer]) -> None:
    layout = Layout(4, 21, 5)
    levels = np.array([0, 1, layout.max_level, 7, 3], dtype=dtype)
    np.testing.assert_array_equal(layout.unpack(layout.pack(levels)), levels)


@pytest.mark.parametrize("roster_size", [2, 4, 64, MAX_ROSTER_SIZE])
@pytest.mark.parametrize("values_per_slot", [1, 2, 3])
def test_everyone_at_the_top_level_is_exact(roster_size: int, values_per_slot: int) -> None:
    layout = Layout.with_values_per_slot(roster_size, values_per_slot, 11)
    top = np.full(layout.values, layout.max_level)
    total = layout.pack(top) * roster_size
    assert int(total.max()) == layout.slot_bound - 1
    np.testing.assert_array_equal(layout.unpack(total), top * roster_size)


def test_one_silo_over_the_roster_is_wrong() -> None:
    layout = Layout.with_values_per_slot(4, 2, 10)
    top = np.full(layout.values, layout.max_level)
    total = layout.pack(top) * 5
    assert int(total.max()) >= layout.slot_bound
    assert (layout.unpack(total) != top * 5).any()


@pytest.mark.parametrize("level", [-1, 1 << 21])
def test_a_level_outside_the_bits_is_refused_without_its_value(level: int) -> None:
    layout = Layout(4, 21, 5)
    levels = np.array([0, 1, 2, 3, level])
    with pytest.raises(LayoutError) as refusal:
        layout.pack(levels)
    assert str(level) not in str(refusal.value)


@pytest.mark.parametrize(
    "levels", [np.zeros(4, np.int64), np.zeros((5, 1), np.int64), np.zeros(5), np.zeros(5, np.bool_)]
)
def test_another_shape_or_type_is_refused(levels: np.ndarray) -> None:
    with pytest.raises(LayoutError, match="5 integers were expected"):
        Layout(4, 21, 5).pack(levels)


@pytest.mark.parametrize(
    ("roster_size", "bits", "values"), [(1, 8, 5), (191, 8, 5), (4, 0, 5), (4, 46, 5), (4, 21, 0), (-2, 8, 5)]
)
def test_impossible_layouts_are_refused(roster_size: int, bits: int, values: int) -> None:
    with pytest.raises(LayoutError):
        Layout(roster_size, bits, values)


@pytest.mark.parametrize(("roster_size", "values_per_slot"), [(4, 0), (4, 40), (1, 2)])
def test_impossible_bits_are_refused(roster_size: int, values_per_slot: int) -> None:
    with pytest.raises(LayoutError):
        largest_bits(roster_size, values_per_slot)


def test_too_few_slots_do_not_unpack() -> None:
    layout = Layout(4, 21, 100)
    with pytest.raises(LayoutError):
        layout.unpack(np.zeros(layout.data_slots - 1, np.int64))
