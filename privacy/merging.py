"""A person's scores from a model that they may not see and features that its owner may not see.

The label silo has loadings ``W`` (items × k) and an offset ``b``, the feature silo the person's features
``z``; the person is to have ``W z + b`` and nothing else of ``W``. Both silos draw the same masks ``R`` and
``s`` from a key that they share, and each gives the person one message; neither hears from the other::

    label silo    D = W + R,  v = b + s
    feature silo  z,          t = R z + s
    the person    v + D z - t = W z + b

This is a protocol of private simultaneous messages (Feige, Kilian, Naor 1994; Ishai and Kushilevitz 1997).
All of it is in fixed point modulo 2^64, where it is exact.

Guarantees
    * To whoever lacks the key, ``D`` and ``v`` are uniform words; ``t`` follows from them, ``z`` and the
      result. So one merge tells the person the result, their features, and the exponent of the fixed point,
      which tells between which powers of two the largest number of ``W`` or ``b`` lies.
    * Neither silo learns anything: it receives nothing.
    * With other features than those that ``t`` was made of the result is noise, so within one merge nobody
      probes ``W`` with features of their choice.

Not guaranteed: the feature silo *together with* the person can take the masks off ``W``; the label silo
together with the person has ``z``. The result is exact: k + 1 merges of one ``W`` and ``b`` with independent
``z`` give both away, and many ``W`` and ``b`` of one person say more of what they were made of than one does.

A key masks one model and one vector of features; whoever derives it sees to that, and to it that all merges
of one person are of the same features and the same model.

==========================================  ==========================================================
edge                                        what happens
==========================================  ==========================================================
features beyond ±32, or no numbers          ``MergeError``
loadings that are no numbers                ``MergeError``
loadings and offset 0                       exponent 0: the masks are as uniform as ever
parts of two keys                           scores that are noise; the caller compares tickets first
==========================================  ==========================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.agreement import KEY_BYTES
from privacy.errors import DataError

Words = npt.NDArray[np.uint64]
Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

_LABEL = b"archipel/merging/v1"
MAX_FEATURES = 64
MAX_FEATURE = 32.0
_FEATURE_BITS = 24
_LOADING_BITS = 26
_OFFSET_BITS = 61
"""64 products of 29 and 26 bits, and an offset of 61, stay below 2^63 together."""


class MergeError(DataError):
    """Numbers that cannot be merged in fixed point, or parts whose sizes do not belong together."""

    code = "merge"


class MaskedModel(NamedTuple):
    """What the label silo gives the person.

    Attributes:
        loadings: (items, k) words.
        offset: (items,) words.
        exponent: of the loadings' fixed point.
    """

    loadings: Words
    offset: Words
    exponent: int


class UnmaskingFeatures(NamedTuple):
    """What the feature silo gives the person.

    Attributes:
        features: (k,) int64, in units of 2^-24.
        unmasking: (items,) words.
    """

    features: npt.NDArray[np.int64]
    unmasking: Words


@dataclass(frozen=True, eq=False, repr=False)
class MergeMasks:
    """The masks that both silos draw: (items, k) and (items,) words."""

    of_loadings: Words
    of_offset: Words

    @classmethod
    def draw(cls, key: bytes, num_items: int, num_features: int) -> MergeMasks:
        """Draw them from AES-256-CTR (NIST SP 800-38A), zero initial counter, little-endian words.

        Args:
            key: 32 bytes, for this one merge.
            num_items: rows of the loadings.
            num_features: their columns, at most 64.

        Raises:
            MergeError: more columns than whose products surely fit.
        """
        if num_features > MAX_FEATURES:
            raise MergeError(f"{num_features} features; at most {MAX_FEATURES} are merged")
        stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        words = np.frombuffer(stream.update(bytes(8 * num_items * (num_features + 1))), dtype="<u8")
        words = words.astype(np.uint64)
        split = num_items * num_features
        return cls(words[:split].reshape(num_items, num_features), words[split:])

    def mask(self, loadings: Matrix, offset: Vector) -> MaskedModel:
        """The label silo's message.

        Args:
            loadings: (items, k), per unit of feature.
            offset: (items,), what the scores are without features.

        Raises:
            MergeError: no numbers, or other sizes than the masks'.
        """
        if loadings.shape != self.of_loadings.shape or offset.shape != self.of_offset.shape:
            raise MergeError(f"loadings of shape {loadings.shape} with masks of {self.of_loadings.shape}")
        exponent = _exponent_of(loadings, offset)
        return MaskedModel(
            _fixed(loadings, exponent) + self.of_loadings,
            _fixed(offset, exponent + _FEATURE_BITS) + self.of_offset,
            exponent,
        )

    def unmask(self, features: Vector) -> UnmaskingFeatures:
        """The feature silo's message.

        Args:
            features: (k,), each within ±32.

        Raises:
            MergeError: they are not, or of another number than the masks.
        """
        if features.shape != self.of_loadings.shape[1:]:
            raise MergeError(f"{features.size} features with masks of {self.of_loadings.shape[1]}")
        if not (np.abs(features) <= MAX_FEATURE).all():
            raise MergeError(f"features that are no numbers within {MAX_FEATURE:g}")
        words = _fixed(features, _FEATURE_BITS)
        return UnmaskingFeatures(words.view(np.int64), self.of_loadings @ words + self.of_offset)


def key_of_merge(pair_key: bytes, ticket: bytes) -> bytes:
    """The key of the masks of one ticket, 32 bytes: HKDF-SHA256 (RFC 5869) with the ticket as salt.

    Args:
        pair_key: what both silos share, of purpose ``MERGE``.
        ticket: SHA-256 of all of the ticket.
    """
    return HKDF(SHA256(), KEY_BYTES, ticket, _LABEL).derive(pair_key)


def merged_scores(model: MaskedModel, of_person: UnmaskingFeatures) -> Vector:
    """Return ``W z + b`` on the person's side, (items,) float64, exact in its fixed point.

    Raises:
        MergeError: sizes that do not belong together.
    """
    num_items, num_features = model.loadings.shape
    sizes = (model.offset.size, of_person.unmasking.size, of_person.features.size)
    if sizes != (num_items, num_items, num_features):
        raise MergeError(
            f"a model of {num_items} items and {num_features} features with a part of "
            f"{of_person.unmasking.size} and {of_person.features.size}",
            remedy="take both parts from the same ticket",
        )
    words = model.offset + model.loadings @ of_person.features.view(np.uint64) - of_person.unmasking
    scores: Vector = np.ldexp(words.view(np.int64).astype(np.float64), -(model.exponent + _FEATURE_BITS))
    return scores


def _exponent_of(loadings: Matrix, offset: Vector) -> int:
    """The finest fixed point in which no sum overflows."""
    largest_loading = float(np.abs(loadings).max(initial=0.0))
    largest_offset = float(np.abs(offset).max(initial=0.0))
    if not math.isfinite(largest_loading + largest_offset):
        raise MergeError("loadings that are no numbers", remedy="run the job anew")
    rooms = [
        bits - math.frexp(largest)[1]
        for bits, largest in (
            (_LOADING_BITS, largest_loading),
            (_OFFSET_BITS - _FEATURE_BITS, largest_offset),
        )
        if largest
    ]
    return min(rooms, default=0)


def _fixed(values: npt.NDArray[np.float64], exponent: int) -> Words:
    return np.rint(np.ldexp(values, exponent)).astype(np.int64).view(np.uint64)
