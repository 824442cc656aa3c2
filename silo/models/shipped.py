"""What every model that a job leaves can do, whichever family made it, and how its file is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from silo.models.recommender import METADATA_KEY, Floats, Recommender


class ShippedModel(Protocol):
    """Scores all items of one catalogue for any history over it."""

    @property
    def num_items(self) -> int:
        """Items of the catalogue the model was made for."""
        ...

    @property
    def is_fallback(self) -> bool:
        """Whether the family decided that its own scores are no better than popularity."""
        ...

    @property
    def popularity(self) -> Floats:
        """(items,) float32 ≥ 0, what people without a history get."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says about itself besides its tables."""
        ...

    def falls_back(self, histories: sp.csr_matrix) -> NDArray[np.bool_]:
        """Say which rows of ``histories`` (users × items) are ranked by popularity alone."""
        ...

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items for each history: users × items in order of time in, users × items out."""
        ...

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model as safetensors; the same model gives the same bytes everywhere."""
        ...


def load_model(path: Path) -> ShippedModel:
    """Read a model file of any family.

    Raises:
        ModelFileError: truncated, not a model, or tables that do not fit each other.
    """
    if _kind_of(path) is None:
        return Recommender.load(path)
    from silo.models.sequence.recommender import SequenceRecommender

    return SequenceRecommender.load(path)


def _kind_of(path: Path) -> str | None:
    """What a file of a network calls itself; None for one of tables, or for what is none of ours."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
    except (OSError, SafetensorError, ValueError, RecursionError):
        return None
    return header.get("kind") if isinstance(header, dict) else None
