from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from privacy.encryption.crossmoments.contexts import moments_context
from privacy.encryption.crossmoments.feature import FeatureHalf, integer_features
from privacy.encryption.crossmoments.frames import (
    LABEL_FRAME_BYTES,
    PUBLIC_KEY_BYTES,
    SUM_FRAME_BYTES,
    MomentsFrame,
)
from privacy.encryption.crossmoments.label import LabelHalf, LabelRowError, SealedMomentsError
from privacy.encryption.crossmoments.noise import MomentsNoiseSource, noise_std, row_shift
from privacy.encryption.crossmoments.parameters import (
    DATA_PARAMETERS_ID,
    ENCRYPTION_ERROR_NORM,
    SCALE,
    MomentsShape,
    MomentsShapeError,
)
from privacy.encryption.frames import FrameError
from privacy.encryption.keyholder import JobKeyError
from privacy.events import SAMPLER, GaussianEvent
from privacy.noise import NoiseError, RandomnessReuseError, unsafe_seeded_words
from silo.vertical.moments.simulation import slots_of
from tests.support.moments import NO_NOISE, all_slots, feature_rows, label_rows

SHAPE = MomentsShape(num_slots=24, num_items=1500, num_features=3, max_row_norm=5**0.5)


def event(noise_multiplier: float) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER)


def moments(
    shape: MomentsShape, rows: np.ndarray, features: np.ndarray, promised: GaussianEvent
) -> np.ndarray:
    label = LabelHalf.generate(shape)
    feature = FeatureHalf(shape, label.public_key())
    feature.absorb(label.encrypt(rows), features)
    return label.open(feature.release(MomentsNoiseSource(promised, shape)).frames).values


@pytest.mark.parametrize("num_items", [1, 1500, 2048, 2049, 4096])
def test_before_noise_the_encrypted_moments_are_the_clear_ones(num_items: int) -> None:
    shape = MomentsShape(24, num_items, 3, max_row_norm=min(5, num_items) ** 0.5)
    rng = np.random.default_rng(num_items)
    rows, features = label_rows(shape, rng), feature_rows(shape, rng)
    rows[3], features[5] = 0, 0
    found = moments(shape, rows, features, NO_NOISE)
    assert found.shape == (num_items, 3)
    np.testing.assert_allclose(found, rows.T @ features, atol=1e-4)


def test_a_sum_that_would_overflow_is_split_and_added_again() -> None:
    shape = MomentsShape(5, 10, 2, max_row_norm=8192.0, max_entry=8192.0)
    assert (shape.slots_per_part, shape.num_parts, shape.num_sums) == (2, 3, 6)
    rows = np.zeros((5, 10))
    rows[:, 4] = 8192.0
    features = np.tile([1.0, -0.0], (5, 1))
    found = moments(shape, rows, features, NO_NOISE)
    assert found[4, 0] == pytest.approx(5 * 8192, abs=0.5)
    assert MomentsShape(1 << 14, 10, 2, max_row_norm=2.0).num_parts == 1
    assert MomentsShape((1 << 14) + 1, 10, 2, max_row_norm=2.0).num_parts == 2


def test_a_label_frame_is_half_a_ciphertext_and_always_as_long() -> None:
    label = LabelHalf.generate(SHAPE)
    rows = label_rows(SHAPE, np.random.default_rng(0))
    rows[::2] = 0
    assert {len(frame) for frame in label.encrypt(rows)} == {LABEL_FRAME_BYTES} == {36_928}
    assert len(label.public_key()) == PUBLIC_KEY_BYTES
    assert LABEL_FRAME_BYTES <= 45_000


def test_one_row_is_encrypted_afresh_each_time() -> None:
    label = LabelHalf.generate(SHAPE)
    rows = np.zeros((SHAPE.num_slots, SHAPE.num_items))
    frames = list(label.encrypt(rows))
    assert len({frame[-64:] for frame in frames}) == len(frames)
    assert label.public_key() != label.public_key()


def test_the_constants_are_those_of_seal() -> None:
    identity = b"".join(word.to_bytes(8, "little") for word in moments_context().first_parms_id())
    assert identity == DATA_PARAMETERS_ID


def test_the_secret_rebuilds_the_key() -> None:
    label = LabelHalf.generate(SHAPE)
    again = LabelHalf(SHAPE, label.secret_bytes())
    feature = FeatureHalf(SHAPE, label.public_key())
    rng = np.random.default_rng(1)
    rows, features = label_rows(SHAPE, rng), feature_rows(SHAPE, rng)
    feature.absorb(label.encrypt(rows[:10]), features[:10])
    feature.absorb(again.encrypt(rows[10:]), features[10:])
    frames = feature.release(MomentsNoiseSource(NO_NOISE, SHAPE)).frames
    np.testing.assert_allclose(again.open(frames).values, rows.T @ features, atol=1e-4)
    with pytest.raises(JobKeyError):
        LabelHalf(SHAPE, bytes(63))


