"""Who reads what a leg carries, and how large it may be: by the plan alone, so no size tells of a person."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies.plans.models import CrossMomentsModel, PrivateEncoderModel
from policies.plans.plan import Plan
from policies.plans.vertical.terms import AlignmentTerms
from privacy.embedding import VALUE_BYTES
from privacy.errors import UsageError
from privacy.sealing import sealed_bytes

MAX_POINT_BYTES = 48
"""One blinded id: a compressed point of P-256 takes 33 bytes, and a few around it."""

SLOT_BYTES = 8
"""One entry of a slot file: the number of a spine slot."""

ITEMS_OF_CIPHERTEXT = 4096
"""Items in one ciphertext: N = 4096 has 2,048 complex slots, and both parts of each are used."""

MAX_CIPHERTEXT_BYTES = 132_000
"""Two polynomials of 4,096 coefficients under two primes, uncompressed, and SEAL's header."""

MAX_KEY_BYTES = 400_000
"""A public CKKS key has one prime more; no Galois and no relinearisation keys."""

BLOCK_CIPHERTEXTS = 192
"""Ciphertexts of a block: 9 to 17 MB at 45 to 90 kB each."""

SPLIT_LIMIT = 2**14
"""Spine slots times the label norm from which a sum of rows needs a further ciphertext."""

MAX_HEADER_BYTES = 4096
"""What a file may hold besides its records."""


@dataclass(frozen=True)
class Parcel:
    """What one sender sends in one leg.

    Attributes:
        readers: the silos that may fetch it; none where the coordinator reads it.
        records: points, slots or ciphertexts in it, exactly; 1 where its content has no records.
        max_bytes: upper bound of its file, sealing included.
    """

    readers: tuple[str, ...]
    records: int
    max_bytes: int


def list_parcel(plan: Plan, whose: str, readers: tuple[str, ...]) -> Parcel:
    """A blinded list, of its owner's declared capacity; sealed if a silo reads it."""
    records = alignment_of(plan).capacities[whose]
    plain = MAX_HEADER_BYTES + records * MAX_POINT_BYTES
    return Parcel(readers, records, sealed_bytes(plain) if readers else plain)


def slots_parcel(plan: Plan, silo: str) -> Parcel:
    """A silo's slots, from the coordinator."""
    capacity = alignment_of(plan).capacities[silo]
    return Parcel((silo,), capacity, MAX_HEADER_BYTES + capacity * SLOT_BYTES)


def block_parcel(plan: Plan, slots: int, block: int) -> Parcel:
    """The label silo's encrypted rows of one block, counted from 1."""
    here = min(block_slots(plan), slots - (block - 1) * block_slots(plan))
    records = here * _ciphertexts(plan)
    return Parcel(plan.silos[1:], records, MAX_HEADER_BYTES + records * MAX_CIPHERTEXT_BYTES)


def moments_parcel(plan: Plan, slots: int) -> Parcel:
    """A feature silo's noised sums and Gram."""
    model = _moments_model(plan)
    splits = 1 + math.floor(slots * model.label_norm / SPLIT_LIMIT)
    ciphertexts = model.dimensions * _ciphertexts(plan) * splits
    plain = MAX_HEADER_BYTES + ciphertexts * MAX_CIPHERTEXT_BYTES + 8 * model.dimensions**2
    return Parcel((plan.leader,), 1, sealed_bytes(plain))


def features_parcel(plan: Plan, model: PrivateEncoderModel, slots: int) -> Parcel:
    """A feature silo's noised numbers of every slot."""
    plain = slots * model.dimensions * VALUE_BYTES
    return Parcel((plan.leader,), slots, sealed_bytes(plain))


def block_slots(plan: Plan) -> int:
    """Spine slots whose rows travel in one block: public, by the width of a row."""
    return max(1, BLOCK_CIPHERTEXTS // _ciphertexts(plan))


def num_blocks(plan: Plan, slots: int) -> int:
    """How many blocks a spine has."""
    return math.ceil(slots / block_slots(plan))


def alignment_of(plan: Plan) -> AlignmentTerms:
    """The plan's alignment.

    Raises:
        UsageError: it is not vertical.
    """
    if plan.alignment is None:
        raise UsageError("only vertical plans have legs", where="partition", remedy="propose a vertical plan")
    return plan.alignment


def _ciphertexts(plan: Plan) -> int:
    """Ciphertexts of one row of the label silo."""
    return math.ceil(_moments_model(plan).label_items / ITEMS_OF_CIPHERTEXT)


def _moments_model(plan: Plan) -> CrossMomentsModel:
    if not isinstance(plan.model, CrossMomentsModel):
        raise UsageError(
            "only cross-moments are encrypted", where="model.family", remedy="write cross-moments"
        )
    return plan.model
