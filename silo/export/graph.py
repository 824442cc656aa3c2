"""An ONNX graph under construction, and the nodes that graphs of tables and of networks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from silo.export.quantising import QuantisedTable
from silo.models.recommender import Floats

OPSET: Final = 17
IR_VERSION: Final = 9
INPUT: Final = "history"
PADDING: Final = -1
FLOAT: Final = 1
"""``onnx.TensorProto.FLOAT``; ONNX is an extra, imported where a file is written."""
INT64: Final = 7
"""``onnx.TensorProto.INT64``."""


class Graph:
    """Nodes and constants in the order in which they were added.

    Args:
        is_int8: tables and maps are written in one byte a value.
    """

    def __init__(self, *, is_int8: bool) -> None:
        self.is_int8 = is_int8
        self.nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A table or number; returns its name. One name stands for one value."""
        from onnx import numpy_helper

        made = numpy_helper.from_array(np.ascontiguousarray(values), name)
        if self._constants.setdefault(name, made) != made:
            raise ValueError(f"two constants are called {name}")
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node of one output; returns the output's name."""
        from onnx import helper

        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """A node of several outputs, or of inputs left out (``""``)."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def whole(self, value: int) -> str:
        """A whole number, int64."""
        return self.constant(f"whole_{value}", np.array(value, np.int64))

    def axis(self, *axes: int) -> str:
        """Axes or a shape as nodes take them: (n,) int64."""
        return self.constant("_".join(map(str, ("axis", *axes))), np.array(axes, np.int64))

    def number(self, value: float) -> str:
        """A number, float32."""
        return self.constant(f"number_{value:g}", np.array(value, np.float32))

    def weight(self, name: str, table: Floats) -> str:
        """A table of float32 by rows: itself, or its bytes and what makes numbers of them again."""
        if not self.is_int8:
            return self.constant(name, table)
        quantised = QuantisedTable.of(table.reshape(len(table), -1))
        values = self.constant(name, quantised.values.reshape(table.shape))
        scales = self.constant(f"{name}.scales", quantised.scales)
        return self.add("DequantizeLinear", values, scales, axis=0)

    def rows(self, name: str, table: Floats, items: str) -> str:
        """The table's rows of these items: ``items`` and one axis more."""
        if not self.is_int8:
            return self.add("Gather", self.constant(name, table), items)
        quantised = QuantisedTable.of(table)
        rows = self.add("Gather", self.constant(name, quantised.values), items)
        scales = self.add("Gather", self.constant(f"{name}.scales", quantised.scales), items)
        scales = self.add("Unsqueeze", scales, self.axis(-1))
        return self.add("Mul", self.add("Cast", rows, to=FLOAT), scales)

    def against(self, users: str, name: str, table: Floats) -> str:
        """Users' vectors against every row of the table: users × rows."""
        return self.add("Gemm", users, self.weight(name, table), transB=1)

    def finished(self, output: str, width: int, metadata: Mapping[str, str]) -> bytes:
        """The file, checked by ONNX itself.

        Args:
            output: name of the node's output that the graph ends in: float32, users × ``width``.
            width: of the output.
            metadata: goes into the file as ``metadata_props``.
        """
        import onnx
        from onnx import helper

        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                "archipel-recommender",
                [helper.make_tensor_value_info(INPUT, INT64, ["users", "length"])],
                [helper.make_tensor_value_info(output, FLOAT, ["users", width])],
                list(self._constants.values()),
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="archipel",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
