"""Bulk bytes from one silo to another past a coordinator that must not read them.

A sealed file is ``salt (32) ‖ chunk …``. Its key is ``HKDF-SHA256(pair key, salt, info = context)``, fresh
for each file; each chunk is AES-256-GCM of up to 1 MiB under the nonce ``number of the chunk (11) ‖ is it the
last (1)``, as in STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015).

Guarantees
    * Chunks that were altered, exchanged, left out, repeated or cut off at the end do not open, nor does a
      file meant for another job, leg, sender or receiver, or of another number of records.
    * Memory is bounded by a chunk, whatever the size of the file.

====================  ==========================================================
edge                  what happens
====================  ==========================================================
an empty file         one empty last chunk; it can be cut off no more than others
a multiple of a chunk the last chunk is full, none is empty
sealed twice          two different files: keep the first to send it again
====================  ==========================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.agreement import KEY_BYTES, length_prefixed
from privacy.errors import TrustError

CHUNK_BYTES = 1 << 20
SALT_BYTES = 32
TAG_BYTES = 16
_LABEL = b"archipel/sealing/v1"


class SealError(TrustError):
    """A sealed file was altered, cut short, or is meant for somebody or something else."""

    code = "seal"


@dataclass(frozen=True)
class SealContext:
    """What a sealed file is, authenticated but not sent.

    Attributes:
        job_id: 64 hexadecimal digits.
        leg: number of the leg.
        sender: who seals.
        receiver: who opens.
        records: records in it.
    """

    job_id: str
    leg: int
    sender: str
    receiver: str
    records: int

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        numbers = (self.leg.to_bytes(8, "little"), self.records.to_bytes(8, "little"))
        names = (self.job_id.encode(), self.sender.encode(), self.receiver.encode())
        return length_prefixed(_LABEL, *names, *numbers)


def sealed_bytes(num_bytes: int) -> int:
    """Size of a sealed file of ``num_bytes``."""
    chunks = max(1, -(-num_bytes // CHUNK_BYTES))
    return SALT_BYTES + num_bytes + chunks * TAG_BYTES


def seal_file(pair_key: bytes, plain: Path, target: Path, context: SealContext) -> None:
    """Seal ``plain`` into ``target``; the caller makes that durable.

    Args:
        pair_key: 32 bytes, of purpose ``LEG``.
        plain: the file to seal.
        target: where the sealed one is written.
        context: what it is.
    """
    salt = os.urandom(SALT_BYTES)
    cipher, associated = _cipher(pair_key, salt, context), context.to_bytes()
    with plain.open("rb") as source, target.open("wb") as sink:
        sink.write(salt)
        for number, chunk, is_last in _chunks(source, CHUNK_BYTES):
            sink.write(cipher.encrypt(_nonce(number, is_last=is_last), chunk, associated))


def open_file(pair_key: bytes, sealed: Path, target: Path, context: SealContext) -> None:
    """Undo :func:`seal_file`; ``target`` is there only if all of it opened.

    Raises:
        SealError: see the guarantees.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with sealed.open("rb") as source, part.open("wb") as sink:
            salt = source.read(SALT_BYTES)
            cipher, associated = _cipher(pair_key, salt, context), context.to_bytes()
            for number, chunk, is_last in _chunks(source, CHUNK_BYTES + TAG_BYTES):
                sink.write(cipher.decrypt(_nonce(number, is_last=is_last), chunk, associated))
        part.replace(target)
    except (InvalidTag, ValueError) as error:
        raise SealError(
            f"what {context.sender} sealed to {context.receiver} in leg {context.leg} does not open",
            remedy="submit the plan again; if it repeats, that silo or the way to it is at fault",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _chunks(source: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """(number, bytes, whether it is the last) of each chunk; at least one."""
    number, chunk = 0, source.read(size)
    while True:
        following = source.read(size)
        yield number, chunk, not following
        if not following:
            return
        number, chunk = number + 1, following


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _cipher(pair_key: bytes, salt: bytes, context: SealContext) -> AESGCM:
    info = hashlib.sha256(context.to_bytes()).digest()
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, _LABEL + info).derive(pair_key))
