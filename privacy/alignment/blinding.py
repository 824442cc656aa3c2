"""A silo's half of an alignment: its own padded list under a veil, and its layer on everybody else's.

A silo has two scalars a run, a *layer* ``a`` and a *veil* ``v``. It multiplies others' lists by ``a`` and its
own by ``a / v``. With the finished lists it gives ``v`` to the coordinator and to nobody else; it then
multiplies the silo's own finished list by it, and all lists lie under the product of all layers.

Guarantees
----------
- Every list has exactly its declared capacity: random words fill it up, so its length says nothing. Words
  and filling are in a random order that only their owner knows; whoever blinds a list later keeps it.
- On its way a list lies under a scalar that no other list lies under: silos that pool what they saw and all
  their own secrets cannot compare it with any list (decisional Diffie-Hellman). Without veils two of three
  could: one sees the third's list under ``a``, the other's own comes by under ``a`` as well.
- Layer, veil, order, filling and who is left out follow from the secret *and the run*, so a secret that is
  given to two runs, by a restored disk or by mistake, blinds their lists differently. One object blinds one
  list.
- Points of peers are looked at before native code sees them (:mod:`privacy.alignment.points`). What is no
  point of the curve is refused by the library with an error, never a crash (tests).
- After a crash the same secret and run give the same list, byte for byte.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from privacy.agreement import length_prefixed
from privacy.alignment.points import ORDER, SCALAR_BYTES, Mapping, multiplied, points_of
from privacy.alignment.thinning import share_kept
from privacy.errors import DataError, UsageError
from privacy.randomness import WordSource

SECRET_BYTES = 32

Places = npt.NDArray[np.int64]


class CapacityError(DataError):
    """More people for a list than it has places."""

    code = "capacity"


class BlindingReuseError(UsageError):
    """A run was about to blind a second list of its own."""

    code = "blinding_reuse"


class Blinding:
    """One silo's scalars, order and filling of one run.

    Args:
        secret: 32 bytes of :meth:`secret_bytes`.
        run: what the run is called, the same after a crash and of no other run: the job's id.

    Raises:
        UsageError: a secret of another length, or no run.
    """

    def __init__(self, secret: bytes, run: str) -> None:
        if len(secret) != SECRET_BYTES or not run:
            raise UsageError(f"a blinding needs a secret of {SECRET_BYTES} bytes and the name of its run")
        self._secret = secret
        self._run = run
        self._layer = self._scalar("layer")
        self._veil = self._scalar("veil")
        self._has_list = False

    @classmethod
    def generate(cls, run: str) -> Self:
        """Draw a secret from the operating system."""
        return cls(os.urandom(SECRET_BYTES), run)

    def __repr__(self) -> str:
        return "Blinding(…)"

    def secret_bytes(self) -> bytes:
        """Return the secret, for this silo's outbox only."""
        return self._secret

    def veil(self) -> bytes:
        """Return what the coordinator takes off this silo's own finished list; it opens nothing else."""
        return self._veil.to_bytes(SCALAR_BYTES, "big")

    def own_list(self, words: Sequence[str], capacity: int, *, mapping: Mapping = map) -> bytes:
        """Blind this silo's own people, padded to the capacity, in the order of :meth:`places`.

        Args:
            words: all different (``identifiers.pseudonyms``).
            capacity: declared, public.
            mapping: how batches are worked through, see :func:`~privacy.alignment.points.points_of`.

        Returns:
            ``capacity`` points, one after the other.

        Raises:
            CapacityError: more people than that.
            BlindingReuseError: this object has blinded a list before.
        """
        if self._has_list:
            raise BlindingReuseError("one run blinds one list", remedy="begin a new run")
        self._has_list = True
        padded = [""] * capacity
        for place, word in zip(self.places(len(words), capacity), words, strict=True):
            padded[place] = word
        filled = [word or self._derived("filling", place).hex() for place, word in enumerate(padded)]
        return points_of(filled, self._layer * pow(self._veil, -1, ORDER) % ORDER, mapping=mapping)

    def fitting(self, words: Sequence[str], capacity: int, epsilon: float) -> tuple[int, ...]:
        """Which words go into the list (:mod:`privacy.alignment.thinning`): their indices, ascending.

        The same secret and run give the same noise and coins, so a crash is no second look at the number.

        Args:
            words: all different.
            capacity: declared, public.
            epsilon: of one entry; paid before.

        Raises:
            GateEpsilonError: an epsilon for which no noise is drawn.
        """
        noise = WordSource(self._derived("surplus", 0))
        share = share_kept(len(words), capacity, epsilon, noise)
        return tuple(number for number, word in enumerate(words) if self._coin(word) < share)

    def places(self, num_words: int, capacity: int) -> Places:
        """Where each word stands in the list: (num_words,) different places below ``capacity``.

        Raises:
            CapacityError: more words than places.
        """
        if num_words > capacity:
            raise CapacityError(
                f"more people were kept than the declared capacity of {capacity:,}",
                where="alignment.capacity",
                remedy="propose the plan anew; chance does this once in 2^39 lists",
            )
        keys = [self._derived("order", place) for place in range(capacity)]
        order = sorted(range(capacity), key=keys.__getitem__)
        return np.array(order[:num_words], dtype=np.int64)

    def blind(self, points: bytes, count: int, *, where: str | None = None, mapping: Mapping = map) -> bytes:
        """Put this silo's layer on a peer's list, in its order.

        Args:
            points: ``count`` points, one after the other.
            count: the owner's declared capacity.
            where: who sent it, for the error.
            mapping: as :meth:`own_list`.

        Raises:
            PointsError: another number of bytes, a repeated point, or what is no point.
        """
        return multiplied(points, count, self._layer, where=where, mapping=mapping)

    def _scalar(self, purpose: str) -> int:
        """Uniform on 1 … ``ORDER - 1`` up to 2^-256: 512 bits reduced."""
        wide = self._derived(purpose, 0) + self._derived(purpose, 1)
        return int.from_bytes(wide, "big") % (ORDER - 1) + 1

    def _coin(self, word: str) -> float:
        """Uniform on [0, 1): of this word alone."""
        about = length_prefixed(b"archipel/blinding/v1", self._run.encode(), b"coin", word.encode())
        return (int.from_bytes(hmac.digest(self._secret, about, "sha256")[:8], "big") >> 11) / 2**53

    def _derived(self, purpose: str, number: int) -> bytes:
        about = (b"archipel/blinding/v1", self._run.encode(), purpose.encode(), number.to_bytes(8, "little"))
        return hmac.digest(self._secret, length_prefixed(*about), "sha256")
