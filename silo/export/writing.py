"""A model in a format of other programs.

- ``safetensors``: the tables by name, and one line of JSON about them under ``archipel``.
- ``parquet``: one row an item: ``item_id``, ``title``, ``popularity``, ``bias``, ``left``, ``right``; for
  vector stores. Of items × items tables ``left`` is the item's row of weights.
- ``onnx``: a graph that scores (:mod:`silo.export.onnx_graph`).
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
from silo.export.scorers import NotExportableError, TableScorer
from silo.extras import require_extra

Format = Literal["safetensors", "parquet", "onnx"]
FORMATS: Final = get_args(Format)
METADATA_KEY: Final = "archipel"
MAX_ONNX_BYTES: Final = 2**31 - 2**20
"""Protocol buffers end at 2 GiB."""


def model_bytes(
    scorer: TableScorer,
    catalogue: Catalogue,
    kind: Format,
    about: Mapping[str, object],
    *,
    is_int8: bool = False,
) -> bytes:
    """The file.

    Args:
        scorer: the model.
        catalogue: what it ranks.
        kind: format.
        about: what the file says of itself: JSON values.
        is_int8: one byte a value; ``onnx`` only.

    Raises:
        MissingExtraError: ``onnx`` without the packages for it.
        NotExportableError: tables too large for the format.
    """
    text = json.dumps(dict(about), sort_keys=True, separators=(",", ":"))
    if kind == "safetensors":
        tables = {name: np.ascontiguousarray(table) for name, table in sorted(scorer.tables().items())}
        return bytes(safetensors_bytes(tables, {METADATA_KEY: text}))
    if kind == "parquet":
        return _parquet(scorer, catalogue, text)
    require_extra("export", "onnx")
    from silo.export.onnx_graph import onnx_bytes

    if sum(table.nbytes for table in scorer.tables().values()) // (4 if is_int8 else 1) > MAX_ONNX_BYTES:
        raise NotExportableError(
            "the tables are larger than an ONNX file can be",
            where="--format onnx",
            remedy="export it as safetensors, or compress it",
        )
    return onnx_bytes(scorer, is_int8=is_int8, metadata={METADATA_KEY: text})


def _parquet(scorer: TableScorer, catalogue: Catalogue, about: str) -> bytes:
    model = scorer.recommender
    columns: dict[str, pl.Series] = {
        "item_id": pl.Series(catalogue.item_ids, dtype=pl.String),
        "title": pl.Series([item.title for item in catalogue.items], dtype=pl.String),
        "popularity": pl.Series(model.popularity),
        "bias": pl.Series(model.bias),
    }
    for name, table in (("left", model.left), ("right", model.right)):
        if table is not None and table.shape[1]:
            columns[name] = pl.Series(table, dtype=pl.Array(pl.Float32, table.shape[1])).cast(
                pl.List(pl.Float32)
            )
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file, metadata={METADATA_KEY: about})
    return file.getvalue()