def test_noise_is_on_all_slots_in_both_parts_as_promised() -> None:
    promised = event(1.5)
    label = LabelHalf.generate(SHAPE)
    feature = FeatureHalf(SHAPE, label.public_key())
    zeros = np.zeros((SHAPE.num_slots, SHAPE.num_items))
    feature.absorb(label.encrypt(zeros), np.zeros((SHAPE.num_slots, 3)))
    noised = feature.release(MomentsNoiseSource(promised, SHAPE))
    assert noised.event == promised
    assert {len(frame) for frame in noised.frames} == {SUM_FRAME_BYTES}
    slots = all_slots(label, noised.frames, MomentsFrame.SUM)
    expected = noise_std(1.5, SHAPE)
    assert expected == pytest.approx(1.5 * (5**0.5 + 0.001), rel=1e-6)
    for part in (slots.real, slots.imag):
        assert part[:, : SHAPE.num_items].std() == pytest.approx(expected, rel=0.06)
        assert part[:, SHAPE.num_items :].std() == pytest.approx(expected, rel=0.1)
    assert abs(np.corrcoef(slots.real.ravel(), slots.imag.ravel())[0, 1]) < 0.06


def test_clear_noise_is_the_noise_that_is_decoded() -> None:
    polynomials, drawn = MomentsNoiseSource(event(2.0), SHAPE).draw(unsafe_source=unsafe_seeded_words(3))
    assert drawn == event(2.0)
    slots = slots_of(polynomials)
    assert slots.shape == (1, 3, 2048)
    assert slots.real.std() == pytest.approx(noise_std(2.0, SHAPE), rel=0.05)
    assert slots.imag.std() == pytest.approx(noise_std(2.0, SHAPE), rel=0.05)


def test_noise_covers_the_low_digits_too() -> None:
    polynomials, _ = MomentsNoiseSource(event(1.0), SHAPE).draw(unsafe_source=unsafe_seeded_words(5))
    low = polynomials & 0xFF
    counts = np.bincount(low.ravel(), minlength=256)
    assert counts.min() > 0.5 * counts.mean()
    assert counts.max() < 1.5 * counts.mean()


@pytest.mark.parametrize("multiplier", [1e-6, 0.6, 5.0, 1000.0])
def test_noise_multiplier_refers_to_rounding_and_encryption_error(multiplier: float) -> None:
    source = MomentsNoiseSource(event(multiplier), SHAPE)
    polynomials, _ = source.draw(unsafe_source=unsafe_seeded_words(1))
    assert polynomials.shape == (1, 3, 4096)
    if multiplier > 0.1:
        assert polynomials.std() >= 0.97 * multiplier * row_shift(SHAPE)
        assert polynomials.std() <= 1.03 * multiplier * row_shift(SHAPE)


def test_a_row_moves_the_encrypted_sum_by_no_more_than_the_sensitivity() -> None:
    shape = MomentsShape(1, 4096, 2, max_row_norm=5**0.5)
    rng = np.random.default_rng(3)
    label = LabelHalf.generate(shape)
    for _ in range(20):
        frame = list(label.encrypt(label_rows(shape, rng)))
        encoded = np.linalg.norm(all_slots(label, frame, MomentsFrame.LABEL))
        assert encoded <= shape.max_row_norm + ENCRYPTION_ERROR_NORM
        row = rng.normal(size=(1, 2)) * 10
        moved = np.linalg.norm(integer_features(row) - integer_features(np.zeros((1, 2))))
        assert moved <= SCALE + 2 * np.sqrt(2)


def test_a_node_of_a_graph_pays_for_each_row_it_is_in() -> None:
    graph = MomentsShape(24, 1500, 3, max_row_norm=5**0.5, rows_per_person=1 + 7)
    assert noise_std(1.0, graph) == pytest.approx(8 * noise_std(1.0, SHAPE))
    drawn = MomentsNoiseSource(event(1.0), graph).draw(unsafe_source=unsafe_seeded_words(1))
    assert drawn.event == event(1.0)
    assert slots_of(drawn.polynomials).real.std() == pytest.approx(8 * noise_std(1.0, SHAPE), rel=0.05)


def test_noise_that_would_overflow_is_refused() -> None:
    with pytest.raises(NoiseError, match="overflow"):
        MomentsNoiseSource(event(30_000.0), SHAPE)


def test_multipliers_are_never_zero_and_never_longer_than_one() -> None:
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [np.nan, 1.0], [1e-30, -1.0]])
    integers = integer_features(rows)
    assert (integers != 0).all()
    assert (np.linalg.norm(integers[1:2].astype(float), axis=1) <= SCALE).all()
    np.testing.assert_array_equal(integers[[0, 2]], np.ones((2, 2)))


