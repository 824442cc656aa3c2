"""The half of the encryption that can decrypt. No code of the coordinator may import this module."""

from __future__ import annotations

import os
import struct
import weakref
from typing import Self

import numpy as np
from tenseal import _ts_cpp, sealapi

from privacy.encryption.contexts import (
    keyless_context_bytes,
    load_own_context,
    seal_context,
    seal_parameters,
)
from privacy.encryption.frames import (
    FrameError,
    FrameKind,
    check_frame,
    from_protobuf,
    protobuf_field,
    seal_header,
    to_protobuf,
)
from privacy.errors import ProtocolError
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME, Integers

SECRET_BYTES = 64
"""Length of the secret: a seed of SEAL's generator, from which the ternary key is expanded."""


class JobKeyError(ProtocolError):
    """Bytes from which no job key can be made."""

    code = "job_key"


class KeyHolder:
    """The BFV key of one job, in the memory of a silo.

    The key is expanded from 64 bytes by SEAL's own key generation (Blake2xb), so what silos hand each
    other is a string that native code never parses, and every 64 bytes are a valid key. The seed
    serves the key alone: encryptions draw their randomness from the operating system.

    Nothing here tells the noise budget of a ciphertext: it would be an oracle on modified sums.

    Args:
        secret: 64 bytes of :meth:`secret_bytes`.

    Raises:
        JobKeyError: another length.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise JobKeyError(f"a job key has {SECRET_BYTES} bytes, not {len(secret)}")
        self._secret = secret
        key = expand_secret_key(seal_parameters(), secret)
        private = protobuf_field(1, _serialise(key))
        self._context = load_own_context(keyless_context_bytes() + protobuf_field(3, private))
        self._seeded = _seeded_encryptor(key)

    @classmethod
    def generate(cls) -> Self:
        """Make a key from the operating system's generator (the roster's first silo does)."""
        return cls(os.urandom(SECRET_BYTES))

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """Rebuild the key from the 64 bytes that another silo wrapped, or from the outbox."""
        return cls(secret)

    def secret_bytes(self) -> bytes:
        """Return the 64 secret bytes, for wrapping and for the outbox only."""
        return self._secret

    def encrypt(self, slots: Integers) -> bytes:
        """Encrypt one frame's slots symmetrically, with fresh randomness.

        Args:
            slots: 4096 int64 in ``[0, t)``, already masked.

        Returns:
            A seeded frame (8.05 bytes per slot); a full one (16.03) on a host without memfd.

        Raises:
            FrameError: another number of slots, or a slot out of range.
        """
        if slots.shape != (SLOTS_PER_FRAME,) or int(slots.min()) < 0 or int(slots.max()) >= PLAIN_MODULUS:
            raise FrameError(f"a frame carries {SLOTS_PER_FRAME} slots of residues modulo t")
        centred: list[int] = np.where(slots > PLAIN_MODULUS // 2, slots - PLAIN_MODULUS, slots).tolist()
        if self._seeded is None:
            return from_protobuf(bytes(_ts_cpp.BFVVector(self._context.data, centred).serialize()))
        return self._seeded.encrypt(centred)

    def decrypt(self, frame: bytes) -> Integers:
        """Decrypt one full frame, the sum of a roster's frames.

        Returns:
            4096 int64 in ``[0, t)``.

        Raises:
            FrameError: no full frame of these parameters.
        """
        if check_frame(frame) is not FrameKind.FULL:
            raise FrameError("a single silo's frame is not opened, only a sum")
        try:
            centred = _ts_cpp.BFVVector(self._context.data, to_protobuf(frame)).decrypt()
        except (RuntimeError, ValueError) as error:
            raise FrameError("a frame that SEAL does not load") from error
        slots = np.array(centred, dtype=np.int64)
        slots += np.where(slots < 0, PLAIN_MODULUS, 0)
        return slots


class _SeededEncryptor:
    """Half-size ciphertexts: the seed of the second polynomial in its place.

    SEAL gives them only through ``save(path)``; a memfd keeps them off every disk.
    """

    def __init__(self, key: sealapi.SecretKey) -> None:
        self._file = os.memfd_create("archipel-frame", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._path = f"/proc/self/fd/{self._file}"
        context = seal_context(seal_parameters())
        self._encryptor = sealapi.Encryptor(context, key)
        self._encoder = sealapi.BatchEncoder(context)

    def encrypt(self, centred: list[int]) -> bytes:
        plaintext = sealapi.Plaintext()
        self._encoder.encode(centred, plaintext)
        self._encryptor.encrypt_symmetric(plaintext).save(self._path)
        frame = os.pread(self._file, os.fstat(self._file).st_size, 0)
        check_frame(frame)
        return frame


def _seeded_encryptor(key: sealapi.SecretKey) -> _SeededEncryptor | None:
    """Return the encryptor of half-size frames, or None where the host has no memfd or no /proc."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        encryptor = _SeededEncryptor(key)
        encryptor.encrypt([0] * SLOTS_PER_FRAME)
    except (OSError, RuntimeError):
        return None
    return encryptor


def expand_secret_key(parameters: sealapi.EncryptionParameters, secret: bytes) -> sealapi.SecretKey:
    """Expand 64 bytes into a ternary key; ``parameters``, given a fixed seed here, may serve nothing else."""
    parameters.set_random_generator(sealapi.Blake2xbPRNGFactory(list(struct.unpack("<8Q", secret))))
    return sealapi.KeyGenerator(seal_context(parameters)).secret_key()


def _serialise(key: sealapi.SecretKey) -> bytes:
    """Write the key as SEAL's own ``save`` would without compression, but into memory."""
    plaintext = key.data()
    words = np.array([plaintext[index] for index in range(plaintext.coeff_count())], dtype="<u8")
    array = struct.pack("<Q", len(words)) + words.tobytes()
    content = struct.pack("<4QQd", *key.parms_id(), len(words), 1.0)
    content += seal_header(len(array)) + array
    return seal_header(len(content)) + content
