"""What crosses the wire: one bare SEAL ciphertext per frame, checked to the byte before native code sees it.

A frame has one of two exact shapes (bytes)::

    16  SEAL header: magic 0xA15E, header size, version 4.3, zstd, total length
    10  zstd envelope of one raw block: fresh ciphertexts and their sums do not compress
    73  parameters id, not NTT, 2 polynomials, degree 4096, 1 prime, scale 1, correction factor 1
    24  SEAL header and length of the coefficients
     …  coefficients, u64 little-endian, each below the 60-bit prime
    seeded: 4096 coefficients, then 16 + 1 + 64 bytes: header, generator type, seed of the second polynomial
    full:   8192 coefficients

Everything but coefficients and seed is constant, so it is compared with what this code writes itself:
frames of other parameters, versions or compressions differ in it. TenSEAL's own protobuf never crosses
(four bytes of it crash the process); the receiver builds it around a checked frame.

A *stream* is the frames of one vector in a file, each after its length as u32 little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

import numpy as np

from privacy.encryption.parameters import DATA_PRIME, PARAMETERS_ID
from privacy.errors import ProtocolError
from privacy.packing import SLOTS_PER_FRAME

_STORED, _ZSTD = 0, 2
_SEED_BYTES = 64
_BLAKE2XB = 1
_WORD_BYTES = 8
_LENGTH_PREFIX = struct.Struct("<I")


class FrameError(ProtocolError):
    """Bytes that are no frame of this sum, or frames that cannot be added."""

    code = "frame"


def seal_header(content_bytes: int, compression: int = _STORED) -> bytes:
    """Return the 16 bytes that SEAL 4.3 writes before a value of so many bytes."""
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, compression, 0, 16 + content_bytes)


def _prefix(coefficients: int, trailer_bytes: int) -> bytes:
    """Return all bytes before the coefficients."""
    metadata = PARAMETERS_ID + struct.pack("<?QQQdQ", False, 2, SLOTS_PER_FRAME, 1, 1.0, 1)
    array = struct.pack("<Q", coefficients)
    array = seal_header(len(array) + _WORD_BYTES * coefficients) + array
    content = len(metadata) + len(array) + _WORD_BYTES * coefficients + trailer_bytes
    last_raw_block = (content << 3 | 1).to_bytes(3, "little")
    envelope = bytes.fromhex("28b52ffd60") + struct.pack("<H", content - 256) + last_raw_block
    return seal_header(len(envelope) + content, _ZSTD) + envelope + metadata + array


_SEED_HEADER = seal_header(1 + _SEED_BYTES) + bytes([_BLAKE2XB])


class FrameKind(Enum):
    """The two shapes of a frame; the value is (coefficients, bytes before the seed)."""

    SEEDED = (SLOTS_PER_FRAME, _SEED_HEADER)
    FULL = (2 * SLOTS_PER_FRAME, b"")

    def __init__(self, coefficients: int, seed_header: bytes) -> None:
        trailer = len(seed_header) + _SEED_BYTES if seed_header else 0
        self.coefficients = coefficients
        self.seed_header = seed_header
        self.prefix = _prefix(coefficients, trailer)
        self.num_bytes = len(self.prefix) + _WORD_BYTES * coefficients + trailer


SEEDED_FRAME_BYTES = FrameKind.SEEDED.num_bytes
FULL_FRAME_BYTES = FrameKind.FULL.num_bytes


def check_frame(frame: bytes, *, where: str | None = None) -> FrameKind:
    """Return the kind of a frame that may be given to native code.

    Guarantees: of an accepted frame, length and every byte outside coefficients and seed are those this
    code would write; no coefficient is out of range; no polynomial is zero (a zero second polynomial
    makes a ciphertext *transparent*: it carries its plaintext in the clear).

    Args:
        frame: bytes from anywhere.
        where: whose frame it is, for the error.

    Raises:
        FrameError: anything else.
    """
    kind = next((kind for kind in FrameKind if kind.num_bytes == len(frame)), None)
    if kind is None:
        raise FrameError(f"a frame of {len(frame)} bytes; {_sizes()} are possible", where=where)
    start = len(kind.prefix)
    end = start + _WORD_BYTES * kind.coefficients
    if frame[:start] != kind.prefix or not frame.startswith(kind.seed_header, end):
        raise FrameError(
            "a frame of other parameters, of another version or of another compression",
            where=where,
            remedy="check that all parties run the same version",
        )
    polynomials = np.frombuffer(frame, dtype="<u8", count=kind.coefficients, offset=start)
    if int(polynomials.max()) >= DATA_PRIME:
        raise FrameError("a frame with a coefficient out of range", where=where)
    if not polynomials.reshape(-1, SLOTS_PER_FRAME).any(axis=1).all():
        raise FrameError("a transparent frame: a polynomial of it is zero", where=where)
    return kind


def to_protobuf(frame: bytes) -> bytes:
    """Return a checked frame as the ``BFVVector`` message of 4096 slots that TenSEAL loads."""
    sizes = _varint(SLOTS_PER_FRAME)
    return protobuf_field(1, sizes) + protobuf_field(2, frame)


def from_protobuf(message: bytes) -> bytes:
    """Return the full frame inside a ``BFVVector`` message that *this process* has serialised.

    Raises:
        FrameError: it holds no full frame (a sum that became transparent, for example).
    """
    before = to_protobuf(bytes(FULL_FRAME_BYTES))[:-FULL_FRAME_BYTES]
    if not message.startswith(before):
        raise FrameError("a sum that is no full ciphertext")
    frame = message[len(before) :]
    check_frame(frame)
    return frame


def protobuf_field(number: int, content: bytes) -> bytes:
    """Return one length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


