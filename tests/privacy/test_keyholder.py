from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from privacy.encryption import keyholder
from privacy.encryption.frames import FrameError, FrameKind, check_frame
from privacy.encryption.keyholder import JobKeyError, KeyHolder
from privacy.encryption.summation import Summation
from privacy.packing import PLAIN_MODULUS

SLOTS = np.random.default_rng(0).integers(0, PLAIN_MODULUS, 4096)
ZEROS = np.zeros(4096, np.int64)


@pytest.fixture(scope="module")
def holder() -> KeyHolder:
    return KeyHolder.generate()


def opened(holder: KeyHolder, *frames: bytes) -> np.ndarray:
    return holder.decrypt(Summation().sum_frames(frames))


@pytest.mark.parametrize("value", [0, 1, PLAIN_MODULUS // 2, PLAIN_MODULUS // 2 + 1, PLAIN_MODULUS - 1])
def test_every_residue_survives(holder: KeyHolder, value: int) -> None:
    frame = holder.encrypt(np.full(4096, value))
    np.testing.assert_array_equal(opened(holder, frame, holder.encrypt(ZEROS)), np.full(4096, value))


def test_slots_keep_their_order(holder: KeyHolder) -> None:
    np.testing.assert_array_equal(opened(holder, holder.encrypt(SLOTS), holder.encrypt(ZEROS)), SLOTS)


def test_the_same_secret_is_the_same_key(holder: KeyHolder) -> None:
    other = KeyHolder.from_secret(holder.secret_bytes())
    assert other.secret_bytes() == holder.secret_bytes()
    np.testing.assert_array_equal(opened(other, holder.encrypt(SLOTS), other.encrypt(ZEROS)), SLOTS)


def test_another_key_opens_nothing(holder: KeyHolder) -> None:
    other = KeyHolder.generate()
    assert other.secret_bytes() != holder.secret_bytes()
    assert (opened(other, holder.encrypt(SLOTS), holder.encrypt(ZEROS)) == SLOTS).mean() < 0.01


def test_one_bit_of_the_secret_makes_another_key(holder: KeyHolder) -> None:
    secret = bytearray(holder.secret_bytes())
    secret[-1] ^= 0x80
    other = KeyHolder.from_secret(bytes(secret))
    assert (opened(other, holder.encrypt(SLOTS), holder.encrypt(ZEROS)) == SLOTS).mean() < 0.01


def test_the_seed_of_the_key_never_drives_an_encryption(holder: KeyHolder) -> None:
    twin = KeyHolder.from_secret(holder.secret_bytes())
    frames = [holder.encrypt(SLOTS), holder.encrypt(SLOTS), twin.encrypt(SLOTS), twin.encrypt(SLOTS)]
    seeds = {frame[-64:] for frame in frames}
    first_polynomials = {frame[123:-81] for frame in frames}
    assert len(seeds) == len(first_polynomials) == 4


def test_full_frames_where_the_host_has_no_memfd(holder: KeyHolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    without = KeyHolder.from_secret(holder.secret_bytes())
    frame = without.encrypt(SLOTS)
    assert check_frame(frame) is FrameKind.FULL
    assert check_frame(holder.encrypt(SLOTS)) is FrameKind.SEEDED
    assert without.encrypt(SLOTS) != frame
    np.testing.assert_array_equal(opened(holder, frame, holder.encrypt(ZEROS)), SLOTS)


def test_full_frames_where_the_host_refuses_a_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert check_frame(KeyHolder.generate().encrypt(SLOTS)) is FrameKind.FULL


def test_holders_leave_no_file_descriptor_behind() -> None:
    KeyHolder.generate()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        KeyHolder.generate().encrypt(ZEROS)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(JobKeyError):
        KeyHolder.from_secret(bytes(length))


@pytest.mark.parametrize(
    "slots",
    [ZEROS[:-1], np.full(4096, -1), np.full(4096, PLAIN_MODULUS), ZEROS.reshape(64, 64)],
)
def test_slots_that_are_no_residues_are_refused(holder: KeyHolder, slots: np.ndarray) -> None:
    with pytest.raises(FrameError):
        holder.encrypt(slots)


def test_a_single_silos_frame_is_not_opened(holder: KeyHolder) -> None:
    with pytest.raises(FrameError, match="only a sum"):
        holder.decrypt(holder.encrypt(SLOTS))


def test_the_noise_budget_is_never_exposed() -> None:
    public = [name for name in dir(KeyHolder) if not name.startswith("_")]
    assert public == ["decrypt", "encrypt", "from_secret", "generate", "secret_bytes"]
    assert "noise_budget" not in Path(keyholder.__file__).read_text("utf-8")