def test_moments_are_released_once_and_only_whole() -> None:
    label = LabelHalf.generate(SHAPE)
    feature = FeatureHalf(SHAPE, label.public_key())
    rows, features = np.zeros((24, 1500)), np.zeros((24, 3))
    feature.absorb(label.encrypt(rows[:23]), features[:23])
    with pytest.raises(MomentsShapeError, match="23 of 24"):
        feature.release(MomentsNoiseSource(NO_NOISE, SHAPE))
    with pytest.raises(MomentsShapeError, match="more slots"):
        feature.absorb(label.encrypt(rows[:2]), features[:2])
    feature.absorb(label.encrypt(rows[:1]), features[:1])
    feature.release(MomentsNoiseSource(NO_NOISE, SHAPE))
    with pytest.raises(MomentsShapeError, match="released"):
        feature.release(MomentsNoiseSource(NO_NOISE, SHAPE))
    with pytest.raises(MomentsShapeError, match="released"):
        feature.absorb(iter(()), features[:0])


@pytest.mark.parametrize("changes", [{"max_row_norm": 1.0}, {"rows_per_person": 1}, {"max_entry": 2.0}])
def test_noise_for_a_shorter_row_or_fewer_rows_is_refused(changes: dict[str, float]) -> None:
    shape = replace(SHAPE, num_slots=3, rows_per_person=2)
    label = LabelHalf.generate(shape)
    feature = FeatureHalf(shape, label.public_key())
    feature.absorb(label.encrypt(np.zeros((3, 1500))), np.zeros((3, 3)))
    with pytest.raises(NoiseError, match="another computation"):
        feature.release(MomentsNoiseSource(NO_NOISE, replace(shape, **changes)))
    feature.release(MomentsNoiseSource(NO_NOISE, shape))


@pytest.mark.parametrize(("num_frames", "spoiled"), [(1, None), (3, None), (2, 1)])
def test_a_block_that_was_cut_short_cannot_be_tried_again(num_frames: int, spoiled: int | None) -> None:
    label = LabelHalf.generate(SHAPE)
    frames = list(label.encrypt(np.zeros((num_frames, 1500))))
    if spoiled is not None:
        frames[spoiled] = frames[spoiled][:-1]
    feature = FeatureHalf(SHAPE, label.public_key())
    with pytest.raises((MomentsShapeError, FrameError)):
        feature.absorb(frames, np.zeros((2, 3)))
    with pytest.raises(MomentsShapeError, match="cut short"):
        feature.absorb(label.encrypt(np.zeros((2, 1500))), np.zeros((2, 3)))
    with pytest.raises(MomentsShapeError, match="cut short"):
        feature.release(MomentsNoiseSource(NO_NOISE, SHAPE))


def test_equal_noise_for_two_releases_is_refused() -> None:
    source = MomentsNoiseSource(NO_NOISE, SHAPE)
    source.draw()
    with pytest.raises(RandomnessReuseError):
        source.draw()


@pytest.mark.parametrize(
    "row", [np.ones(1500), np.r_[2.0, np.zeros(1499)], np.r_[np.nan, np.zeros(1499)], -2 * np.eye(1500)[0]]
)
def test_a_longer_row_than_the_noise_was_made_for_is_refused(row: np.ndarray) -> None:
    with pytest.raises(LabelRowError):
        LabelHalf.generate(SHAPE).encrypt(row[None, :])


def test_opened_moments_are_neither_pickled_nor_printed() -> None:
    label = LabelHalf.generate(SHAPE)
    feature = FeatureHalf(SHAPE, label.public_key())
    feature.absorb(label.encrypt(np.zeros((24, 1500))), np.zeros((24, 3)))
    opened = label.open(feature.release(MomentsNoiseSource(event(1.0), SHAPE)).frames)
    assert repr(opened) == "OpenedMoments(1500 items, 3 features)"
    assert str(opened) == repr(opened)
    with pytest.raises(SealedMomentsError):
        pickle.dumps(opened)
    assert label.secret_bytes().hex() not in repr(label)


def test_the_half_that_computes_loads_nothing_that_decrypts() -> None:
    program = (
        "import sys, privacy.encryption.crossmoments.feature, privacy.moments\n"
        "key_side = {'privacy.encryption.keyholder', 'privacy.encryption.crossmoments.label'}\n"
        "assert not key_side & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_items": 4097},
        {"num_slots": 0},
        {"num_features": 0},
        {"max_row_norm": float("nan")},
        {"max_entry": 3.0},
        {"rows_per_person": 0},
        {"max_row_norm": 0.0},
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, float]) -> None:
    fields = {"num_slots": 24, "num_items": 1500, "num_features": 3, "max_row_norm": 5**0.5} | changes
    with pytest.raises(MomentsShapeError) as refused:
        MomentsShape(**fields)
    assert refused.value.where == next(iter(changes))
