"""The legs of a vertical job: who sends what to whom, in which order, and how large it may be.

A fixed list that anybody derives from the plan. Round ``r`` of a vertical job is leg ``r``, its attempt is
always 1. What the bytes of a leg mean is not known here.

::

    hop 1 … K-1 ─> blinded ─> (the coordinator matches) slots ─> key ─> block 1 … B ─> moments
                                                               └─> features    with a private encoder

Hops go round the ring of the roster: in hop ``h`` each silo sends to the next one the list that it has just
blinded, in hop 1 its own. Lengths are those of the plan's declared capacities, so no size tells of a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from federation.legs.parcels import (
    BLOCK_CIPHERTEXTS,
    MAX_KEY_BYTES,
    SLOT_BYTES,
    Parcel,
    alignment_of,
    block_parcel,
    block_slots,
    features_parcel,
    list_parcel,
    moments_parcel,
    num_blocks,
    slots_parcel,
)
from policies.plans.models import PrivateEncoderModel
from policies.plans.plan import Plan
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_training_event
from policies.plans.vertical.price import alignment_event, basis_event, moments_event
from privacy.errors import ProtocolError, UsageError
from privacy.events import Event, EventCount

__all__ = [
    "BLOCK_CIPHERTEXTS",
    "SLOT_BYTES",
    "Leg",
    "LegPurpose",
    "Parcel",
    "alignment_of",
    "block_slots",
    "events_before",
    "leg_at",
    "legs",
    "num_legs",
    "origin",
    "price_of",
    "spine_of",
]


class LegPurpose(StrEnum):
    """What a leg carries."""

    HOP = "hop"
    BLINDED = "blinded"
    SLOTS = "slots"
    KEY = "key"
    BLOCK = "block"
    MOMENTS = "moments"
    FEATURES = "features"


_UNSEALED = frozenset({LegPurpose.BLINDED, LegPurpose.SLOTS, LegPurpose.KEY, LegPurpose.BLOCK})
"""For the coordinator, from it, or of use to nobody without the label silo's secret key."""


@dataclass(frozen=True)
class Leg:
    """One leg.

    Attributes:
        number: round of the job, counted from 1.
        purpose: what it carries.
        index: which of its purpose, counted from 1.
        count: how many legs have that purpose.
        parcels: by sender, in roster order. The slots come from the coordinator: they stand by their reader.
    """

    number: int
    purpose: LegPurpose
    index: int
    count: int
    parcels: Mapping[str, Parcel]

    @property
    def senders(self) -> tuple[str, ...]:
        """The silos that send; none where the coordinator does."""
        return () if self.purpose is LegPurpose.SLOTS else tuple(self.parcels)

    @property
    def readers(self) -> tuple[str, ...]:
        """The silos that receive something, each once."""
        return tuple(dict.fromkeys(name for parcel in self.parcels.values() for name in parcel.readers))

    @property
    def is_sealed(self) -> bool:
        """Whether a parcel is sealed to its one reader."""
        return self.purpose not in _UNSEALED

    @property
    def in_words(self) -> str:
        """For people: ``hop 1 of 3``, ``block 4 of 95``, ``moments``."""
        return self.purpose.value if self.count == 1 else f"{self.purpose} {self.index} of {self.count}"

    def received_from(self, reader: str) -> tuple[str, ...]:
        """The parcels that ``reader`` has to fetch."""
        return tuple(name for name, parcel in self.parcels.items() if reader in parcel.readers)


def origin(plan: Plan, leg: Leg, sender: str) -> str:
    """Whose list ``sender`` sends on in a hop, or to the coordinator once all have blinded it.

    Raises:
        UsageError: the leg carries no list.
    """
    if leg.purpose is LegPurpose.HOP:
        layers = leg.index
    elif leg.purpose is LegPurpose.BLINDED:
        layers = plan.num_silos
    else:
        raise UsageError(f"leg {leg.in_words} carries no list of people")
    return plan.silos[(plan.silos.index(sender) - layers + 1) % plan.num_silos]


def legs(plan: Plan, spine_slots: int | None = None) -> tuple[Leg, ...]:
    """Every leg of a vertical job.

    Args:
        plan: a vertical plan.
        spine_slots: as the coordinator matched; left out: those of the plan. Where the plan reveals who is in
            common, nobody knows the number before, and the list ends with the slots.
    """
    return tuple(leg_at(plan, number, spine_slots) for number in range(1, num_legs(plan, spine_slots) + 1))


