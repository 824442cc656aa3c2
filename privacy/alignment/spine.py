"""The coordinator's half of an alignment: enough in common? If so, a slot for everybody. No names.

It holds the silos' veils (:mod:`privacy.alignment.blinding`) and takes each off its owner's finished list. A
veil is no layer: without all layers it relates no id to any point.

The number of people in common is compared with the plan's least only after noise was added: a discrete
Laplace variable of scale ``1/ε``, drawn exactly (Canonne, Kamath, Steinke 2020, algorithm 2). One person more
in one silo's list, or the same person in all of them, changes that number by at most 1, so the one answer is
``ε``-private for every silo's people, and each silo pays ``ε``. Where one person may stand behind several
entries, of one list or of several together, the caller divides ``ε`` by their number.

What follows from the answer
    ============  ==========================================================================
    too few       nothing else is computed or told, not even by how many
    ``none``      a spine of as many slots as all lists have places together. Equal points
                  share a slot, slots are drawn at random: nobody's slots tell what others have
    ``both``      a spine of the people in all lists; who is elsewhere has no slot, so every
                  silo learns whom it has in common with all the others
    ============  ==========================================================================

The coordinator itself sees how many points any lists share, whatever the plan reveals. Together with one
silo, which knows its own points, it learns which of that silo's people are elsewhere. Nothing prevents that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from privacy.alignment.points import ORDER, SCALAR_BYTES, PointsError, check_points, multiplied
from privacy.errors import UsageError
from privacy.exact import LazyUniform
from privacy.randomness import WordSource

NO_SLOT = 2**64 - 1
"""In a list of slots: this row has none."""

MIN_EPSILON = 1e-4
"""Of one entry of one list; noise of tens of thousands of people decides nothing."""

Points = Mapping[str, npt.NDArray[np.void]]
Slots = npt.NDArray[np.uint64]


class GateEpsilonError(UsageError):
    """An epsilon for which no noise is drawn."""

    code = "gate_epsilon"


@dataclass(frozen=True)
class Spine:
    """Where everybody stands.

    Attributes:
        num_slots: of the spine.
        slots: for each silo the slot of each of its points, in its order; :data:`NO_SLOT` for none.
    """

    num_slots: int
    slots: Mapping[str, Slots]


def find_common(
    lists: Points, *, least: int, epsilon: float, reveal: Literal["none", "both"], source: WordSource
) -> Spine | None:
    """Ask the noised gate, once; only if it says yes are slots computed at all.

    Args:
        lists: finished, unveiled (:func:`unveiled`).
        least: the plan's ``min_intersection``.
        epsilon: the plan's.
        reveal: the plan's.
        source: uniform words.

    Returns:
        The spine; None where the noised number is too small, or where only common people have slots and
        there are none: noise alone makes no spine.

    Raises:
        GateEpsilonError: see :func:`discrete_laplace`.
    """
    common = _in_all(lists)
    if not has_enough(len(common), least, epsilon, source):
        return None
    if reveal == "none":
        return _of_union(lists, source)
    return _of_common(lists, common, source) if len(common) else None


def unveiled(points: bytes, count: int, veil: bytes, *, where: str | None = None) -> npt.NDArray[np.void]:
    """Take the owner's veil off its finished list.

    Args:
        points: under all layers and the veil.
        count: the owner's declared capacity.
        veil: 32 bytes from the owner.
        where: the owner, for the error.

    Raises:
        PointsError: no such list, or no veil.
    """
    scalar = int.from_bytes(veil, "big")
    if len(veil) != SCALAR_BYTES or not 0 < scalar < ORDER:
        raise PointsError("a veil that is no scalar", where=where)
    return check_points(multiplied(points, count, scalar, where=where), count, where=where)


def has_enough(num_people: int, least: int, epsilon: float, source: WordSource) -> bool:
    """Whether a noised number of people is at least ``least``; asked once a job.

    Args:
        num_people: in common.
        least: the plan's ``min_intersection``.
        epsilon: the plan's, at least 0.0001.
        source: uniform words.

    Raises:
        GateEpsilonError: below that, or not a number.
    """
    return num_people + discrete_laplace(epsilon, source) >= least


def discrete_laplace(epsilon: float, source: WordSource) -> int:
    """Draw from ``P(x) ∝ exp(-ε |x|)`` over the integers, exactly.

    Raises:
        GateEpsilonError: an epsilon below 0.0001, or not a number.
    """
    if not MIN_EPSILON <= epsilon < float("inf"):
        raise GateEpsilonError(
            f"epsilon {epsilon} is out of range", where="alignment.epsilon", remedy="write 0.0001 or more"
        )
    rate = Fraction(epsilon)
    while True:
        size = _geometric(rate, source)
        is_negative = bool(source.word() & 1)
        if size or not is_negative:  # 0 has one sign only
            return -size if is_negative else size


def _of_union(lists: Points, source: WordSource) -> Spine:
    """Everybody has a slot of a spine that is as long as all lists together."""
    num_slots = sum(len(points) for points in lists.values())
    people, inverse = np.unique(np.concatenate(list(lists.values())), return_inverse=True)
    chosen = _permutation(num_slots, source)[: len(people)]
    return Spine(num_slots, _split(chosen[inverse.ravel()], lists))


def _of_common(lists: Points, common: npt.NDArray[np.void], source: WordSource) -> Spine:
    """Who stands in all lists has a slot, and the spine no others; there is somebody."""
    order = _permutation(len(common), source)
    found = {}
    for silo, points in lists.items():
        place = np.searchsorted(common, points)
        inside = np.minimum(place, len(common) - 1)
        is_common = common[inside] == points
        slots = np.full(len(points), NO_SLOT, dtype=np.uint64)
        slots[is_common] = order[inside[is_common]]
        found[silo] = slots
    return Spine(len(common), found)


def _in_all(lists: Points) -> npt.NDArray[np.void]:
    people, counts = np.unique(np.concatenate(list(lists.values())), return_counts=True)
    common: npt.NDArray[np.void] = people[counts == len(lists)]
    return common


def _split(slots: Slots, lists: Points) -> dict[str, Slots]:
    ends = np.cumsum([len(points) for points in lists.values()])
    return dict(zip(lists, np.split(slots, ends[:-1]), strict=True))


def _geometric(rate: Fraction, source: WordSource) -> int:
    """How often in a row a coin of probability ``exp(-rate)`` comes up."""
    count = 0
    while LazyUniform(source.word(), source).is_below_exp(rate):
        count += 1
    return count


def _permutation(size: int, source: WordSource) -> Slots:
    """A uniform order of ``0 … size - 1``: by random words of which none is repeated."""
    while True:
        words = source.words(size)
        if len(np.unique(words)) == size:
            return np.argsort(words, kind="stable").astype(np.uint64)
