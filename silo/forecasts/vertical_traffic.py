"""How many bytes each silo of a vertical job sends and fetches: exact, because no size depends on a row."""

from __future__ import annotations

from dataclasses import dataclass

from federation.legs.legs import SLOT_BYTES, Leg, LegPurpose, legs, spine_of
from policies.plans.plan import Plan
from policies.plans.vertical.encoder_price import private_encoder
from privacy.alignment.points import POINT_BYTES, SCALAR_BYTES
from privacy.embedding import VALUE_BYTES
from privacy.encryption.crossmoments.frames import LABEL_FRAME_BYTES, SUM_FRAME_BYTES, MomentsFrame
from privacy.sealing import sealed_bytes
from silo.vertical.moments.files import moments_shape


@dataclass(frozen=True)
class SiloTraffic:
    """Bytes of one silo's files in one job; posts and TLS add a few hundred for each leg.

    Attributes:
        upload_bytes: sent.
        download_bytes: fetched.
    """

    upload_bytes: int
    download_bytes: int


def vertical_traffic(plan: Plan, spine_slots: int | None = None) -> dict[str, SiloTraffic]:
    """Return what each silo of a vertical plan sends and fetches.

    Args:
        plan: vertical.
        spine_slots: as matched; left out: those of the plan, and where the plan reveals who is in common, the
            most that there can be.
    """
    slots = spine_of(plan, spine_slots)
    if slots is None:
        slots = most_slots(plan)
    sent, fetched = dict.fromkeys(plan.silos, 0), dict.fromkeys(plan.silos, 0)
    for leg in legs(plan, slots):
        for sender, parcel in leg.parcels.items():
            num_bytes = parcel_bytes(plan, leg, sender, slots)
            if leg.senders:  # slots come from the coordinator
                sent[sender] += num_bytes
            for reader in parcel.readers:
                fetched[reader] += num_bytes
    return {silo: SiloTraffic(sent[silo], fetched[silo]) for silo in plan.silos}


def parcel_bytes(plan: Plan, leg: Leg, sender: str, spine_slots: int) -> int:
    """Return the size of the file that ``sender`` sends in a leg, sealing included."""
    records = leg.parcels[sender].records
    match leg.purpose:
        case LegPurpose.HOP:
            plain = records * POINT_BYTES
        case LegPurpose.BLINDED:
            plain = SCALAR_BYTES + records * POINT_BYTES
        case LegPurpose.SLOTS:
            plain = records * SLOT_BYTES
        case LegPurpose.KEY:
            plain = MomentsFrame.PUBLIC_KEY.num_bytes
        case LegPurpose.BLOCK:
            plain = records * LABEL_FRAME_BYTES
        case LegPurpose.MOMENTS:
            shape = moments_shape(plan, spine_slots, sender)
            plain = 8 * shape.num_features**2 + shape.num_sums * SUM_FRAME_BYTES
        case LegPurpose.FEATURES:
            plain = records * private_encoder(plan).dimensions * VALUE_BYTES
    return sealed_bytes(plain) if leg.is_sealed else plain


def most_slots(plan: Plan) -> int:
    """Return the most slots that a spine of common people can have: the shortest list."""
    return min(plan.alignment.capacities.values()) if plan.alignment else 0
