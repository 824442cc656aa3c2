"""The model that ships: public-shaped tables that turn a history into scores, and the file they live in.

Every family ends in one of two formulas, so serving, evaluation and export know one model only. With ``u``
the sum of ``left[item]`` over the ``n`` items of a history::

    scores = bias + (u / n) @ right.T                   without a table ``hidden``
    scores = bias + tanh(hidden + u / √n) @ right.T     with one

A user without a history, and every user of a model that fell back, is ranked by ``popularity`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from policies.plans.models import MAX_LINEAR_FEATURES
from policies.plans.plan import MAX_ITEMS
from privacy.errors import DataError

Floats = NDArray[np.float32]

FORMAT = "archipel-recommender/v2"
FIRST_FORMAT = "archipel-recommender/v1"
"""Files from before ``hidden``; they load as they are."""
METADATA_KEY = "archipel"
MAX_MODEL_ITEMS = MAX_ITEMS
MAX_WIDTH = MAX_LINEAR_FEATURES
"""Of ``left`` and ``right`` in a model of few items: no family's are wider."""

_TABLES = frozenset({"left", "bias", "popularity"})
_SETS_OF_TABLES = {
    FIRST_FORMAT: (_TABLES, _TABLES | {"right"}),
    FORMAT: (_TABLES, _TABLES | {"right"}, _TABLES | {"right", "hidden"}),
}


class ModelFileError(DataError):
    """A model file that is not what it says it is."""

    code = "model_file"


@dataclass(frozen=True)
class Recommender:
    """Scores all items of one catalogue for any history over it.

    Attributes:
        left: ``items × r`` float32, what each item of a history adds to the user's vector.
        right: ``items × r`` float32 that reads the vector out, or None: ``left`` is ``items × items`` and
            its columns are the scores.
        bias: ``items`` float32, added to every user's scores.
        popularity: ``items`` float32 ≥ 0, the (noised) floor that unknown users get.
        hidden: ``r`` float32, bias of the hidden units of a model that has a layer of them, else None.
        is_fallback: the family decided that its own scores are no better than ``popularity``; all users
            get that.
        metadata: what the file says about itself besides the tables (family, digests, decisions).
    """

    left: Floats
    right: Floats | None
    bias: Floats
    popularity: Floats
    hidden: Floats | None = None
    is_fallback: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        items = len(self.popularity)
        expected = {"left": (items, self.left.shape[-1]), "bias": (items,), "popularity": (items,)}
        if self.right is None:
            expected["left"] = (items, items)
        else:
            expected["right"] = self.left.shape
        if self.hidden is not None:
            expected["hidden"] = (self.left.shape[-1],)
        for name, shape in expected.items():
            table = getattr(self, name)
            if table.shape != shape or table.dtype != np.float32:
                raise ModelFileError(
                    f"table {name} is {table.dtype}{list(table.shape)}, not float32{list(shape)}"
                )
            if not np.isfinite(table).all():
                raise ModelFileError(f"table {name} holds a value that is not finite")

    @classmethod
    def of_popularity(
        cls, popularity: Floats, metadata: Mapping[str, str], *, is_fallback: bool
    ) -> Recommender:
        """A model that ranks everybody by ``popularity``."""
        empty = np.zeros((len(popularity), 0), np.float32)
        return cls(empty, empty, popularity, popularity, is_fallback=is_fallback, metadata=metadata)

    @property
    def num_items(self) -> int:
        """Items of the catalogue the model was made for."""
        return len(self.popularity)

    def falls_back(self, histories: sp.csr_matrix) -> NDArray[np.bool_]:
        """Say which rows of ``histories`` (users × items) are ranked by popularity alone."""
        is_empty: NDArray[np.bool_] = np.diff(histories.indptr) == 0
        return is_empty | self.is_fallback

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items, seen ones included, for each history.

        Args:
            histories: users × items, 0/1, canonical CSR.

        Returns:
            users × items float32, larger is better. A row depends on its own history, except that the last
            bits of a product round differently with the number of rows: where sensitivity counts, score
            one history a call.
        """
        users = self.user_vectors(histories)
        scores: Floats = users if self.right is None else users @ self.right.T
        scores += self.bias
        scores[self.falls_back(histories)] = self.popularity
        return scores

    def user_vectors(self, histories: sp.csr_matrix) -> Floats:
        """What ``right`` is read out by, users × r float32; arguments and rounding as :meth:`scores`."""
        check_catalogue(histories, self.num_items)
        lengths = np.maximum(np.diff(histories.indptr), 1).astype(np.float32)[:, None]
        users: Floats = histories.astype(np.float32) @ self.left
        if self.hidden is None:
            return users / lengths
        vectors: Floats = np.tanh(users / np.sqrt(lengths) + self.hidden)
        return vectors

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model as safetensors; the same model gives the same bytes everywhere.

        Args:
            path: file to write; replaced when it exists.
            metadata: more of what the file says about itself (plan digest, statement of privacy …).
        """
        header = {
            "format": FORMAT,
            "items": self.num_items,
            "is_fallback": self.is_fallback,
            "metadata": {**self.metadata, **(metadata or {})},
        }
        tables = {
            name: np.ascontiguousarray(table)
            for name, table in (
                ("left", self.left),
                ("right", self.right),
                ("hidden", self.hidden),
                ("bias", self.bias),
                ("popularity", self.popularity),
            )
            if table is not None
        }
        # One canonical value: safetensors writes several metadata keys in an order that changes by process.
        text = json.dumps(header, sort_keys=True, separators=(",", ":"))
        path.write_bytes(safetensors_bytes(tables, {METADATA_KEY: text}))

    @classmethod
    def load(cls, path: Path) -> Recommender:
        """Read a model file; names, types and shapes are checked before a table is allocated.

        Raises:
            ModelFileError: truncated, not safetensors, or tables that do not fit each other.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                header = _header(file.metadata() or {}, path)
                names = _checked_names(file, header, path)
                tables = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise _refused(path, f"not a readable model file ({error})") from error
        except FileNotFoundError as error:
            raise _refused(path, "there is no model file") from error
        except OSError as error:
            raise _refused(path, error.strerror or "it cannot be read") from error
        try:
            return cls(
                tables["left"],
                tables.get("right"),
                tables["bias"],
                tables["popularity"],
                tables.get("hidden"),
                is_fallback=header["is_fallback"],
                metadata=header["metadata"],
            )
        except ModelFileError as error:
            raise _refused(path, error.message) from error


def check_catalogue(histories: sp.csr_matrix, num_items: int) -> None:
    """Refuse histories over another catalogue than a model of ``num_items`` items.

    Raises:
        DataError: they are.
    """
    if histories.shape[1] != num_items:
        raise DataError(
            f"histories over {histories.shape[1]} items meet a model of {num_items}",
            remedy="use the catalogue named in the plan that trained the model",
        )


def is_metadata(value: object) -> bool:
    """Say whether what a file says of itself is texts by name."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _refused(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(reason, where=str(path), remedy="fetch the model again from the job that wrote it")


