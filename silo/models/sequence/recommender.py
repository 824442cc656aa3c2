"""The model that a network over ordered histories leaves: public features, weights, popularity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from policies.plans.models import NetworkSize
from silo.models.recommender import Floats, ModelFileError, check_catalogue, is_metadata
from silo.models.sequence.network import HIDDEN, FeatureNetwork, set_weights
from silo.models.sequence.trunk import NO_ITEM, newest_items
from silo.tensor_files import Tables, TensorFileError, load_tables, save_tables

KIND: Final = "archipel-sequence-recommender/v1"
USERS_AT_ONCE: Final = 256
_WEIGHTS: Final = "network."


@dataclass(frozen=True, eq=False)
class SequenceRecommender:
    """Scores all items for what comes next after a history in order of time.

    Attributes:
        size: of the network.
        weights: of the network by name, float32.
        features: items × features float32, public.
        bias: (items,) float32, added to everybody's scores.
        popularity: (items,) float32, what people without a history get.
        metadata: what the file says about itself besides.
        is_fallback: never.
    """

    size: NetworkSize
    weights: Mapping[str, NDArray[Any]]
    features: Floats
    bias: Floats
    popularity: Floats
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_fallback: bool = False

    def __post_init__(self) -> None:
        items = self.popularity.size
        if not items:
            raise ModelFileError("a model of no items ranks nothing")
        expected: dict[str, tuple[int, ...]] = {
            "features": (items, self.size.features), "bias": (items,), "popularity": (items,),
        }  # fmt: skip
        expected |= {
            _WEIGHTS + name: tuple(parameter.shape)
            for name, parameter in FeatureNetwork(self.size).named_parameters()
        }
        tables = self.tables()
        if {name: table.shape for name, table in tables.items()} != expected:
            raise ModelFileError("the tables are not those of the network that the file names")
        for name, table in tables.items():
            if table.dtype != np.float32 or not np.isfinite(table).all():
                raise ModelFileError(f"table {name} is not float32, or holds a value that is not finite")

    @property
    def num_items(self) -> int:
        """Items of the catalogue the model was made for."""
        return len(self.popularity)

    def falls_back(self, histories: sp.csr_matrix) -> NDArray[np.bool_]:
        """Say which rows of ``histories`` (users × items) are ranked by popularity alone."""
        is_empty: NDArray[np.bool_] = np.diff(histories.indptr) == 0
        return is_empty

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items, seen ones included: users × items in order of time in, users × items float32 out.

        Raises:
            DataError: histories over another catalogue.
        """
        scores: Floats = self.user_vectors(histories) @ self.features.T + self.bias
        scores[self.falls_back(histories)] = self.popularity
        return scores

    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        """What ``features`` are multiplied with: users × features float32, zero without a history.

        Raises:
            DataError: histories over another catalogue.
        """
        check_catalogue(histories, self.num_items)
        found = np.zeros((histories.shape[0], self.features.shape[1]), dtype=np.float32)
        known = np.flatnonzero(~self.falls_back(histories))
        for start in range(0, known.size, USERS_AT_ONCE):
            part = known[start : start + USERS_AT_ONCE]
            items, asked = self._questions(histories[part])
            with torch.no_grad():
                read = self.network(torch.from_numpy(items), torch.from_numpy(self.features)).numpy()
            found[part] = read[np.arange(asked.size), asked]
        return found

    def _questions(self, histories: sp.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the network reads of each history, and the place where it says what comes next."""
        places = self.size.places
        if self.network.trunk.is_causal:
            items = newest_items(histories, places)
            return items, (items != NO_ITEM).sum(axis=1) - 1
        items = np.pad(newest_items(histories, places - 1), ((0, 0), (0, 1)), constant_values=NO_ITEM)
        after = (items != NO_ITEM).sum(axis=1)
        items[np.arange(after.size), after] = HIDDEN
        return items, after

    @cached_property
    def network(self) -> FeatureNetwork:
        """The trained layers, as they serve."""
        network = FeatureNetwork(self.size).eval()
        set_weights(network, dict(self.weights))
        return network

    def tables(self) -> Tables:
        """Every table by its name; the network's begin with ``network.``."""
        own = {"features": self.features, "bias": self.bias, "popularity": self.popularity}
        return own | {_WEIGHTS + name: table for name, table in self.weights.items()}

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model as safetensors; the same model gives the same bytes everywhere.

        Args:
            path: file to write; replaced when it exists.
            metadata: more of what the file says about itself.
        """
        about = json.dumps({**self.metadata, **(metadata or {})}, sort_keys=True)
        save_tables(path, KIND, self.tables(), {"network": self.size.model_dump_json(), "metadata": about})

    @classmethod
    def load(cls, path: Path) -> SequenceRecommender:
        """Read a model file; what it holds is held against what it names.

        Raises:
            ModelFileError: truncated, not such a file, or tables that do not fit each other.
        """
        remedy = "fetch the model again from the job that wrote it"
        try:
            tables, about = load_tables(path, KIND)
            size, metadata = _described(about)
            weights = {
                name.removeprefix(_WEIGHTS): table
                for name, table in tables.items()
                if name.startswith(_WEIGHTS)
            }
            features, bias, popularity = (tables[name] for name in ("features", "bias", "popularity"))
            return cls(size, weights, features, bias, popularity, metadata)
        except (TensorFileError, ModelFileError) as error:
            raise ModelFileError(error.message, where=str(path), remedy=remedy) from error
        except KeyError as error:
            raise ModelFileError(f"the file has no table {error}", where=str(path), remedy=remedy) from error


def _described(about: Mapping[str, Any]) -> tuple[NetworkSize, dict[str, str]]:
    """The network that a file names, and what it says about itself besides.

    Raises:
        ModelFileError: it says neither, or something else.
    """
    try:
        size, metadata = NetworkSize.model_validate_json(about["network"]), json.loads(about["metadata"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError("the file does not say which network it holds") from error
    if not is_metadata(metadata):
        raise ModelFileError("what the file says about itself is not texts by name")
    return size, metadata
