"""A model as an ONNX graph that scores like ours, for runtimes without Archipel.

Input ``history``: int64, users × length, item indices of each user, padded at the right with -1; each item
once, and in order of time where the model is a network. Output ``scores``: float32, users × items, those of
the history included; or, of the users' side alone, ``vector``: float32, users × dimensions. Opset 17.

In one byte a value, tables and maps have one scale for each row (:mod:`silo.export.quantising`): an item, or
an output of a map. Users' vectors stay float32: quantising them by the range of a batch would let one user's
scores depend on who else is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from silo.export.graph import FLOAT, INPUT, Graph
from silo.export.index import vectors_of
from silo.export.scorers import ExportableModel

OUTPUT: Final = "scores"
USER_OUTPUT: Final = "vector"


def onnx_bytes(model: ExportableModel, *, is_int8: bool, metadata: Mapping[str, str]) -> bytes:
    """The graph from histories to scores.

    Args:
        model: the model.
        is_int8: one byte a value of tables and maps.
        metadata: goes into the file as ``metadata_props``.
    """
    graph = Graph(is_int8=is_int8)
    present = graph.add("Cast", graph.add("GreaterOrEqual", INPUT, graph.whole(0)), to=FLOAT)
    length = graph.add("ReduceSum", present, graph.axis(1), keepdims=1)
    popularity = graph.constant("popularity", model.popularity[None, :])
    if model.is_fallback:
        # Zero times everybody's length gives the popularity as many rows as there are users.
        graph.add("Add", graph.add("Mul", length, graph.number(0)), popularity, name=OUTPUT)
    else:
        scores = model.write_scores(graph, model.write_user(graph))
        is_known = graph.add("Greater", length, graph.number(0))
        graph.add("Where", is_known, scores, popularity, name=OUTPUT)
    return graph.finished(OUTPUT, model.num_items, metadata)


def user_onnx_bytes(model: ExportableModel, *, metadata: Mapping[str, str]) -> bytes:
    """The graph from histories to users' vectors, for an index of items; arguments as :func:`onnx_bytes`.

    Raises:
        NotExportableError: a model without vectors of items.
    """
    width = vectors_of(model, "--format user-onnx").vectors.shape[1]
    graph = Graph(is_int8=False)
    graph.add("Identity", model.write_user(graph), name=USER_OUTPUT)
    return graph.finished(USER_OUTPUT, width, metadata)
