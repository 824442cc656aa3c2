"""A model in a format of other programs.

- ``safetensors``: the tables by name, and one line of JSON about them under ``archipel``.
- ``parquet``: one row an item: ``item_id``, ``title``, ``popularity``, ``bias``, and ``left`` and ``right``,
  or a network's ``vector``; for vector stores. Of items × items tables ``left`` is the item's row of weights.
- ``onnx``: a graph that scores (:mod:`silo.export.onnx_graph`).
- ``user-onnx``: a graph that makes users' vectors, for whoever has the items in a store.
- ``index``: vectors of items in one byte a value (:mod:`silo.export.index`), as safetensors.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Final, Literal, get_args

import numpy as np
import polars as pl
from safetensors.numpy import save as safetensors_bytes

from silo.data.catalogue import Catalogue
from silo.export.index import ItemIndex, vectors_of
from silo.export.scorers import ExportableModel, NotExportableError
from silo.extras import require_extra
from silo.models.recommender import Floats
from silo.tensor_files import Tables

Format = Literal["safetensors", "parquet", "onnx", "user-onnx", "index"]
FORMATS: Final = get_args(Format)
METADATA_KEY: Final = "archipel"
MAX_ONNX_BYTES: Final = 2**31 - 2**20
"""Protocol buffers end at 2 GiB."""


def model_bytes(
    model: ExportableModel,
    catalogue: Catalogue,
    kind: Format,
    about: Mapping[str, object],
    *,
    is_int8: bool = False,
) -> bytes:
    """The file.

    Args:
        model: the model.
        catalogue: what it ranks.
        kind: format.
        about: what the file says of itself: JSON values.
        is_int8: one byte a value; ``onnx`` only.

    Raises:
        MissingExtraError: ``onnx`` without the packages for it.
        NotExportableError: tables too large for the format, or vectors of a model that has none.
    """
    # A model's two halves are made by two commands: both are balanced, and alike.
    if is_int8 or kind in ("index", "user-onnx"):
        model = model.balanced()
    text = json.dumps(dict(about), sort_keys=True, separators=(",", ":"))
    if kind == "safetensors":
        return _safetensors(model.tables(), text)
    if kind == "index":
        return _safetensors(ItemIndex.of(vectors_of(model, "--format index")).tables(), text)
    if kind == "parquet":
        return _parquet(model, catalogue, text)
    require_extra("export", "onnx")
    from silo.export.onnx_graph import onnx_bytes, user_onnx_bytes

    if sum(table.nbytes for table in model.tables().values()) // (4 if is_int8 else 1) > MAX_ONNX_BYTES:
        raise NotExportableError(
            "the tables are larger than an ONNX file can be",
            where=f"--format {kind}",
            remedy="export it as safetensors, or compress it",
        )
    if kind == "user-onnx":
        return user_onnx_bytes(model, metadata={METADATA_KEY: text})
    return onnx_bytes(model, is_int8=is_int8, metadata={METADATA_KEY: text})


def _safetensors(tables: Tables, about: str) -> bytes:
    ordered = {name: np.ascontiguousarray(table) for name, table in sorted(tables.items())}
    return bytes(safetensors_bytes(ordered, {METADATA_KEY: about}))


def _parquet(model: ExportableModel, catalogue: Catalogue, about: str) -> bytes:
    columns: dict[str, pl.Series] = {
        "item_id": pl.Series(catalogue.item_ids, dtype=pl.String),
        "title": pl.Series([item.title for item in catalogue.items], dtype=pl.String),
        "popularity": pl.Series(model.popularity),
    }
    columns |= {name: _column(table) for name, table in model.of_items().items() if table.size}
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file, metadata={METADATA_KEY: about})
    return file.getvalue()


def _column(table: Floats) -> pl.Series:
    if table.ndim == 1:
        return pl.Series(table)
    return pl.Series(table, dtype=pl.Array(pl.Float32, table.shape[1])).cast(pl.List(pl.Float32))
