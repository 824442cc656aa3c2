"""What a feature silo releases of its people once and for all: one noised vector for every slot of a spine.

Guarantees
----------
- A person's vector has norm at most 1 (clipped; not a number: nothing), truncated to integers of norm at most
  ``2^16``. Slots without a person of this silo hold zeros before the noise, so they are noise alone.
- *Sensitivity.* Slots are drawn without looking at vectors. With the same coins, one person more puts their
  vector where a zero row was, and moves nobody else: the whole table moves by at most 1 (L2), whether the
  person is known to others or not, and whatever the number of slots. That the encoder behind the vectors was
  trained on the same people is that training's own event; given the encoder, a vector depends on one row.
- *Nodes of a graph.* Where the promise is a person's own list and their place in up to ``D`` others' lists,
  one vector comes or goes and up to D become any others, each in a slot of its own: ``√(1 + 4 D)`` in L2,
  which multiplies the noise. (Sums over people, where such changes may point the same way, pay ``1 + 2 D``.)
- *No amplification by sub-sampling.* Every row is released, and the receiver knows whose it is. An event of a
  sample is refused, however small the batches of the training were.
- The noise is discrete Gaussian on the grid (``privacy.noise``), drawn once for all slots, on integers: no
  floating-point sum hides behind it. Values are then cut to 32 bits, which is post-processing.

Vectors have to be the same to the last bit whoever else is encoded with them: matrix products are not
(:func:`silo.vertical.encoder.encoding.encoded` is).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.clipping import clip_rows
from privacy.errors import DataError
from privacy.events import GaussianEvent, PoissonSampledGaussianEvent
from privacy.noise import NoiseShare, WordSource, unsampled

Matrix = npt.NDArray[np.float64]

GRID = 1 << 16
"""Integer units of a vector of norm 1."""
VALUE_BYTES = 4
_LARGEST_VALUE = (1 << 31) - 1


class EmbeddingError(DataError):
    """Vectors that cannot be put on a spine."""

    code = "embedding"


@dataclass(frozen=True, eq=False)
class NoisedEmbeddings:
    """What the label silo gets, and the event that pays for it.

    Attributes:
        values: (slots, dimensions) int32, in units of ``1 / GRID``.
        event: what drew the noise.
    """

    values: npt.NDArray[np.int32]
    event: GaussianEvent

    @property
    def vectors(self) -> Matrix:
        """(slots, dimensions) float64, in units of vectors of norm 1."""
        return vectors_of(self.values)


class EmbeddingNoise:
    """The noise of one release. It is drawn once; a second release with it is an error.

    Args:
        promised: the event that was reserved: of everybody, never of a sample.
        max_degree: others' lists in which a person's place is protected (``unit: user_node``), else 0.

    Raises:
        NoiseError: an event of a sample, or so much noise that it cannot be drawn.
    """

    def __init__(self, promised: GaussianEvent | PoissonSampledGaussianEvent, *, max_degree: int = 0) -> None:
        event = unsampled(promised)
        sensitivity = GRID * math.sqrt(1 + 4 * max_degree)
        self._share = NoiseShare(
            event.noise_multiplier * sensitivity, num_shares=1, sensitivity=sensitivity, promised=event
        )

    def release(
        self,
        vectors: Matrix,
        slots: npt.NDArray[np.int64],
        spine_slots: int,
        *,
        unsafe_source: WordSource | None = None,
    ) -> NoisedEmbeddings:
        """Put people's vectors on their slots and noise every slot.

        Args:
            vectors: (people, dimensions), clipped to norm 1.
            slots: of each person; -1 for none.
            spine_slots: of the whole spine.
            unsafe_source: a deterministic source, in tests only.

        Raises:
            EmbeddingError: a slot beyond the spine, or given to two people.
            RandomnessReuseError: this noise was used before.
        """
        has_slot = slots >= 0
        given = slots[has_slot]
        if len(slots) != len(vectors) or np.unique(given).size != given.size or (given >= spine_slots).any():
            raise EmbeddingError(
                "slots that are not one to a person of the spine", where="slots", remedy="align people anew"
            )
        spine = np.zeros((spine_slots, vectors.shape[1]), dtype=np.int64)
        spine[given] = np.trunc(clip_rows(vectors, 1.0) * GRID).astype(np.int64)[has_slot]
        noised, event = self._share.add_to(spine, unsafe_source=unsafe_source)
        values = np.clip(noised, -_LARGEST_VALUE, _LARGEST_VALUE).astype(np.int32)
        return NoisedEmbeddings(values, unsampled(event))


def vectors_of(values: npt.NDArray[np.int32]) -> Matrix:
    """Received integers in units of vectors of norm 1."""
    return values.astype(np.float64) / GRID
