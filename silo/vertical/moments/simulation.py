"""Cross-moments of two silos in one process: for experiments and the demo, never for an agent.

Both ways draw the same noise by the same code and report its event. The clear one skips the encryption only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from privacy.encryption.crossmoments.noise import MomentsNoiseSource
from privacy.encryption.crossmoments.parameters import DEGREE, NUM_SLOTS, PRODUCT_SCALE, MomentsShape
from privacy.events import GaussianEvent
from privacy.moments import FeatureEvents, GramNoise, private_basis
from silo.vertical.joint.model import FeatureMoments, Matrix

BLOCK_SLOTS = 256


@dataclass(frozen=True, eq=False)
class SimulatedFeatures:
    """What one feature silo brings.

    Attributes:
        moments: as the label silo holds them.
        features: users × features, as each user's session would bring them.
        events: what the feature silo paid; empty without privacy.
    """

    moments: FeatureMoments
    features: Matrix
    events: tuple[GaussianEvent, ...]


def without_privacy(rows: sp.csr_matrix, feature_rows: Matrix, num_features: int) -> SimulatedFeatures:
    """Exact principal components and exact moments: what privacy is compared with."""
    basis = np.linalg.eigh(feature_rows.T @ feature_rows)[1][:, ::-1][:, :num_features]
    features: Matrix = feature_rows @ basis
    cross = np.asarray(rows.T @ features, dtype=np.float64)
    return SimulatedFeatures(FeatureMoments(cross, features.T @ features), features, ())


def with_privacy(
    rows: sp.csr_matrix,
    feature_rows: Matrix,
    num_features: int,
    events: FeatureEvents,
    *,
    shape: MomentsShape,
    is_encrypted: bool = False,
    progress: Callable[[int], None] | None = None,
) -> SimulatedFeatures:
    """Noised Gram, DP-PCA basis, noised moments.

    Args:
        rows: users × items of the label silo, row by row the spine.
        feature_rows: users × columns of the feature silo, of norm at most 1.
        num_features: k.
        events: what the feature silo pays for both releases.
        shape: what is computed; its sizes are those of ``rows`` and ``num_features``.
        is_encrypted: through CKKS, both halves in this process.
        progress: told how many slots are done, if encrypted.
    """
    noise = GramNoise(events.basis, rows_per_person=shape.rows_per_person)
    basis = private_basis(noise.noised_gram(feature_rows), num_features)
    features = basis.project(feature_rows)
    source = MomentsNoiseSource(events.moments, shape)
    if is_encrypted:
        cross, event = encrypted_moments(rows, features, shape, source, progress)
    else:
        cross, event = clear_moments(rows, features, source)
    return SimulatedFeatures(FeatureMoments(cross, basis.gram), features, (*basis.events, event))


def clear_moments(
    rows: sp.csr_matrix, features: Matrix, source: MomentsNoiseSource
) -> tuple[Matrix, GaussianEvent]:
    """Return ``Y^T Z`` with the noise that the encrypted way would carry, in the clear."""
    polynomials, event = source.draw()
    noise = slots_of(polynomials).sum(axis=0).T
    exact = np.asarray(rows.T @ features, dtype=np.float64)
    return exact + np.concatenate([noise.real, noise.imag])[: len(exact)], event


def encrypted_moments(
    rows: sp.csr_matrix,
    features: Matrix,
    shape: MomentsShape,
    source: MomentsNoiseSource,
    progress: Callable[[int], None] | None = None,
) -> tuple[Matrix, GaussianEvent]:
    """Return ``Y^T Z`` and its noise through the real encryption, block by block."""
    from privacy.encryption.crossmoments.feature import FeatureHalf
    from privacy.encryption.crossmoments.label import LabelHalf

    label = LabelHalf.generate(shape)
    feature = FeatureHalf(shape, label.public_key())
    for start in range(0, rows.shape[0], BLOCK_SLOTS):
        block = slice(start, start + BLOCK_SLOTS)
        feature.absorb(label.encrypt(rows[block].toarray()), features[block])
        if progress:
            progress(min(start + BLOCK_SLOTS, rows.shape[0]))
    noised = feature.release(source)
    return label.open(noised.frames).values, noised.event


def slots_of(polynomials: np.ndarray) -> np.ndarray:
    """Return the 2048 complex slots of integer polynomials at the product's scale (order is not SEAL's).

    Slot j is the polynomial at ``exp(iπ (2j + 1) / 4096)``: shape (…, 4096) int64 in, (…, 2048) complex out.
    """
    twist = np.exp(1j * np.pi * np.arange(DEGREE) / DEGREE)
    values = np.fft.ifft(polynomials * twist, axis=-1) * DEGREE
    return values[..., :NUM_SLOTS] / PRODUCT_SCALE
