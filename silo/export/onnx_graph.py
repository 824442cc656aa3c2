"""A model as an ONNX graph that scores like ours, for runtimes without Archipel.

Input ``history``: int64, users × length, item indices of each user, padded with -1; each item once. Output
``scores``: float32, users × items, those of the history included. Opset 17.

With ``is_int8`` the tables are one byte a value with one scale for each item (:mod:`silo.export.quantising`).
Users' vectors stay float32: quantising them by the range of a batch would let one user's scores depend on who
else is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from silo.export.quantising import QuantisedTable
from silo.export.scorers import TableScorer
from silo.models.recommender import Floats

OPSET: Final = 17
IR_VERSION: Final = 9
INPUT: Final = "history"
OUTPUT: Final = "scores"
PADDING: Final = -1


def onnx_bytes(scorer: TableScorer, *, is_int8: bool, metadata: Mapping[str, str]) -> bytes:
    """The graph, checked by ONNX itself.

    Args:
        scorer: the model.
        is_int8: one byte a value of the tables.
        metadata: goes into the file as ``metadata_props``.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    _write(graph, scorer, is_int8=is_int8)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "archipel-recommender",
            [helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["users", "length"])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["users", scorer.num_items])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="archipel",
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes and constants in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A table or number; returns its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node of one output; returns the output's name."""
        from onnx import helper

        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def _write(graph: _Graph, scorer: TableScorer, *, is_int8: bool) -> None:
    from onnx import TensorProto

    model = scorer.recommender
    zero, last = graph.constant("zero", np.array(0, np.int64)), graph.constant("last", np.array([2]))
    is_item = graph.add("GreaterOrEqual", INPUT, zero)
    safe = graph.add("Where", is_item, INPUT, zero)
    present = graph.add("Cast", is_item, to=TensorProto.FLOAT)
    one_a_row = graph.constant("one_a_row", np.array([1]))
    length = graph.add("ReduceSum", present, one_a_row, keepdims=1)
    popularity = graph.constant("popularity", model.popularity[None, :])
    if model.is_fallback or model.left.shape[1] == 0:
        # Zero times everybody's length gives the popularity as many rows as there are users.
        nothing = graph.add("Mul", length, graph.constant("nothing", np.array(0, np.float32)))
        graph.add("Add", nothing, popularity, name=OUTPUT)
        return
    factor = graph.add("Unsqueeze", present, last)
    user = graph.add("ReduceSum", _rows(graph, model.left, safe, factor, is_int8), one_a_row, keepdims=0)
    at_least_one = graph.add("Max", length, graph.constant("one", np.array(1, np.float32)))
    if model.hidden is not None:
        scaled = graph.add("Div", user, graph.add("Sqrt", at_least_one))
        user = graph.add("Tanh", graph.add("Add", scaled, graph.constant("hidden", model.hidden)))
    elif not scorer.is_summed:
        user = graph.add("Div", user, at_least_one)
    scores = user if model.right is None else _against_items(graph, user, model.right, is_int8)
    biased = graph.add("Add", scores, graph.constant("bias", model.bias))
    is_known = graph.add("Greater", length, graph.constant("none", np.array(0, np.float32)))
    graph.add("Where", is_known, biased, popularity, name=OUTPUT)


def _rows(graph: _Graph, table: Floats, items: str, factor: str, is_int8: bool) -> str:
    """Rows of the table for each item, those of padding zero: users × length × r."""
    from onnx import TensorProto

    if not is_int8:
        return graph.add("Mul", graph.add("Gather", graph.constant("left", table), items), factor)
    bytes_ = QuantisedTable.of(table)
    rows = graph.add("Gather", graph.constant("left", bytes_.values), items)
    scales = graph.add("Gather", graph.constant("left_scales", bytes_.scales[:, None]), items)
    return graph.add("Mul", graph.add("Cast", rows, to=TensorProto.FLOAT), graph.add("Mul", scales, factor))


def _against_items(graph: _Graph, user: str, table: Floats, is_int8: bool) -> str:
    """The user's vector against every item: users × items."""
    if not is_int8:
        return graph.add("MatMul", user, graph.constant("right", np.ascontiguousarray(table.T)))
    bytes_ = QuantisedTable.of(table)
    values = graph.constant("right", np.ascontiguousarray(bytes_.values.T))
    scales = graph.constant("right_scales", bytes_.scales)
    return graph.add("MatMul", user, graph.add("DequantizeLinear", values, scales, axis=1))
