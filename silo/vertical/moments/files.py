"""The bytes of the legs that carry moments, and the shape that both sides derive from the plan.

Frames have one exact length each (:mod:`privacy.encryption.crossmoments.frames`), so a file is nothing but
frames one after the other; what a feature silo returns begins with its noised Gram, k × k float64,
little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from policies.plans.models import CrossMomentsModel
from policies.plans.plan import Plan
from privacy.encryption.crossmoments.frames import (
    LABEL_FRAME_BYTES,
    SUM_FRAME_BYTES,
    MomentsFrame,
    check_frame,
)
from privacy.encryption.crossmoments.parameters import MomentsShape
from privacy.encryption.frames import FrameError
from privacy.errors import UsageError
from silo.vertical.joint.model import Matrix

_LARGEST_GRAM = 2.0**40
"""Above 2^24 rows of norm 1 and any noise that is drawn; beside an entry of 1e300 all others are alike."""


def cross_moments(plan: Plan) -> CrossMomentsModel:
    """The plan's model.

    Raises:
        UsageError: it is another one.
    """
    if not isinstance(plan.model, CrossMomentsModel):
        raise UsageError("this plan has no moments", where="model.family", remedy="write cross-moments")
    return plan.model


def moments_shape(plan: Plan, spine_slots: int, partner: str) -> MomentsShape:
    """What the label silo and one feature silo compute, from what both know.

    Args:
        plan: the job's.
        spine_slots: as matched.
        partner: the feature silo: in how many of its rows one person may be is its own.
    """
    model = cross_moments(plan)
    terms = None if plan.roles is None else plan.roles.features.get(partner)
    return MomentsShape(
        num_slots=spine_slots,
        num_items=model.label_items,
        num_features=model.dimensions,
        max_row_norm=model.label_norm,
        max_entry=min(1.0, model.label_norm),
        rows_per_person=1 if terms is None else terms.rows_per_unit,
    )


def read_block(path: Path, num_slots: int, *, where: str | None = None) -> Iterator[bytes]:
    """Yield the frames of one block, one for each of its slots, in the memory of one.

    Raises:
        FrameError: another number of bytes.
    """
    if path.stat().st_size != num_slots * LABEL_FRAME_BYTES:
        raise FrameError(f"a block that is not one of {num_slots} slots", where=where)
    with path.open("rb") as file:
        for _ in range(num_slots):
            yield file.read(LABEL_FRAME_BYTES)


def write_moments(path: Path, gram: Matrix, frames: tuple[bytes, ...]) -> None:
    """Write what a feature silo returns."""
    with path.open("wb") as file:
        file.write(gram.astype("<f8").tobytes())
        file.writelines(frames)


def read_moments(path: Path, shape: MomentsShape, *, where: str | None = None) -> tuple[Matrix, list[bytes]]:
    """Read what a feature silo returned: its Gram, and the frames of its sums.

    Raises:
        FrameError: other bytes, a Gram that is none, or sums that are no ciphertexts: found when they come,
            not in the last step, which would be tried until the job expires.
    """
    k = shape.num_features
    content = path.read_bytes()
    gram_bytes = 8 * k * k
    if len(content) != gram_bytes + shape.num_sums * SUM_FRAME_BYTES:
        raise FrameError(f"{len(content)} bytes that are not {shape.num_sums} sums and a Gram", where=where)
    gram = np.frombuffer(content, dtype="<f8", count=k * k).reshape(k, k).astype(np.float64)
    largest = np.abs(gram).max()
    if not largest <= _LARGEST_GRAM or not np.allclose(gram, gram.T, rtol=1e-6, atol=1e-6 * largest):
        raise FrameError("a Gram that is not symmetric or no numbers", where=where)
    starts = range(gram_bytes, len(content), SUM_FRAME_BYTES)
    frames = [content[start : start + SUM_FRAME_BYTES] for start in starts]
    for frame in frames:
        check_frame(frame, MomentsFrame.SUM, where=where)
    return gram, frames
