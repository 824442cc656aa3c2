from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tenseal

from privacy.encryption import contexts
from privacy.encryption.contexts import TensealInstallationError, keyless_context_bytes, load_own_context
from privacy.encryption.frames import FrameError, to_protobuf
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.summation import Summation
from privacy.packing import PLAIN_MODULUS


@pytest.fixture(scope="module")
def holder() -> KeyHolder:
    return KeyHolder.generate()


@pytest.fixture(scope="module")
def slots() -> np.ndarray:
    return np.random.default_rng(0).integers(0, PLAIN_MODULUS, (5, 4096))


@pytest.fixture(scope="module")
def frames(holder: KeyHolder, slots: np.ndarray) -> list[bytes]:
    return [holder.encrypt(row) for row in slots]


def test_the_sum_is_exact_modulo_t(holder: KeyHolder, slots: np.ndarray, frames: list[bytes]) -> None:
    opened = holder.decrypt(Summation().sum_frames(frames))
    np.testing.assert_array_equal(opened, slots.sum(axis=0) % PLAIN_MODULUS)


def test_whoever_repeats_a_sum_gets_the_same_bytes(frames: list[bytes]) -> None:
    sums = {
        Summation().sum_frames(order)
        for order in itertools.islice(itertools.permutations(frames), 0, 120, 17)
    }
    assert len(sums) == 1


def test_full_frames_add_like_seeded_ones(holder: KeyHolder, slots: np.ndarray, frames: list[bytes]) -> None:
    summation = Summation()
    halves = [summation.sum_frames(frames[:2]), summation.sum_frames(frames[2:])]
    assert summation.sum_frames(halves) == summation.sum_frames(frames)
    mixed = summation.sum_frames([halves[0], *frames[2:]])
    np.testing.assert_array_equal(holder.decrypt(mixed), slots.sum(axis=0) % PLAIN_MODULUS)


def test_190_frames_open_exactly(holder: KeyHolder, slots: np.ndarray, frames: list[bytes]) -> None:
    many = list(itertools.islice(itertools.cycle(frames), 190))
    want = slots.astype(object).sum(axis=0) * 38 % PLAIN_MODULUS
    assert holder.decrypt(Summation().sum_frames(many)).tolist() == want.tolist()


@pytest.mark.parametrize("count", [0, 1, 191])
def test_too_few_or_too_many_frames_are_refused(frames: list[bytes], count: int) -> None:
    with pytest.raises(FrameError, match="2 to 190"):
        Summation().sum_frames(itertools.repeat(frames[0], count))


def test_a_bad_frame_leaves_the_summation_usable(frames: list[bytes]) -> None:
    summation = Summation()
    with pytest.raises(FrameError):
        summation.sum_frames([frames[0], frames[1][:-1], frames[2]])
    assert summation.sum_frames(frames) == Summation().sum_frames(frames)


def test_the_context_holds_no_key_and_can_neither_decrypt_nor_encrypt(frames: list[bytes]) -> None:
    context = load_own_context(keyless_context_bytes())
    assert not context.has_secret_key()
    vector = tenseal._ts_cpp.BFVVector(context.data, to_protobuf(frames[0]))
    with pytest.raises((RuntimeError, ValueError)):
        vector.decrypt()
    with pytest.raises((RuntimeError, ValueError)):
        tenseal.bfv_vector(context, [1])


def test_another_installed_tenseal_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts.tenseal, "__version__", "0.3.15")
    with pytest.raises(TensealInstallationError, match=r"0\.3\.15"):
        Summation()


def test_summing_never_loads_the_key_holder() -> None:
    code = (
        "import sys, privacy.encryption.summation;"
        "assert not {'privacy.encryption.keyholder', 'privacy.securesum'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_and_parameters_do_not_load_tenseal() -> None:
    code = "import sys, privacy.encryption.frames; assert 'tenseal' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
