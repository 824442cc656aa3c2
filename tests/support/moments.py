"""What a label silo that looks closer can read, and sabotaged noise that it must not be given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tenseal import sealapi
from typing_extensions import override

from privacy.encryption.crossmoments.contexts import Passage, moments_context, moments_parameters
from privacy.encryption.crossmoments.feature import FeatureHalf
from privacy.encryption.crossmoments.frames import MomentsFrame
from privacy.encryption.crossmoments.label import LabelHalf
from privacy.encryption.crossmoments.noise import MomentsNoise, MomentsNoiseSource
from privacy.encryption.crossmoments.parameters import PRODUCT_SCALE, MomentsShape
from privacy.encryption.keyholder import expand_secret_key
from privacy.events import SAMPLER, GaussianEvent
from silo.vertical.moments.simulation import slots_of

NO_NOISE = GaussianEvent(noise_multiplier=1e-7, sampler=SAMPLER)


def label_rows(shape: MomentsShape, rng: np.random.Generator) -> np.ndarray:
    """0/1 rows as long as the shape allows; item 0 and the last one occur."""
    rows = np.zeros((shape.num_slots, shape.num_items))
    per_row = int(shape.max_row_norm**2)
    for row in rows:
        row[rng.choice(shape.num_items, per_row, replace=False)] = 1.0
    return rows


def feature_rows(shape: MomentsShape, rng: np.random.Generator) -> np.ndarray:
    """Random rows of norm 1."""
    rows = rng.normal(size=(shape.num_slots, shape.num_features))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def all_slots(label: LabelHalf, frames: list[bytes] | tuple[bytes, ...], kind: MomentsFrame) -> np.ndarray:
    """Every slot of each frame as the key holder decodes it: (frames, 2048) complex."""
    key = expand_secret_key(moments_parameters(), label.secret_bytes())
    decryptor, encoder = sealapi.Decryptor(moments_context(), key), sealapi.CKKSEncoder(moments_context())
    passage, plaintext, read = Passage(), sealapi.Plaintext(), []
    for frame in frames:
        decryptor.decrypt(passage.load_ciphertext(frame, kind), plaintext)
        read.append(encoder.decode_complex(plaintext))
    return np.array(read)


class RealOnlyNoise(MomentsNoiseSource):
    """Sabotage: noise as TenSEAL's own, real-only encoder would make it; on all slots, twice as much."""

    @override
    def draw(self, **options: object) -> MomentsNoise:
        polynomials, event = super().draw()
        mirrored = -np.roll(polynomials[..., ::-1], 1, axis=-1)
        mirrored[..., 0] *= -1
        return MomentsNoise(polynomials + mirrored, event)


class PlaintextNoise(FeatureHalf):
    """Sabotage: noise added to the ciphertext as a plaintext, so that its second polynomial has none."""

    @override
    def _noised(self, polynomials: np.ndarray) -> Iterator[bytes]:
        for sums, of_part in zip(self._sums, polynomials, strict=True):
            for total, polynomial in zip(sums, of_part, strict=True):
                plaintext = sealapi.Plaintext()
                self._encoder.encode(slots_of(polynomial).tolist(), float(PRODUCT_SCALE), plaintext)
                self._evaluator.add_plain_inplace(total, plaintext)
                yield self._passage.save(total, MomentsFrame.SUM)