@dataclass(frozen=True)
class StreamSummary:
    """What the signed post about a stream says of it.

    Args:
        sha256: of the whole file, hexadecimal.
        num_bytes: of the whole file.
        num_frames: frames in it.
    """

    sha256: str
    num_bytes: int
    num_frames: int


def stream_bytes(num_frames: int, kind: FrameKind) -> int:
    """Return the size of the file that holds so many frames."""
    return num_frames * (_LENGTH_PREFIX.size + kind.num_bytes)


def write_stream(file: BinaryIO, frames: Iterable[bytes]) -> StreamSummary:
    """Write frames as they come, in the memory of one, and return what to sign about them."""
    digest = hashlib.sha256()
    num_bytes = num_frames = 0
    for frame in frames:
        record = _LENGTH_PREFIX.pack(len(frame)) + frame
        file.write(record)
        digest.update(record)
        num_bytes += len(record)
        num_frames += 1
    return StreamSummary(digest.hexdigest(), num_bytes, num_frames)


def read_stream(file: BinaryIO, num_frames: int, *, where: str | None = None) -> Iterator[bytes]:
    """Yield exactly ``num_frames`` checked frames, in the memory of one.

    Args:
        file: a stream, open for reading.
        num_frames: as the layout has it.
        where: whose stream it is, for the error.

    Raises:
        FrameError: fewer frames, one that :func:`check_frame` refuses, or bytes after the last.
    """
    for index in range(num_frames):
        prefix = file.read(_LENGTH_PREFIX.size)
        length = _LENGTH_PREFIX.unpack(prefix)[0] if len(prefix) == _LENGTH_PREFIX.size else 0
        if length not in (SEEDED_FRAME_BYTES, FULL_FRAME_BYTES):
            raise FrameError(
                f"frame {index} of {num_frames} is missing or has no possible length", where=where
            )
        frame = file.read(length)
        if len(frame) != length:
            raise FrameError(f"frame {index} of {num_frames} is cut short", where=where)
        check_frame(frame, where=where)
        yield frame
    if file.read(1):
        raise FrameError(f"bytes follow the last of {num_frames} frames", where=where)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _sizes() -> str:
    return " and ".join(str(kind.num_bytes) for kind in FrameKind)