def _header(raw: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        header = json.loads(raw.get(METADATA_KEY, ""))
    except (ValueError, RecursionError) as error:
        raise _refused(path, "the file carries no description of a recommender") from error
    if not isinstance(header, dict) or str(header.get("format")) not in _SETS_OF_TABLES:
        raise _refused(path, f"the file's format is not {FORMAT} or older")
    items, metadata = header.get("items"), header.get("metadata")
    is_sound = (
        type(items) is int
        and 0 < items <= MAX_MODEL_ITEMS
        and isinstance(header.get("is_fallback"), bool)
        and is_metadata(metadata)
    )
    if not is_sound:
        raise _refused(path, "the file's description of itself cannot be true")
    return header


def _checked_names(file: Any, header: Mapping[str, Any], path: Path) -> list[str]:
    """Compare every table's header with what the file's own allows; returns the names that may be read."""
    names, items = set(file.keys()), header["items"]
    if names not in _SETS_OF_TABLES[header["format"]]:
        raise _refused(path, f"unexpected tables {sorted(names)}")
    widest = max(items, MAX_WIDTH)
    for name in names:
        table = file.get_slice(name)
        shape, dtype = table.get_shape(), table.get_dtype()
        dimensions = 2 if name in {"left", "right"} else 1
        is_sound = dtype == "F32" and len(shape) == dimensions and max(shape) <= widest
        if not is_sound or (name != "hidden" and shape[0] != items):
            raise _refused(path, f"table {name} is {dtype}{shape} in a model of {items} items")
    return sorted(names)
