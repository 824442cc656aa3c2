from __future__ import annotations

import hashlib
import io
import os
import struct

import numpy as np
import pytest
from tenseal import sealapi

from privacy.encryption.contexts import seal_context, seal_parameters
from privacy.encryption.frames import (
    FULL_FRAME_BYTES,
    SEEDED_FRAME_BYTES,
    FrameError,
    FrameKind,
    check_frame,
    from_protobuf,
    read_stream,
    stream_bytes,
    to_protobuf,
    write_stream,
)
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.parameters import (
    COEFFICIENT_MODULUS_BITS,
    DATA_PRIME,
    PARAMETERS_ID,
    TENSEAL_VERSION,
    IncompatibleTensealError,
    check_tenseal_version,
)
from privacy.encryption.summation import Summation
from privacy.packing import PLAIN_MODULUS

COEFFICIENTS_AT = 123


@pytest.fixture(scope="module")
def seeded() -> bytes:
    return KeyHolder.generate().encrypt(np.arange(4096))


@pytest.fixture(scope="module")
def full(seeded: bytes) -> bytes:
    return Summation().sum_frames([seeded, seeded])


def test_constants_are_those_of_seal() -> None:
    parameters = seal_parameters()
    context = seal_context(parameters)
    primes = [prime.value() for prime in parameters.coeff_modulus()]
    assert primes[0] == DATA_PRIME
    assert tuple(prime.bit_length() for prime in primes) == COEFFICIENT_MODULUS_BITS
    assert struct.pack("<4Q", *context.first_parms_id()) == PARAMETERS_ID
    assert parameters.plain_modulus().value() == PLAIN_MODULUS


def test_the_parameters_are_128_bit_secure_by_seals_own_table() -> None:
    assert sum(COEFFICIENT_MODULUS_BITS) <= sealapi.CoeffModulus.MaxBitCount(
        4096, sealapi.SEC_LEVEL_TYPE.TC128
    )
    assert seal_context(seal_parameters()).parameters_set()


def test_190_additions_cannot_fail() -> None:
    # fresh noise: centred binomial of 42 coins, |e| <= 21, and half a unit from scaling by q / t
    worst = 190 * 21.5
    assert worst < DATA_PRIME / (2 * PLAIN_MODULUS)


def test_frames_are_8_05_and_16_03_bytes_per_slot(seeded: bytes, full: bytes) -> None:
    assert (len(seeded), len(full)) == (SEEDED_FRAME_BYTES, FULL_FRAME_BYTES) == (32_972, 65_659)
    assert check_frame(seeded) is FrameKind.SEEDED
    assert check_frame(full) is FrameKind.FULL


@pytest.mark.parametrize("kind", ["seeded", "full"])
def test_every_byte_outside_coefficients_and_seed_is_checked(
    kind: str, request: pytest.FixtureRequest
) -> None:
    frame: bytes = request.getfixturevalue(kind)
    words = 4096 if kind == "seeded" else 8192
    seed_header_at = COEFFICIENTS_AT + 8 * words
    constant = [*range(COEFFICIENTS_AT), *range(seed_header_at, min(seed_header_at + 17, len(frame)))]
    for at in constant:
        altered = bytearray(frame)
        altered[at] ^= 1
        with pytest.raises(FrameError):
            check_frame(bytes(altered))


@pytest.mark.parametrize("value", [DATA_PRIME, 2**64 - 1])
@pytest.mark.parametrize("at", [0, 4095, 4096, 8191])
def test_a_coefficient_out_of_range_is_refused(full: bytes, value: int, at: int) -> None:
    with pytest.raises(FrameError, match="out of range"):
        check_frame(with_words(full, at, [value]))
    check_frame(with_words(full, at, [DATA_PRIME - 1]))


@pytest.mark.parametrize(
    "zeros",
    [
        pytest.param((0, 4096), id="first"),
        pytest.param((4096, 4096), id="second"),
        pytest.param((0, 8192), id="both"),
    ],
)
def test_a_zero_polynomial_is_refused(full: bytes, zeros: tuple[int, int]) -> None:
    at, count = zeros
    with pytest.raises(FrameError, match="transparent"):
        check_frame(with_words(full, at, [0] * count))


def test_a_seeded_frame_of_zeros_is_refused(seeded: bytes) -> None:
    with pytest.raises(FrameError, match="transparent"):
        check_frame(with_words(seeded, 0, [0] * 4096))


def test_other_lengths_are_refused_with_the_name_of_the_sender(seeded: bytes) -> None:
    for frame in (b"", seeded[:-1], seeded + b"\0", seeded[:123]):
        with pytest.raises(FrameError, match="shop-a"):
            check_frame(frame, where="shop-a")


def test_a_protobuf_is_built_around_a_frame_and_taken_off_again(full: bytes, seeded: bytes) -> None:
    assert from_protobuf(to_protobuf(full)) == full
    for message in (to_protobuf(seeded), to_protobuf(full)[:-1], to_protobuf(full) + b"\0", b""):
        with pytest.raises(FrameError):
            from_protobuf(message)


def test_a_stream_is_what_its_summary_says(seeded: bytes, full: bytes) -> None:
    file = io.BytesIO()
    summary = write_stream(file, iter([seeded, full]))
    assert summary.num_frames == 2
    assert summary.num_bytes == len(file.getvalue()) == 4 + len(seeded) + 4 + len(full)
    assert summary.sha256 == hashlib.sha256(file.getvalue()).hexdigest()
    file.seek(0)
    assert list(read_stream(file, 2)) == [seeded, full]
    assert stream_bytes(3, FrameKind.SEEDED) == 3 * (4 + SEEDED_FRAME_BYTES)


def test_a_damaged_stream_is_refused(seeded: bytes) -> None:
    file = io.BytesIO()
    write_stream(file, [seeded, seeded])
    whole = file.getvalue()
    damaged = {
        "missing": whole[: len(whole) // 2],
        "cut short": whole[:-1],
        "missing or has no possible length": whole[: len(whole) // 2 + 2],
        "bytes follow": whole + b"\0",
        "no possible length": struct.pack("<I", 2**32 - 1) + whole[4:],
        "other parameters": whole[:4] + bytes([whole[4] ^ 1]) + whole[5:],
    }
    for reason, content in damaged.items():
        with pytest.raises(FrameError, match=reason):
            list(read_stream(io.BytesIO(content), 2, where="shop-a"))


def test_a_peer_with_another_tenseal_is_told_at_joining() -> None:
    assert check_tenseal_version(TENSEAL_VERSION, where="shop-a") == "0.3.18"
    for version in ("0.3.15", "", "0.3.18.1", os.urandom(100).hex()):
        with pytest.raises(IncompatibleTensealError, match="shop-a") as refusal:
            check_tenseal_version(version, where="shop-a")
        assert len(str(refusal.value)) < 250


def with_words(frame: bytes, at: int, words: list[int]) -> bytes:
    start = COEFFICIENTS_AT + 8 * at
    return frame[:start] + struct.pack(f"<{len(words)}Q", *words) + frame[start + 8 * len(words) :]
