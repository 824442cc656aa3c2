"""The space that all silos of a plan place their items in: whitened vectors of public texts.

It is fitted on the plan's reference texts alone, never on rows and never on a silo's own list, so every
silo finds the same one and an item has one place whoever sells it. Every processor computes its own copy;
the map is a *continuous* function of the reference vectors (fixed start, fixed number of steps, positive
triangular factors, a symmetric root), so copies agree to about the precision of those vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.models.features import orthonormal, public_uniform

if TYPE_CHECKING:
    from silo.language.adapters.texts import AdaptableTexts

LEAST_SHARE: Final = 1e-3
"""Directions with less than this share of the largest variance are not stretched any further."""
LEAST_SPREAD: Final = 1e-6
"""Below this share of the largest variance a direction may be rounding errors, and each processor's own."""
LEAST_LENGTH: Final = 1e-6
LEAST_VARIANCE: Final = 1e-9

_STEPS: Final = 12
_START_SEED: Final = 0x6C616E67

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlacedCatalogue(Catalogue):
    """Items with their places in a plan's space.

    Attributes:
        places: items × dimensions float64; zeros for an item without a text.
        space_sha256: of what the space was made from; vectors of other spaces mean something else.
        texts: the items' texts with their encoder, where a plan trains a part of it.
    """

    places: Matrix
    space_sha256: str
    texts: AdaptableTexts | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.places) != len(self.items):
            raise UsageError(f"{len(self.places)} places for {len(self.items)} items", where="catalogue")

    @staticmethod
    def of(catalogue: Catalogue) -> PlacedCatalogue:
        """The same catalogue, which has to have places.

        Raises:
            UsageError: it has none.
        """
        if not isinstance(catalogue, PlacedCatalogue):
            raise UsageError(
                "family language reads the places of items, and this list has none",
                where="catalogue",
                remedy="place it with silo.language.places.place_items",
            )
        return catalogue


@dataclass(frozen=True, eq=False)
class Space:
    """Directions of texts, each with variance one over the reference.

    Attributes:
        centre: (width,) mean of the reference.
        axes: width × dimensions.
    """

    centre: Vector
    axes: Matrix

    @classmethod
    def fit(cls, reference: NDArray[np.floating], dimensions: int) -> Space:
        """Find the space of some texts.

        Args:
            reference: texts × width, a row of zeros for a text in which nothing is written.
            dimensions: at most ``width``, and fewer than the texts: without their mean, n texts span n - 1.

        Raises:
            UsageError: too few or too narrow vectors, or texts that differ in fewer directions than
                dimensions: whatever stood for the others would be another space in every silo.
        """
        written = reference[reference.any(axis=1)].astype(np.float64)
        if min(len(written) - 1, reference.shape[1]) < dimensions:
            raise UsageError(
                f"{len(written)} texts of {reference.shape[1]} values span no {dimensions} dimensions",
                where="plan: model.dimensions",
                remedy="propose fewer dimensions, or a catalogue with more titles",
            )
        centre = written.mean(axis=0)
        covariance = (written - centre).T @ (written - centre) / len(written)
        axes = public_uniform(_START_SEED, covariance.shape[0] * dimensions).reshape(-1, dimensions)
        for _ in range(_STEPS):
            axes = orthonormal(covariance @ axes)
        variances, turn = np.linalg.eigh(axes.T @ covariance @ axes)
        if variances[-1] < LEAST_VARIANCE:
            raise UsageError(
                "all reference texts say the same to this encoder",
                where="plan: catalogue",
                remedy="propose a catalogue whose titles differ, in a language that the encoder reads",
            )
        num_found = int(np.count_nonzero(variances >= LEAST_SPREAD * variances[-1]))
        if num_found < dimensions:
            raise UsageError(
                f"the {len(written)} texts of the plan's list differ in {num_found} directions, "
                f"of {dimensions} dimensions that it asks for",
                where="plan: model.dimensions",
                remedy="propose more texts that differ, or fewer dimensions",
            )
        stretch = 1 / np.sqrt(np.maximum(variances, LEAST_SHARE * variances[-1]))
        return cls(centre, axes @ (turn * stretch) @ turn.T)

    def place(self, vectors: NDArray[np.floating]) -> Matrix:
        """Places of texts, whoever's they are.

        Args:
            vectors: texts × width, zeros for a text in which nothing is written.

        Returns:
            texts × dimensions float64, rows of length one: an item unlike all others would otherwise outweigh
            a history. Zeros for a text in which nothing is written.
        """
        places = (vectors - self.centre) @ self.axes
        lengths = np.linalg.norm(places, axis=1, keepdims=True)
        is_written = np.asarray(vectors.any(axis=1), dtype=np.float64)[:, None]
        at_length_one: Matrix = is_written * places / np.maximum(lengths, LEAST_LENGTH)
        return at_length_one
