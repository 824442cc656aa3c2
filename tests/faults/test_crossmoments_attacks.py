"""A label silo that keeps to the protocol and computes what it can; and peers whose bytes are no frames.

The label silo knows its key, its rows and, by decrypting its own ciphertexts, the error of each encryption.
So it reads from every returned slot, real and imaginary, with an item or without, one noisy linear equation
in the features. Each test that finds nothing stands beside one where the same search finds something.
"""

from __future__ import annotations

import numpy as np
import pytest
from tenseal import sealapi

from privacy.encryption.contexts import seal_context
from privacy.encryption.crossmoments.feature import FeatureHalf
from privacy.encryption.crossmoments.frames import (
    LABEL_FRAME_BYTES,
    PUBLIC_KEY_BYTES,
    SUM_FRAME_BYTES,
    MomentsFrame,
    check_frame,
)
from privacy.encryption.crossmoments.label import LabelHalf, LabelRowError
from privacy.encryption.crossmoments.noise import MomentsNoiseSource
from privacy.encryption.crossmoments.parameters import DATA_PRIMES, DEGREE, MomentsShape
from privacy.encryption.frames import FrameError
from privacy.events import SAMPLER, GaussianEvent
from privacy.moments import BasisError, private_basis
from privacy.noise import RandomnessReuseError
from tests.support.moments import NO_NOISE, PlaintextNoise, RealOnlyNoise, all_slots, feature_rows, label_rows

NOISE_MULTIPLIER = 0.77  # the moments' 70 % of epsilon 8, delta 1e-5
SHAPE = MomentsShape(num_slots=150, num_items=900, num_features=4, max_row_norm=5**0.5)
PROMISED = GaussianEvent(noise_multiplier=NOISE_MULTIPLIER, sampler=SAMPLER)


class Observed:
    """One honest computation, as the label silo sees it."""

    def __init__(self, source: type[MomentsNoiseSource]) -> None:
        rng = np.random.default_rng(11)
        label = LabelHalf.generate(SHAPE)
        self.features = feature_rows(SHAPE, rng)
        feature = FeatureHalf(SHAPE, label.public_key())
        frames = list(label.encrypt(label_rows(SHAPE, rng)))
        feature.absorb(frames, self.features)
        returned = feature.release(source(PROMISED, SHAPE)).frames
        self.own = _parts(all_slots(label, frames, MomentsFrame.LABEL))
        self.sums = _parts(all_slots(label, returned, MomentsFrame.SUM))

    def errors(self, equations: np.ndarray) -> np.ndarray:
        """Error of each feature read by least squares from some of the 4096 equations."""
        solved = np.linalg.lstsq(self.own[:, equations].T, self.sums[:, equations].T, rcond=None)[0]
        return solved - self.features

    def errors_knowing_all_others(self) -> np.ndarray:
        """The same for each user in turn, if every other user's features are known: the DP adversary."""
        norms = np.square(self.own).sum(axis=1)
        noise = self.sums - self.features.T @ self.own
        return (self.own @ noise.T) / norms[:, None]


def _parts(slots: np.ndarray) -> np.ndarray:
    return np.concatenate([slots.real, slots.imag], axis=1)