def num_legs(plan: Plan, spine_slots: int | None = None) -> int:
    """How many there are, as far as is known; arguments as for :func:`legs`."""
    slots = spine_of(plan, spine_slots)
    aligned = plan.num_silos + 1
    if slots is None:
        return aligned
    if isinstance(plan.model, PrivateEncoderModel):
        return aligned + 1
    return aligned + 2 + num_blocks(plan, slots)


def leg_at(plan: Plan, number: int, spine_slots: int | None = None) -> Leg:
    """One leg by its number; arguments as for :func:`legs`.

    Raises:
        ProtocolError: there is no such leg.
    """
    if not 1 <= number <= num_legs(plan, spine_slots):
        raise ProtocolError(f"this job has no leg {number}")
    hops = plan.num_silos - 1
    if number <= hops:
        return _hop(plan, number)
    if number == hops + 1:
        blinded = {silo: list_parcel(plan, _last_origin(plan, silo), ()) for silo in plan.silos}
        return Leg(number, LegPurpose.BLINDED, 1, 1, blinded)
    if number == hops + 2:
        return Leg(number, LegPurpose.SLOTS, 1, 1, {silo: slots_parcel(plan, silo) for silo in plan.silos})
    slots = spine_of(plan, spine_slots) or 0  # known, or there would be no such leg
    if isinstance(plan.model, PrivateEncoderModel):
        parcel = features_parcel(plan, plan.model, slots)
        return Leg(number, LegPurpose.FEATURES, 1, 1, dict.fromkeys(plan.silos[1:], parcel))
    if number == hops + 3:
        key = Parcel(plan.silos[1:], 1, MAX_KEY_BYTES)
        return Leg(number, LegPurpose.KEY, 1, 1, {plan.leader: key})
    blocks, block = num_blocks(plan, slots), number - hops - 3
    if block <= blocks:
        return Leg(number, LegPurpose.BLOCK, block, blocks, {plan.leader: block_parcel(plan, slots, block)})
    return Leg(number, LegPurpose.MOMENTS, 1, 1, dict.fromkeys(plan.silos[1:], moments_parcel(plan, slots)))


def spine_of(plan: Plan, matched: int | None = None) -> int | None:
    """Slots of the spine: matched already, or fixed by the plan; None while nobody can know."""
    if matched is not None:
        return matched
    terms = alignment_of(plan)
    return terms.spine_slots if terms.reveal == "none" else None


def price_of(plan: Plan, leg: Leg, silo: str) -> Event | None:
    """What ``silo`` pays at a leg, at the place (leg, 1); None: nothing of its people is in it, or is new.

    Every silo pays for the noised number of people in common before its list leaves. A feature silo pays for
    its basis when the public key has come, for its moments before they leave; with a private encoder for the
    training once it has its slots, for everybody's numbers before they leave.
    """
    if leg.purpose is LegPurpose.HOP and leg.index == 1:
        return alignment_event(plan)
    if silo == plan.leader:
        return None
    if leg.purpose is LegPurpose.SLOTS and isinstance(plan.model, PrivateEncoderModel):
        return encoder_training_event(plan)
    match leg.purpose:
        case LegPurpose.KEY:
            return basis_event(plan)
        case LegPurpose.MOMENTS:
            return moments_event(plan)
        case LegPurpose.FEATURES:
            return encoder_release_event(plan)
        case _:
            return None


def events_before(plan: Plan, number: int, spine_slots: int | None = None) -> tuple[EventCount, ...]:
    """What one feature silo has paid for legs up to ``number``; a label silo pays less."""
    silo = plan.silos[-1]
    last, aligned = num_legs(plan, spine_slots), plan.num_silos + 1
    steps = dict.fromkeys((1, aligned, aligned + 1, last))
    priced = (leg_at(plan, step, spine_slots) for step in steps if step <= min(number, last))
    events = (price_of(plan, leg, silo) for leg in priced)
    return tuple(EventCount(event, 1) for event in events if event is not None)


def _hop(plan: Plan, number: int) -> Leg:
    parcels = {}
    for place, silo in enumerate(plan.silos):
        whose = plan.silos[(place - number + 1) % plan.num_silos]
        parcels[silo] = list_parcel(plan, whose, (plan.silos[(place + 1) % plan.num_silos],))
    return Leg(number, LegPurpose.HOP, number, plan.num_silos - 1, parcels)


def _last_origin(plan: Plan, silo: str) -> str:
    return plan.silos[(plan.silos.index(silo) + 1) % plan.num_silos]
