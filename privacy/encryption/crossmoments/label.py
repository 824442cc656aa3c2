"""The label silo's half, which can decrypt. The feature silo's half may not import this module."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
from tenseal import sealapi

from privacy.encryption.crossmoments.contexts import Passage, moments_context, moments_parameters
from privacy.encryption.crossmoments.frames import MomentsFrame
from privacy.encryption.crossmoments.parameters import NUM_SLOTS, SCALE, MomentsShape, MomentsShapeError
from privacy.encryption.keyholder import SECRET_BYTES, JobKeyError, expand_secret_key
from privacy.errors import DeniedError

_NORM_TOLERANCE = 1e-9


class LabelRowError(DeniedError):
    """A label row longer than the noise was made for. Nothing was sent."""

    code = "label_row"


class SealedMomentsError(DeniedError):
    """Opened moments were about to be written somewhere."""

    code = "sealed_moments"


class OpenedMoments:
    """Noised moments as the label silo opened them. They cannot be pickled or printed.

    The low digits of a CKKS decryption depend on the secret key (Li, Micciancio 2021), so it goes to nobody.

    Attributes:
        values: items × features float64.
    """

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"OpenedMoments({self.values.shape[0]} items, {self.values.shape[1]} features)"

    def __reduce__(self) -> NoReturn:
        raise SealedMomentsError(
            "opened moments stay in the process that opened them", remedy="keep the model, or the frames"
        )


class LabelHalf:
    """The CKKS key of one job. Encrypts rows of labels and opens the noised sums.

    The key is expanded from 64 bytes by SEAL's key generation; encryptions and the public key draw from the
    operating system. There are no Galois and no relinearisation keys.

    Args:
        shape: what is computed, from the plan.
        secret: 64 bytes of :meth:`secret_bytes`.

    Raises:
        JobKeyError: another length.
    """

    def __init__(self, shape: MomentsShape, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise JobKeyError(f"a job key has {SECRET_BYTES} bytes, not {len(secret)}")
        self.shape = shape
        self._secret = secret
        self._passage = Passage()
        context = moments_context()
        self._key = expand_secret_key(moments_parameters(), secret)
        self._encryptor = sealapi.Encryptor(context, self._key)
        self._decryptor = sealapi.Decryptor(context, self._key)
        self._encoder = sealapi.CKKSEncoder(context)

    @classmethod
    def generate(cls, shape: MomentsShape) -> Self:
        """Make a key from the operating system's generator."""
        return cls(shape, os.urandom(SECRET_BYTES))

    def __repr__(self) -> str:
        return f"LabelHalf({self.shape})"

    def secret_bytes(self) -> bytes:
        """Return the 64 secret bytes, for this silo's own recovery only: nobody else may have them."""
        return self._secret

    def public_key(self) -> bytes:
        """Return a public key as a frame; each call makes another, of the same secret."""
        key = sealapi.PublicKey()
        sealapi.KeyGenerator(moments_context(), self._key).create_public_key(key)
        return self._passage.save(key, MomentsFrame.PUBLIC_KEY)

    def encrypt(self, rows: npt.NDArray[np.floating]) -> Iterator[bytes]:
        """Encrypt the rows of some slots, each afresh, as they are asked for.

        Args:
            rows: shape (slots, num_items), zero rows where nobody is.

        Yields:
            One label frame (36,928 bytes) a row.

        Raises:
            LabelRowError: a row is longer than ``max_row_norm``, an entry larger than ``max_entry``, or not a
                number; raised before the first frame.
        """
        if rows.ndim != 2 or rows.shape[1] != self.shape.num_items:
            raise MomentsShapeError(
                f"rows of shape {rows.shape}", where="rows", remedy="use the plan's items"
            )
        values = rows.astype(np.float64)
        norms = np.linalg.norm(values, axis=1)
        bounds = self.shape.max_row_norm, self.shape.max_entry
        allowed = (norms <= bounds[0] + _NORM_TOLERANCE) & (np.abs(values).max(axis=1) <= bounds[1])
        if not allowed.all():
            raise LabelRowError(
                f"{np.count_nonzero(~allowed)} rows exceed norm {bounds[0]:g} or entry {bounds[1]:g}",
                where="rows",
                remedy="cap the items per user, or scale the rows",
            )
        return map(self._encrypt, values)

    def open(self, frames: Sequence[bytes], *, where: str | None = None) -> OpenedMoments:
        """Decrypt the noised sums, parts added.

        Args:
            frames: ``num_sums`` sum frames in the order (part, feature).
            where: the feature silo's name, for errors.

        Raises:
            FrameError: a frame that is none.
            MomentsShapeError: another number of frames.
        """
        if len(frames) != self.shape.num_sums:
            raise MomentsShapeError(
                f"{len(frames)} sums where {self.shape.num_sums} are due",
                where=where,
                remedy="compare the plans",
            )
        moments = np.zeros((self.shape.num_items, self.shape.num_features))
        for index, frame in enumerate(frames):
            moments[:, index % self.shape.num_features] += self._open(frame, where)
        return OpenedMoments(moments)

    def _encrypt(self, row: npt.NDArray[np.float64]) -> bytes:
        slots = np.zeros(NUM_SLOTS, dtype=np.complex128)
        slots.real[: min(NUM_SLOTS, row.size)] = row[:NUM_SLOTS]
        slots.imag[: max(0, row.size - NUM_SLOTS)] = row[NUM_SLOTS:]
        plaintext = sealapi.Plaintext()
        self._encoder.encode(slots.tolist(), float(SCALE), plaintext)
        return self._passage.save(self._encryptor.encrypt_symmetric(plaintext), MomentsFrame.LABEL)

    def _open(self, frame: bytes, where: str | None) -> npt.NDArray[np.float64]:
        ciphertext = self._passage.load_ciphertext(frame, MomentsFrame.SUM, where=where)
        plaintext = sealapi.Plaintext()
        self._decryptor.decrypt(ciphertext, plaintext)
        slots = np.array(self._encoder.decode_complex(plaintext))
        return np.concatenate([slots.real, slots.imag])[: self.shape.num_items]