EQUATIONS = {
    "all slots": np.arange(DEGREE),
    "imaginary slots": np.arange(DEGREE // 2, DEGREE),
    "unused slots": np.r_[SHAPE.num_items : DEGREE // 2, DEGREE // 2 + SHAPE.num_items : DEGREE],
}


@pytest.fixture(scope="module")
def honest() -> Observed:
    return Observed(MomentsNoiseSource)


@pytest.mark.parametrize("where", EQUATIONS)
def test_least_squares_with_own_key_and_errors_does_not_beat_the_bound(honest: Observed, where: str) -> None:
    error = np.sqrt(np.square(honest.errors(EQUATIONS[where])).mean())
    assert error >= 0.9 * NOISE_MULTIPLIER


def test_not_even_knowing_everybody_else_beats_the_bound(honest: Observed) -> None:
    error = np.sqrt(np.square(honest.errors_knowing_all_others()).mean())
    assert error >= 0.9 * NOISE_MULTIPLIER
    assert error <= 1.2 * NOISE_MULTIPLIER, "the noise is not as promised"


def test_real_only_noise_is_caught_reading_every_feature() -> None:
    sabotaged = Observed(RealOnlyNoise)
    error = np.abs(sabotaged.errors(EQUATIONS["imaginary slots"])).max()
    assert error < 1e-3


def guess_is_confirmed(half: type[FeatureHalf], error: float) -> bool:
    """Compare the second polynomial of what came back with that of the same sums for guessed features."""
    shape = MomentsShape(num_slots=4, num_items=20, num_features=2, max_row_norm=2.0)
    rng = np.random.default_rng(5)
    label = LabelHalf.generate(shape)
    frames, features = list(label.encrypt(label_rows(shape, rng))), feature_rows(shape, rng)
    guess = features.copy()
    guess[2, 0] *= 1 - error
    second = []
    for kind, rows in ((half, features), (PlaintextNoise, guess)):
        computation = kind(shape, label.public_key())
        computation.absorb(frames, rows)
        returned = computation.release(MomentsNoiseSource(PROMISED, shape)).frames
        second.append([check_frame(frame, MomentsFrame.SUM)[1] for frame in returned])
    return np.array_equal(second[0], second[1])


def test_a_guess_about_one_user_makes_no_transparent_ciphertext() -> None:
    assert not guess_is_confirmed(FeatureHalf, 0.0)
    assert not guess_is_confirmed(FeatureHalf, 0.1)


def test_noise_added_as_plaintext_is_caught_confirming_the_right_guess() -> None:
    assert guess_is_confirmed(PlaintextNoise, 0.0)
    assert not guess_is_confirmed(PlaintextNoise, 0.1)


def test_an_empty_slot_returns_as_fresh_as_any_other() -> None:
    shape = MomentsShape(num_slots=1, num_items=20, num_features=2, max_row_norm=2.0)
    label = LabelHalf.generate(shape)
    frames = list(label.encrypt(np.zeros((1, 20))))
    seen = set()
    for _ in range(3):
        feature = FeatureHalf(shape, label.public_key())
        feature.absorb(frames, np.zeros((1, 2)))
        seen.update(feature.release(MomentsNoiseSource(PROMISED, shape)).frames)
    assert len(seen) == 6


def test_a_basis_of_rows_without_noise_is_refused() -> None:
    rows = feature_rows(SHAPE, np.random.default_rng(0))
    with pytest.raises(BasisError, match="noised Gram"):
        private_basis(rows.T @ rows, 2)  # type: ignore[arg-type]


def test_one_noise_for_two_feature_silos_is_refused() -> None:
    label = LabelHalf.generate(SHAPE)
    source = MomentsNoiseSource(NO_NOISE, SHAPE)
    frames = list(label.encrypt(np.zeros((SHAPE.num_slots, SHAPE.num_items))))
    halves = [FeatureHalf(SHAPE, label.public_key()) for _ in range(2)]
    for half in halves:
        half.absorb(frames, np.zeros((SHAPE.num_slots, SHAPE.num_features)))
    halves[0].release(source)
    with pytest.raises(RandomnessReuseError):
        halves[1].release(source)


def test_a_row_longer_than_the_bound_stops_the_whole_block_before_its_first_frame() -> None:
    rows = np.zeros((2, SHAPE.num_items))
    rows[1, :6] = 1.0
    with pytest.raises(LabelRowError, match="1 rows"):
        LabelHalf.generate(SHAPE).encrypt(rows)


@pytest.fixture(scope="module")
def label() -> LabelHalf:
    return LabelHalf.generate(SHAPE)


@pytest.fixture(scope="module")
def label_frame(label: LabelHalf) -> bytes:
    return next(label.encrypt(np.zeros((1, SHAPE.num_items))))


def refused_everywhere(label: LabelHalf, frame: bytes) -> None:
    feature = FeatureHalf(SHAPE, label.public_key())
    with pytest.raises(FrameError):
        feature.absorb([frame], np.zeros((1, SHAPE.num_features)))
    with pytest.raises(FrameError):
        FeatureHalf(SHAPE, frame)
    with pytest.raises(FrameError):
        label.open([frame] * SHAPE.num_sums)


@pytest.mark.parametrize("length", [0, 1, LABEL_FRAME_BYTES - 1, LABEL_FRAME_BYTES + 1, 10**6])
def test_frames_of_another_length_are_refused(label: LabelHalf, length: int) -> None:
    refused_everywhere(label, bytes(length))


@pytest.mark.parametrize("length", [LABEL_FRAME_BYTES, SUM_FRAME_BYTES, PUBLIC_KEY_BYTES])
def test_garbage_of_the_right_length_is_refused(label: LabelHalf, length: int) -> None:
    refused_everywhere(label, b"\xff" * length)
    refused_everywhere(label, bytes(length))


def test_a_coefficient_of_the_prime_itself_is_refused(label_frame: bytes) -> None:
    for position, prime in ((0, DATA_PRIMES[0]), (DEGREE * 36 // 8, DATA_PRIMES[1])):
        first = int.from_bytes(label_frame[position : position + 9], "little") >> 36 << 36
        for value, is_fine in ((prime - 1, True), (prime, False)):
            pair = (first | value).to_bytes(9, "little")
            frame = label_frame[:position] + pair + label_frame[position + 9 :]
            if is_fine:
                check_frame(frame, MomentsFrame.LABEL)
            else:
                with pytest.raises(FrameError, match="out of range"):
                    check_frame(frame, MomentsFrame.LABEL)


def test_a_transparent_sum_and_a_zero_public_key_are_refused(label: LabelHalf) -> None:
    half = PUBLIC_KEY_BYTES // 2
    for zeroed in (slice(0, half), slice(half, PUBLIC_KEY_BYTES)):
        key = bytearray(label.public_key())
        key[zeroed] = bytes(half)
        with pytest.raises(FrameError, match="transparent"):
            FeatureHalf(SHAPE, bytes(key))


def test_ciphertexts_of_foreign_parameters_are_refused(label: LabelHalf, tmp_path: object) -> None:
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(8192)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(8192, [60, 40, 60]))
    context = seal_context(parameters)
    key = sealapi.PublicKey()
    sealapi.KeyGenerator(context).create_public_key(key)
    ciphertext = sealapi.Ciphertext()
    sealapi.Encryptor(context, key).encrypt_zero(ciphertext)
    for value in (key, ciphertext):
        path = f"{tmp_path}/foreign"
        value.save(path)
        with open(path, "rb") as file:
            refused_everywhere(label, file.read())


def test_bytes_of_a_peer_choose_no_parameter(label: LabelHalf, label_frame: bytes) -> None:
    """What SEAL reads besides coefficients and seed is the same for every accepted frame."""
    from privacy.encryption.crossmoments.frames import to_seal

    other = next(label.encrypt(np.eye(SHAPE.num_items)[:1]))
    start = len(MomentsFrame.LABEL.content_prefix) + 16
    one, two = (to_seal(frame, MomentsFrame.LABEL) for frame in (label_frame, other))
    assert one != two
    assert (one[:start], len(one)) == (two[:start], len(two))
