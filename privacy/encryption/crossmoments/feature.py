"""The feature silo's half: products and sums of ciphertexts that it cannot open, and its noise on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tenseal import sealapi

from privacy.clipping import clip_rows
from privacy.encryption.crossmoments.contexts import Passage, moments_context
from privacy.encryption.crossmoments.frames import MomentsFrame, Words, seal_bytes
from privacy.encryption.crossmoments.noise import MomentsNoiseSource
from privacy.encryption.crossmoments.parameters import (
    DATA_PRIMES,
    DEGREE,
    PRODUCT_SCALE,
    SCALE,
    MomentsShape,
    MomentsShapeError,
)
from privacy.encryption.frames import FrameError
from privacy.events import GaussianEvent
from privacy.noise import NoiseError


class NoisedMoments(NamedTuple):
    """Sum frames in the order (part, feature), and the event of the noise that each of them carries."""

    frames: tuple[bytes, ...]
    event: GaussianEvent


class FeatureHalf:
    """Sums ``ẑ_u · Enc(y_u)`` over the spine, in the memory of ``num_sums`` ciphertexts of 131 kB.

    Guarantees: a feature row counts with norm at most 1, whatever was put in (not a number: nothing). Every
    row, an empty one too, takes the same arithmetic: a multiplier of 0 counts as 2^-28, which the sensitivity
    holds. Nothing leaves without one fresh encryption of the noise on each sum, and that once.

    Args:
        shape: what is computed, from the plan.
        public_key: the label silo's frame.
        where: the label silo's name, for errors.

    Raises:
        FrameError: no public key of these parameters.
    """

    def __init__(self, shape: MomentsShape, public_key: bytes, *, where: str | None = None) -> None:
        self.shape = shape
        self._where = where
        self._passage = Passage()
        context = moments_context()
        self._encryptor = sealapi.Encryptor(context, self._passage.load_public_key(public_key, where=where))
        self._evaluator = sealapi.Evaluator(context)
        self._encoder = sealapi.CKKSEncoder(context)
        self._sums: list[list[sealapi.Ciphertext | None]] = [
            [None] * shape.num_features for _ in range(shape.num_parts)
        ]
        self._num_absorbed = 0
        self._is_closed = False

    def absorb(self, frames: Iterable[bytes], features: npt.NDArray[np.floating]) -> None:
        """Add the next slots of the spine.

        Args:
            frames: the label silo's, one for each row of ``features``; read as they come.
            features: shape (slots, num_features), zero rows where nobody is.

        Raises:
            FrameError: a frame that is none; the computation is void then.
            MomentsShapeError: more or other rows than the shape has, or another number of frames.
        """
        if features.ndim != 2 or features.shape[1] != self.shape.num_features:
            raise MomentsShapeError(
                f"features of shape {features.shape}", where="features", remedy="project to num_features"
            )
        if self._num_absorbed + len(features) > self.shape.num_slots:
            raise MomentsShapeError("more slots than the spine has", remedy="absorb each slot once")
        self._check_open()
        # What ends early leaves part of the block in the sums: a second try would count people twice.
        self._is_closed = True
        multipliers = iter(integer_features(features).tolist())
        for frame in frames:
            row = next(multipliers, None)
            if row is None:
                raise MomentsShapeError("more frames than rows", where=self._where, remedy="begin anew")
            self._add(frame, row)
        if next(multipliers, None) is not None:
            raise MomentsShapeError("fewer frames than rows", where=self._where, remedy="begin anew")
        self._is_closed = False

    def release(self, noise: MomentsNoiseSource) -> NoisedMoments:
        """Return the sums of the whole spine, each with its noise as one fresh encryption.

        Raises:
            MomentsShapeError: slots are missing, or these moments were released before.
            NoiseError: the noise was made for other bounds or sizes.
            RandomnessReuseError: the noise was used before.
        """
        self._check_open()
        if self._num_absorbed != self.shape.num_slots:
            raise MomentsShapeError(
                f"{self._num_absorbed} of {self.shape.num_slots} slots were absorbed",
                remedy="absorb zero rows for empty slots",
            )
        if noise.shape != self.shape:
            raise NoiseError(
                "this noise was calibrated for another computation", remedy="derive both from the same plan"
            )
        polynomials, event = noise.draw()
        self._is_closed = True
        return NoisedMoments(tuple(self._noised(polynomials)), event)

    def _check_open(self) -> None:
        if self._is_closed:
            raise MomentsShapeError(
                "these sums were released, or a block of them was cut short",
                remedy="send the released frames again, or begin anew",
            )

    def _add(self, frame: bytes, multipliers: list[int]) -> None:
        row = self._passage.load_ciphertext(frame, MomentsFrame.LABEL, where=self._where)
        sums = self._sums[self._num_absorbed // self.shape.slots_per_part]
        factor = sealapi.Plaintext()
        for feature, multiplier in enumerate(multipliers):
            self._encoder.encode(multiplier / SCALE, float(SCALE), factor)
            product = sealapi.Ciphertext()
            self._evaluator.multiply_plain(row, factor, product)
            total = sums[feature]
            if total is None:
                sums[feature] = product
            else:
                self._add_inplace(total, product)
        self._num_absorbed += 1

    def _noised(self, polynomials: npt.NDArray[np.int64]) -> Iterator[bytes]:
        for sums, of_part in zip(self._sums, polynomials, strict=True):
            for total, polynomial in zip(sums, of_part, strict=True):
                noised = self._encrypt(polynomial)
                self._add_inplace(noised, total)
                yield self._passage.save(noised, MomentsFrame.SUM)

    def _add_inplace(self, total: sealapi.Ciphertext, other: sealapi.Ciphertext | None) -> None:
        try:
            self._evaluator.add_inplace(total, other)
        except (RuntimeError, ValueError) as error:
            raise FrameError("frames whose sum is transparent", where=self._where) from error

    def _encrypt(self, polynomial: npt.NDArray[np.int64]) -> sealapi.Ciphertext:
        """Return a fresh encryption of integer coefficients, exactly: no floating-point encoder is in it."""
        ciphertext = sealapi.Ciphertext()
        self._encryptor.encrypt_zero(ciphertext)
        ciphertext.scale = float(PRODUCT_SCALE)
        self._evaluator.transform_from_ntt_inplace(ciphertext)
        kind = MomentsFrame.POLYNOMIALS
        content = self._passage.content_of(ciphertext, kind.content_bytes)
        words = polynomials_in(content)
        primes = np.array(DATA_PRIMES)[:, None]
        words[0] = (words[0] + (polynomial % primes).astype(np.uint64)) % primes.astype(np.uint64)
        self._passage.load(ciphertext, seal_bytes(words, kind))
        self._evaluator.transform_to_ntt_inplace(ciphertext)
        return ciphertext


def polynomials_in(content: bytes) -> Words:
    """Return a copy of the coefficients that SEAL wrote: (2 polynomials, 2 primes, 4096) uint64."""
    kind = MomentsFrame.POLYNOMIALS
    words = np.frombuffer(content, dtype="<u8", count=kind.num_coefficients, offset=len(kind.content_prefix))
    return words.reshape(kind.num_polynomials, len(kind.primes), DEGREE).astype(np.uint64)


def integer_features(features: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return feature rows as integer multipliers of scale 2^28, none of them 0.

    Rows longer than 1 are shortened, then truncated towards zero, so their norm is at most 2^28; a multiplier
    of 0 becomes 1. Rows at most 1 apart (from a row of nobody too) are at most ``2^28 + 3√k`` apart then.
    """
    integers = np.trunc(clip_rows(features, 1.0) * SCALE).astype(np.int64)
    integers[integers == 0] = 1
    return integers
