"""SEAL objects of the constants, and the way of their bytes into and out of SEAL."""

from __future__ import annotations

import os
import tempfile
import weakref
from functools import cache
from typing import Protocol

import pyarrow as pa
from tenseal import sealapi

from privacy.encryption.contexts import seal_context
from privacy.encryption.crossmoments.frames import MomentsFrame, from_seal, to_seal
from privacy.encryption.crossmoments.parameters import COEFFICIENT_MODULUS_BITS, DEGREE
from privacy.encryption.frames import FrameError

_HEADER_BYTES = 16


def moments_parameters() -> sealapi.EncryptionParameters:
    """Return fresh SEAL parameters: CKKS, degree 4096, three primes of 36 bits."""
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, list(COEFFICIENT_MODULUS_BITS)))
    return parameters


@cache
def moments_context() -> sealapi.SEALContext:
    """Return the context of the constants, one in a process."""
    return seal_context(moments_parameters())


class Saved(Protocol):
    """What SEAL can write to a path."""

    def save(self, path: str, /) -> None:
        """Write it, compressed."""


class Passage:
    """Carries bytes to SEAL and back, which reads and writes paths only: through memory where there is memfd.

    Only ciphertexts and public keys pass: nothing secret may be saved through it.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("archipel-moments", os.MFD_CLOEXEC)
            self._path = f"/proc/self/fd/{self._file}"
        else:
            self._file, self._path = tempfile.mkstemp(prefix="archipel-moments-")
            weakref.finalize(self, os.unlink, self._path)
        weakref.finalize(self, os.close, self._file)
        self._zstd = pa.Codec("zstd")

    def save(self, value: Saved, kind: MomentsFrame) -> bytes:
        """Return SEAL's value as a frame."""
        return from_seal(self.content_of(value, kind.content_bytes), kind)

    def content_of(self, value: Saved, num_bytes: int) -> bytes:
        """Return what SEAL writes, decompressed and without its header.

        Raises:
            FrameError: it is not of that many bytes.
        """
        value.save(self._path)
        written = os.pread(self._file, os.fstat(self._file).st_size, 0)
        try:
            content: bytes = self._zstd.decompress(written[_HEADER_BYTES:], num_bytes, asbytes=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise FrameError("SEAL wrote a ciphertext of another shape") from error
        return content

    def load_ciphertext(
        self, frame: bytes, kind: MomentsFrame, *, where: str | None = None
    ) -> sealapi.Ciphertext:
        """Return the ciphertext of a frame, checked before SEAL sees it.

        Raises:
            FrameError: :func:`~privacy.encryption.crossmoments.frames.check_frame` or SEAL refuses it.
        """
        ciphertext = sealapi.Ciphertext()
        self.load(ciphertext, to_seal(frame, kind, where=where), where=where)
        return ciphertext

    def load_public_key(self, frame: bytes, *, where: str | None = None) -> sealapi.PublicKey:
        """Return the public key of a frame, checked before SEAL sees it."""
        key = sealapi.PublicKey()
        self.load(key, to_seal(frame, MomentsFrame.PUBLIC_KEY, where=where), where=where)
        return key

    def load(
        self, target: sealapi.Ciphertext | sealapi.PublicKey, serialised: bytes, *, where: str | None = None
    ) -> None:
        """Have SEAL read bytes that this process has put together."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, serialised, 0)
        try:
            target.load(moments_context(), self._path)
        except (RuntimeError, ValueError) as error:
            raise FrameError("a frame that SEAL does not load", where=where) from error
