"""Several small integers in one plaintext slot, so that sums of whole vectors stay exact.

A level is an integer of ``bits`` bits. ``values_per_slot`` of them share a slot in the radix

.. math:: B = n (2^b - 1) + 1,

so that the sum of ``n`` silos' digits never carries. The packed sum of all silos is at most
``B^k - 1``; it is exact if and only if ``B^k <= t``, and the layout picks the largest such ``k``.

Guarantees:
    * ``unpack(sum of packs) == sum of vectors``, for ``n`` silos or fewer and every vector of levels in
      ``[0, 2^b - 1]``.
    * One silo more than ``roster_size`` breaks this: the condition is tight.

The last slot of the last frame carries the authentication tag (:mod:`privacy.masking`); the slots
between the data and the tag are padding, zero before masking.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError

PLAIN_MODULUS = 140_737_488_273_409
"""``t``: a 47-bit prime, 1 modulo 8192, so that 4096 slots compute independently (BFV batching)."""

SLOTS_PER_FRAME = 4096
"""Slots of one ciphertext: the degree of its polynomial."""

MAX_ROSTER_SIZE = 190
"""Honest frames that may be added before decryption could fail at all."""

Integers = npt.NDArray[np.int64]


class LayoutError(UsageError):
    """Levels, sizes or bits that no slot layout can carry exactly."""

    code = "layout"


def largest_bits(roster_size: int, values_per_slot: int) -> int:
    """Return the most bits a level may have when so many values share a slot.

    Args:
        roster_size: silos whose levels are summed, 2 to 190.
        values_per_slot: values wanted in one slot, at least 1.

    Raises:
        LayoutError: not even one bit fits.
    """
    _check_roster(roster_size)
    if values_per_slot < 1:
        raise LayoutError(f"values_per_slot is {values_per_slot}, at least 1 is needed", where="layout")
    radix = _floor_root(PLAIN_MODULUS, values_per_slot)
    bits = ((radix - 1) // roster_size + 1).bit_length() - 1
    if bits < 1:
        raise LayoutError(
            f"{values_per_slot} values of {roster_size} silos do not fit one slot",
            where="layout",
            remedy="lower values_per_slot or the number of silos",
        )
    return bits


@dataclass(frozen=True)
class Layout:
    """Where each value of a vector lies in the slots of its frames.

    Value ``i`` is digit ``i // data_slots`` of slot ``i % data_slots``.

    Args:
        roster_size: silos whose vectors are summed, ``n`` (2 to 190).
        bits: bits of one level, ``b``.
        values: length of the vector.

    Raises:
        LayoutError: a size out of range, or no value fits a slot.
    """

    roster_size: int
    bits: int
    values: int
    radix: int = field(init=False)
    values_per_slot: int = field(init=False)
    data_slots: int = field(init=False)
    num_frames: int = field(init=False)

    def __post_init__(self) -> None:
        _check_roster(self.roster_size)
        if self.values < 1:
            raise LayoutError(f"a vector of {self.values} values cannot be summed", where="layout")
        if self.bits < 1:
            raise LayoutError(f"levels of {self.bits} bits cannot carry a value", where="layout")
        radix = self.roster_size * ((1 << self.bits) - 1) + 1
        values_per_slot = 0
        while radix ** (values_per_slot + 1) <= PLAIN_MODULUS:
            values_per_slot += 1
        if values_per_slot == 0:
            raise LayoutError(
                f"levels of {self.bits} bits from {self.roster_size} silos do not fit a slot",
                where="layout",
                remedy="use fewer bits (a coarser grid) or fewer silos",
            )
        data_slots = -(-self.values // values_per_slot)
        object.__setattr__(self, "radix", radix)
        object.__setattr__(self, "values_per_slot", values_per_slot)
        object.__setattr__(self, "data_slots", data_slots)
        object.__setattr__(self, "num_frames", -(-(data_slots + 1) // SLOTS_PER_FRAME))

    @classmethod
    def with_values_per_slot(cls, roster_size: int, values_per_slot: int, values: int) -> Layout:
        """Return the layout of the most bits at which ``values_per_slot`` values share a slot."""
        return cls(roster_size, largest_bits(roster_size, values_per_slot), values)

    @property
    def max_level(self) -> int:
        """The largest level a silo may put in, ``2^bits - 1``."""
        return (1 << self.bits) - 1

    @property
    def slot_bound(self) -> int:
        """``B^k``: every data slot of an honest sum is below it."""
        bound: int = self.radix**self.values_per_slot
        return bound

    @property
    def total_slots(self) -> int:
        """Slots of all frames: data, padding and the tag."""
        return self.num_frames * SLOTS_PER_FRAME

    def check_levels(self, levels: npt.NDArray[np.integer]) -> None:
        """Refuse what would not sum exactly.

        Raises:
            LayoutError: a wrong length, type or level (the message holds no level).
        """
        if levels.shape != (self.values,) or not np.issubdtype(levels.dtype, np.integer):
            raise LayoutError(
                f"{self.values} integers were expected, not {levels.dtype} of shape {levels.shape}",
                where="secure sum",
            )
        if int(levels.min()) < 0 or int(levels.max()) > self.max_level:
            raise LayoutError(
                f"a level lies outside the {self.bits} bits of the layout",
                where="secure sum",
                remedy="clamp levels to the public range before packing",
            )

    def check_contributors(self, contributors: int) -> None:
        """Refuse a number of silos whose levels this layout does not sum: one alone, or more than its roster.

        Raises:
            LayoutError: fewer than 2, or more than ``roster_size``.
        """
        if not 2 <= contributors <= self.roster_size:
            raise LayoutError(
                f"{contributors} contributors; a sum of this roster has 2 to {self.roster_size}",
                where="secure sum",
            )

    def pack(self, levels: npt.NDArray[np.integer]) -> Integers:
        """Pack a whole vector of levels into slots.

        Args:
            levels: ``values`` integers in ``[0, max_level]``.

        Returns:
            ``total_slots`` slots in ``[0, B^k - 1]``; padding and tag are zero.

        Raises:
            LayoutError: a wrong length, type or level (the message holds no level).
        """
        self.check_levels(levels)
        return self.pack_range(levels, 0, self.total_slots)

    def pack_range(self, levels: npt.NDArray[np.integer], start: int, stop: int) -> Integers:
        """Pack the slots ``start`` to ``stop`` of checked levels, in memory of their number."""
        slots = np.zeros(stop - start, dtype=np.int64)
        for digit in range(self.values_per_slot - 1, -1, -1):
            slots *= self.radix
            part = levels[self._values_of(digit, start, stop)]
            slots[: len(part)] += part.astype(np.int64, copy=False)
        return slots

    def unpack(self, slots: Integers) -> Integers:
        """Undo :meth:`pack` on a sum of up to ``roster_size`` packed vectors.

        Args:
            slots: at least ``data_slots`` integers in ``[0, B^k - 1]``; what follows is ignored.

        Returns:
            ``values`` sums.

        Raises:
            LayoutError: too few slots.
        """
        if slots.ndim != 1 or len(slots) < self.data_slots:
            raise LayoutError(f"{slots.size} slots cannot hold {self.values} values", where="layout")
        sums = np.empty(self.values_per_slot * self.data_slots, dtype=np.int64)
        rest = slots[: self.data_slots].astype(np.int64)
        for digit in range(self.values_per_slot - 1):
            quotient = rest // self.radix
            sums[digit * self.data_slots : (digit + 1) * self.data_slots] = rest - quotient * self.radix
            rest = quotient
        sums[(self.values_per_slot - 1) * self.data_slots :] = rest
        return sums[: self.values]

    def _values_of(self, digit: int, start: int, stop: int) -> slice:
        """Return which values are this digit of the slots ``start`` to ``stop``."""
        first, last = (min(slot, self.data_slots) + digit * self.data_slots for slot in (start, stop))
        return slice(min(first, self.values), min(last, self.values))


def _check_roster(roster_size: int) -> None:
    if not 2 <= roster_size <= MAX_ROSTER_SIZE:
        raise LayoutError(
            f"roster_size is {roster_size}; a sum needs 2 to {MAX_ROSTER_SIZE} silos", where="layout"
        )


def _floor_root(number: int, degree: int) -> int:
    """Return the largest ``r`` with ``r**degree <= number``, in exact arithmetic."""
    root: int = round(number ** (1 / degree))
    while root**degree > number:
        root -= 1
    while (root + 1) ** degree <= number:
        root += 1
    return root
