"""The two ends of the secure sum that a silo holds: protecting its levels, opening everybody's sum.

``pack → mask → tag → encrypt`` and ``decrypt → check → unpack``. The coordinator between them adds frames
(:mod:`privacy.encryption.summation`) and can import neither end.

Guarantees, where every contributor of an attempt protects exactly once with the same layout and tag key:
    * the opened vector is the exact integer sum, always (no decryption failure, no wrap-around): the layout
      is that of the full roster, and fewer contributors leave room in it;
    * a sum to which something was added, from which a silo is missing or in which one counts twice is
      refused with probability ``1 - 2^-47`` if whoever did it holds neither the BFV key nor the tag key;
    * what one silo sends is uniform to everybody else together, up to the sum of the honest rest.

A coordinator that colludes with a silo can compute a matching tag: recomputing the sum
(``verify_sums``) is the defence there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from privacy.encryption.frames import FrameError
from privacy.encryption.keyholder import KeyHolder
from privacy.errors import ProtocolError
from privacy.masking import MaskError, Masks, Tag
from privacy.packing import SLOTS_PER_FRAME, Integers, Layout


class SumRejectedError(ProtocolError):
    """The sum is not what the roster put in. Which check failed is told to nobody: it would be an oracle."""

    code = "sum_rejected"

    def __init__(self) -> None:
        super().__init__(
            "the sum of this attempt does not open",
            where="secure sum",
            remedy="burn the attempt; two strikes end the job",
        )


def protect(
    levels: npt.NDArray[np.integer],
    layout: Layout,
    *,
    contributors: int,
    pair_keys: Mapping[str, bytes],
    me: str,
    tag_key: bytes,
    holder: KeyHolder,
) -> Iterator[bytes]:
    """Turn one contribution into its frames, one at a time. Use the keys once.

    Args:
        levels: ``layout.values`` noised integers in ``[0, layout.max_level]``.
        layout: the layout of the whole roster, whoever is absent.
        contributors: silos of this attempt, this one included.
        pair_keys: name -> mask key, for every other contributor.
        me: this silo's name.
        tag_key: the tag key of this (round, attempt).
        holder: the job's BFV key.

    Returns:
        ``layout.num_frames`` frames, computed as they are asked for; arguments are checked at once.

    Raises:
        LayoutError: levels that would not sum exactly, fewer than two contributors, or more than the layout
            has room for.
        MaskError: keys for another number of contributors, or keys that do not mask.
    """
    layout.check_levels(levels)
    layout.check_contributors(contributors)
    if len(pair_keys) + 1 != contributors:
        raise MaskError(f"{len(pair_keys)} pair keys for {contributors} contributors")
    return _frames(levels, layout, Masks(pair_keys, me), Tag(tag_key), holder)


def _frames(
    levels: npt.NDArray[np.integer], layout: Layout, masks: Masks, tag: Tag, holder: KeyHolder
) -> Iterator[bytes]:
    last = layout.total_slots - SLOTS_PER_FRAME
    for start in range(0, last, SLOTS_PER_FRAME):
        slots = masks.apply(layout.pack_range(levels, start, start + SLOTS_PER_FRAME))
        tag.update(slots)
        yield holder.encrypt(slots)
    slots = masks.apply(layout.pack_range(levels, last, layout.total_slots - 1))
    tag.update(slots)
    yield holder.encrypt(np.append(slots, tag.value()))


def open_sum(
    frames: Iterable[bytes], layout: Layout, *, contributors: int, tag_key: bytes, holder: KeyHolder
) -> Integers:
    """Open the sum of all contributors, once, after they agreed that they received the same.

    Args:
        frames: the summed frames in order.
        layout: the layout everybody protected with.
        contributors: how many silos' levels are in the sum; no value can exceed what so many make.
        tag_key: the tag key of this (round, attempt).
        holder: the job's BFV key.

    Returns:
        ``layout.values`` exact sums, int64.

    Raises:
        LayoutError: fewer than two contributors, or more than the layout has room for.
        SumRejectedError: anything is wrong with the sum. It never says what.
    """
    layout.check_contributors(contributors)
    slots = _decrypt(frames, layout, holder)
    tag = Tag(tag_key)
    tag.update(slots[:-1])
    data, padding = slots[: layout.data_slots], slots[layout.data_slots : -1]
    sums = layout.unpack(data)
    accepted = (
        (tag.value() == int(slots[-1]))
        & (int(data.max()) < layout.slot_bound)
        & (int(sums.max()) <= contributors * layout.max_level)
        & (not padding.any())
    )
    if not accepted:
        raise SumRejectedError
    return sums


def _decrypt(frames: Iterable[bytes], layout: Layout, holder: KeyHolder) -> Integers:
    slots = np.empty(layout.total_slots, dtype=np.int64)
    start = 0
    try:
        for frame in frames:
            if start == layout.total_slots:
                raise SumRejectedError
            slots[start : start + SLOTS_PER_FRAME] = holder.decrypt(frame)
            start += SLOTS_PER_FRAME
    except FrameError:
        raise SumRejectedError from None
    if start != layout.total_slots:
        raise SumRejectedError
    return slots
