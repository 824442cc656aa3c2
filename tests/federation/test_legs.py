from __future__ import annotations

import pytest

from federation.legs.legs import (
    BLOCK_CIPHERTEXTS,
    LegPurpose,
    block_slots,
    events_before,
    leg_at,
    legs,
    num_legs,
    origin,
    price_of,
)
from policies.plans.price import reserved_events
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_training_event
from privacy.errors import ProtocolError, UsageError
from privacy.sealing import sealed_bytes
from tests.contracts.board_scene import scene_plan
from tests.contracts.leg_scene import CAPACITIES, encoder_plan, leg_plan

PLAN = leg_plan()
LEGS = legs(PLAN)


def test_the_legs_of_three_silos_in_words() -> None:
    assert [leg.in_words for leg in LEGS] == [
        "hop 1 of 2", "hop 2 of 2", "blinded", "slots", "key",
        "block 1 of 3", "block 2 of 3", "block 3 of 3", "moments",
    ]  # fmt: skip
    assert [leg.number for leg in LEGS] == list(range(1, 10))


def test_every_list_goes_once_round_the_ring_and_the_coordinator_gets_each_once() -> None:
    holder = {silo: silo for silo in PLAN.silos}
    for leg in LEGS[:2]:
        assert {origin(PLAN, leg, sender): sender for sender in leg.senders} == holder
        holder = {whose: leg.parcels[sender].readers[0] for whose, sender in holder.items()}
    assert {origin(PLAN, LEGS[2], sender): sender for sender in LEGS[2].senders} == holder
    assert LEGS[2].readers == ()


def test_a_list_is_as_long_as_the_capacity_of_whom_it_is_of() -> None:
    for leg in LEGS[:3]:
        for sender, parcel in leg.parcels.items():
            assert parcel.records == CAPACITIES[origin(PLAN, leg, sender)]


def test_two_silos_exchange_their_lists() -> None:
    plan = leg_plan(capacities=(40, 30))
    (hop, blinded), rest = legs(plan)[:2], legs(plan)[2:]
    assert hop.in_words == "hop"
    assert {sender: parcel.readers for sender, parcel in hop.parcels.items()} == {"a": ("b",), "b": ("a",)}
    assert [origin(plan, blinded, silo) for silo in plan.silos] == ["b", "a"]
    assert [leg.in_words for leg in rest] == ["slots", "key", "block", "moments"]


def test_readers_of_each_leg_are_those_who_need_it() -> None:
    assert LEGS[3].senders == ()
    assert {silo: parcel.readers for silo, parcel in LEGS[3].parcels.items()} == {s: (s,) for s in "abc"}
    for leg in LEGS[4:8]:
        assert (leg.senders, leg.readers) == (("a",), ("b", "c"))
    assert (LEGS[8].senders, LEGS[8].readers) == (("b", "c"), ("a",))
    assert [leg.is_sealed for leg in LEGS] == [True, True, *[False] * 6, True]


def test_blocks_cover_the_spine_exactly() -> None:
    blocks = [leg for leg in LEGS if leg.purpose is LegPurpose.BLOCK]
    assert [leg.parcels["a"].records for leg in blocks] == [192, 192, 450 - 2 * 192]
    assert block_slots(PLAN) == BLOCK_CIPHERTEXTS
    assert 10e6 < blocks[0].parcels["a"].max_bytes < 26e6


def test_where_the_spine_is_matched_its_length_is_known_only_then() -> None:
    plan = leg_plan(reveal="both")
    assert [leg.in_words for leg in legs(plan)][-1] == "slots"
    assert [leg.in_words for leg in legs(plan, 193)][-4:] == [
        "key",
        "block 1 of 2",
        "block 2 of 2",
        "moments",
    ]
    assert legs(plan) == legs(plan, 193)[:4]


def test_what_is_paid_over_all_legs_is_what_the_plan_reserves() -> None:
    for silo in PLAN.silos:
        paid = [event for leg in LEGS if (event := price_of(PLAN, leg, silo)) is not None]
        reserved = [item.event for item in reserved_events(PLAN, silo) for _ in range(item.count)]
        assert paid == reserved
    assert events_before(PLAN, len(LEGS)) == reserved_events(PLAN, "c")
    assert len(events_before(PLAN, 1)) == 1


def test_there_are_no_other_legs_and_none_in_a_horizontal_plan() -> None:
    for number in (0, 10):
        with pytest.raises(ProtocolError, match="no leg"):
            leg_at(PLAN, number)
    with pytest.raises(UsageError, match="vertical"):
        legs(scene_plan())
    with pytest.raises(UsageError, match="no list"):
        origin(PLAN, LEGS[4], "a")


def test_with_a_private_encoder_numbers_of_every_slot_follow_the_slots_and_nothing_else() -> None:
    plan = encoder_plan()
    *_, slots, features = legs(plan)
    assert slots.purpose is LegPurpose.SLOTS
    assert (features.purpose, features.number) == (LegPurpose.FEATURES, num_legs(plan))
    assert features.is_sealed
    assert {sender: parcel.readers for sender, parcel in features.parcels.items()} == {
        "b": ("a",),
        "c": ("a",),
    }
    parcel = features.parcels["b"]
    assert parcel.records == 450
    assert parcel.max_bytes == sealed_bytes(450 * 8 * 4)


def test_an_encoder_is_paid_for_before_its_training_and_its_numbers_before_they_leave() -> None:
    plan = encoder_plan()
    prices = {leg.purpose: price_of(plan, leg, "b") for leg in legs(plan)}
    assert prices[LegPurpose.SLOTS] == encoder_training_event(plan)
    assert prices[LegPurpose.FEATURES] == encoder_release_event(plan)
    assert [price_of(plan, leg, "a") for leg in legs(plan)[1:]] == [None] * (num_legs(plan) - 1)
    assert events_before(plan, num_legs(plan)) == reserved_events(plan, "b")
    assert len(events_before(plan, num_legs(plan) - 1)) == 2


def test_numbers_of_people_in_common_have_a_leg_once_it_is_known_how_many_there_are() -> None:
    plan = encoder_plan(reveal="both")
    assert num_legs(plan) == 4
    assert leg_at(plan, 5, spine_slots=33).parcels["c"].records == 33
    assert len(events_before(plan, 4)) == 2
