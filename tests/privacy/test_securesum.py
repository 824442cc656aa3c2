from __future__ import annotations

import numpy as np
import pytest

from privacy.errors import ArchipelError
from privacy.masking import MaskError
from privacy.packing import SLOTS_PER_FRAME, Layout, LayoutError
from privacy.securesum import SumRejectedError, protect
from tests.contracts.secure_roster import Roster, add_streams


@pytest.mark.parametrize(
    ("silos", "values_per_slot", "values"),
    [
        (2, 2, 9001),
        (3, 3, 9001),
        (4, 2, 9001),
        (5, 1, 5000),
        (16, 2, 3000),
        (4, 2, 1),
        (4, 2, 2 * 4095),
        (4, 2, 8191),
    ],
)
def test_the_sum_is_exact(silos: int, values_per_slot: int, values: int) -> None:
    roster = Roster(silos)
    layout = Layout.with_values_per_slot(silos, values_per_slot, values)
    levels = roster.levels(layout)
    summed = add_streams(*roster.streams(layout, levels).values())
    assert len(summed) == layout.num_frames
    np.testing.assert_array_equal(roster.open(summed, layout), sum(levels.values()))


def test_everyone_at_the_top_and_at_the_bottom_is_exact() -> None:
    roster, layout = Roster(4), Layout.with_values_per_slot(4, 2, 9001)
    for level in (0, layout.max_level):
        levels = dict.fromkeys(roster.names, np.full(layout.values, level))
        summed = add_streams(*roster.streams(layout, levels).values())
        np.testing.assert_array_equal(roster.open(summed, layout), np.full(layout.values, 4 * level))


def test_levels_of_another_integer_type() -> None:
    roster, layout = Roster(2), Layout.with_values_per_slot(2, 2, 100)
    levels = {name: part.astype(np.uint32) for name, part in roster.levels(layout).items()}
    summed = add_streams(*roster.streams(layout, levels).values())
    np.testing.assert_array_equal(roster.open(summed, layout), sum(levels.values()))


def test_frames_are_made_one_at_a_time() -> None:
    roster, layout = Roster(2), Layout.with_values_per_slot(2, 2, 30 * 2 * SLOTS_PER_FRAME)
    frames = protect(
        roster.levels(layout)["a"],
        layout,
        contributors=2,
        pair_keys=roster.pair_keys()["a"],
        me="a",
        tag_key=roster.tag_key(),
        holder=roster.holder,
    )
    assert iter(frames) is frames
    assert next(frames) != next(frames)


def test_what_cannot_be_protected_is_refused_before_the_first_frame() -> None:
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 9001)
    levels, keys = roster.levels(layout)["a"], roster.pair_keys()["a"]

    def attempt(levels: np.ndarray, pair_keys: dict[str, bytes], contributors: int = 3) -> None:
        protect(
            levels, layout, contributors=contributors, pair_keys=pair_keys, me="a",
            tag_key=roster.tag_key(), holder=roster.holder,
        )  # fmt: skip

    high = levels.copy()
    high[-1] = layout.max_level + 1
    for bad in (high, levels[:-1], levels - layout.max_level - 1, levels / 2):
        with pytest.raises(LayoutError):
            attempt(bad, keys)
    for pair_keys in ({}, {"b": keys["b"]}, keys | {"d": bytes(32)}, {"a": bytes(32), "b": keys["b"]}):
        with pytest.raises(MaskError):
            attempt(levels, pair_keys)
    with pytest.raises(MaskError, match="1 pair keys for 3 contributors"):
        attempt(levels, {"b": keys["b"]})  # a peer's key is missing: its masks would not vanish
    for contributors in (1, 4):
        with pytest.raises(LayoutError, match="contributors"):
            attempt(levels, keys, contributors)


@pytest.mark.parametrize("absent", [{"b"}, {"a", "d"}])
def test_the_sum_of_those_who_are_there_is_exact_in_the_layout_of_all(absent: set[str]) -> None:
    roster, layout = Roster(4), Layout.with_values_per_slot(4, 2, 9001)
    levels = {name: part for name, part in roster.levels(layout).items() if name not in absent}
    summed = add_streams(*roster.streams(layout, levels).values())
    np.testing.assert_array_equal(roster.open(summed, layout, contributors=len(levels)), sum(levels.values()))


def test_masks_for_a_silo_that_did_not_contribute_do_not_vanish() -> None:
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 100)
    levels = roster.levels(layout)
    streams = roster.streams(layout, levels)
    del streams["c"]
    with pytest.raises(SumRejectedError):
        roster.open(add_streams(*streams.values()), layout, contributors=2)


def test_a_value_larger_than_so_few_silos_can_make_is_refused() -> None:
    """Whatever the layout of the full roster would still carry."""
    roster, layout = Roster(4), Layout.with_values_per_slot(4, 2, 100)
    levels = dict.fromkeys(roster.names[:3], np.full(layout.values, layout.max_level))
    summed = add_streams(*roster.streams(layout, levels).values())
    np.testing.assert_array_equal(
        roster.open(summed, layout, contributors=3), np.full(layout.values, 3 * layout.max_level)
    )
    with pytest.raises(SumRejectedError):
        roster.open(summed, layout, contributors=2)
    for contributors in (1, 5):
        with pytest.raises(LayoutError):
            roster.open(summed, layout, contributors=contributors)


def test_too_few_too_many_or_unreadable_frames_are_one_error() -> None:
    roster, layout = Roster(2), Layout.with_values_per_slot(2, 2, 9001)
    streams = roster.streams(layout, roster.levels(layout))
    summed = add_streams(*streams.values())
    refusals = []
    for frames in (
        [],
        summed[:-1],
        [*summed, summed[-1]],
        [summed[1], summed[0]],
        streams["a"],
        [b"", *summed[1:]],
        [summed[0][:-1], *summed[1:]],
    ):
        with pytest.raises(SumRejectedError) as refusal:
            roster.open(frames, layout)
        refusals.append(refusal.value)
    assert len({str(refusal) for refusal in refusals}) == 1
    assert all(
        refusal.__cause__ is None and refusal.__suppress_context__ is True for refusal in refusals[-2:]
    )
    assert isinstance(refusals[0], ArchipelError)
