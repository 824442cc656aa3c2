"""Linear algebra finds the BFV key of an encryption without error, and nothing in a real one."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.encryption.frames import FrameError, FrameKind
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.parameters import DATA_PRIME
from privacy.encryption.recovery import is_ternary, multiply, solve_for_key
from privacy.encryption.summation import Summation
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME
from tests.support.errorless import encrypt_without_error, key_of


@pytest.fixture(scope="module")
def slots() -> NDArray[np.int64]:
    return np.random.default_rng(3).integers(0, PLAIN_MODULUS, SLOTS_PER_FRAME)


@pytest.fixture(scope="module")
def key() -> list[int]:
    return np.random.default_rng(4).integers(-1, 2, SLOTS_PER_FRAME).tolist()


def test_products_are_negacyclic() -> None:
    one = [0] * SLOTS_PER_FRAME
    one[-1] = 1
    x = [0, 1] + [0] * (SLOTS_PER_FRAME - 2)
    assert multiply(one, x) == [DATA_PRIME - 1] + [0] * (SLOTS_PER_FRAME - 1)


def test_a_frame_encrypted_without_error_gives_its_key_away(slots: NDArray[np.int64], key: list[int]) -> None:
    found = solve_for_key(encrypt_without_error(slots, key), slots)
    assert is_ternary(found)
    np.testing.assert_array_equal(found, key)


def test_an_error_of_one_in_one_coefficient_makes_it_garbage(
    slots: NDArray[np.int64], key: list[int]
) -> None:
    frame = encrypt_without_error(slots, key)
    start = len(FrameKind.FULL.prefix)
    words = np.frombuffer(frame, "<u8", 2 * SLOTS_PER_FRAME, offset=start).copy()
    words[7] = (int(words[7]) + 1) % DATA_PRIME
    found = solve_for_key(frame[:start] + words.tobytes(), slots)
    assert not is_ternary(found)
    assert np.abs(found).max() > DATA_PRIME // 4


def test_a_real_frame_gives_garbage(slots: NDArray[np.int64]) -> None:
    holder, summation = KeyHolder(secrets.token_bytes(64)), Summation()
    frame = summation.expand(holder.encrypt(slots))
    # The expanded frame is the same ciphertext: with an encryption of zero it opens to the same slots.
    zeros = holder.encrypt(np.zeros(SLOTS_PER_FRAME, np.int64))
    np.testing.assert_array_equal(holder.decrypt(summation.sum_frames([frame, zeros])), slots)
    assert not is_ternary(solve_for_key(frame, slots))


def test_scaling_and_products_are_seals(slots: NDArray[np.int64]) -> None:
    """SEAL itself opens a frame made here under its own key, so a real key would be recognised as one."""
    secret = secrets.token_bytes(64)
    key = key_of(secret)
    assert is_ternary(np.array(key))
    frame = encrypt_without_error(slots, key)
    holder = KeyHolder(secret)
    zeros = holder.encrypt(np.zeros(SLOTS_PER_FRAME, np.int64))
    np.testing.assert_array_equal(holder.decrypt(Summation().sum_frames([frame, zeros])), slots)


def test_a_seeded_frame_is_refused(slots: NDArray[np.int64]) -> None:
    frame = KeyHolder(secrets.token_bytes(64)).encrypt(slots)
    with pytest.raises(FrameError):
        solve_for_key(frame, slots)
