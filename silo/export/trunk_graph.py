"""What stands between two ends of a network, as ONNX nodes; see :mod:`silo.models.sequence` for what it is.

Each writer takes (users, places, width) by its name and returns the name of the same. Places are always as
many as the trunk reads at most, padding at the right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from privacy.dpsgd.recurrent import GRU, LSTM
from silo.export.graph import Graph
from silo.export.scorers import NotExportableError
from silo.models.recommender import Floats
from silo.models.sequence.attention import HEADS, AttentionBlock
from silo.models.sequence.cnn import CausalConvolution, Cnn
from silo.models.sequence.gru import Gru
from silo.models.sequence.lstm import Lstm
from silo.models.sequence.masked import Masked
from silo.models.sequence.transformer import Transformer
from silo.models.sequence.trunk import Trunk

GRU_GATES: Final = (1, 0, 2)
"""Torch stacks reset, update, new; ONNX update, reset, new."""
LSTM_GATES: Final = (0, 3, 1, 2)
"""Torch stacks input, forget, cell, output; ONNX input, output, forget, cell."""


def write_trunk(graph: Graph, trunk: Trunk, vectors: str, is_item: str) -> str:
    """Write the nodes of a trunk.

    Args:
        graph: to write into.
        trunk: trained.
        vectors: (users, places, width) float32.
        is_item: (users, places) bool, false at padding.

    Raises:
        NotExportableError: an architecture that nobody has written for ONNX.
    """
    write = _WRITERS.get(type(trunk))
    if write is None:
        raise NotExportableError(
            f"{type(trunk).__name__} networks are not written as ONNX",
            where="--format onnx",
            remedy="export it as safetensors",
        )
    return write(graph, trunk, vectors, is_item)


def values_of(parameter: Tensor) -> Floats:
    """A parameter as a table of float32."""
    values: Floats = parameter.detach().numpy().astype(np.float32)
    return values


def linear(graph: Graph, name: str, layer: nn.Linear, vectors: str) -> str:
    """A linear map of the last axis."""
    turned = graph.add("Transpose", graph.weight(name, values_of(layer.weight)), perm=[1, 0])
    mapped = graph.add("MatMul", vectors, turned)
    if layer.bias is None:
        return mapped
    return graph.add("Add", mapped, graph.constant(f"{name}.bias", values_of(layer.bias)))


def _attention(graph: Graph, trunk: Any, vectors: str, is_item: str) -> str:
    places = trunk.size.places
    position = graph.weight("trunk.position", values_of(trunk.position.weight))
    vectors = graph.add("Add", vectors, position)
    if isinstance(trunk, Masked):
        first = np.zeros((1, places), dtype=bool)
        first[0, 0] = True
        may_see = graph.add("Or", is_item, graph.constant("first_place", first))
        may_see = graph.add("Unsqueeze", may_see, graph.axis(1, 2))
    else:
        may_see = graph.constant("up_to_itself", np.tril(np.ones((places, places), dtype=bool)))
    for number, block in enumerate(trunk.blocks):
        vectors = _block(graph, f"trunk.blocks.{number}", block, vectors, may_see)
    return _norm(graph, "trunk.last", trunk.last, vectors)


def _block(graph: Graph, name: str, block: AttentionBlock, vectors: str, may_see: str) -> str:
    width = block.output.in_features
    normed = _norm(graph, f"{name}.before_attention", block.before_attention, vectors)
    split, joined = graph.axis(0, 0, HEADS, width // HEADS), graph.axis(0, 0, width)

    def heads(part: str, order: list[int]) -> str:
        mapped = linear(graph, f"{name}.{part}", getattr(block, part), normed)
        return graph.add("Transpose", graph.add("Reshape", mapped, split), perm=order)

    query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scale = graph.number(1 / sqrt(width // HEADS))
    likeness = graph.add("Mul", graph.add("MatMul", query, key), scale)
    seen = graph.add("Where", may_see, likeness, graph.constant("unseen", np.array(-np.inf, np.float32)))
    mixed = graph.add("MatMul", graph.add("Softmax", seen, axis=-1), value)
    mixed = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
    vectors = graph.add("Add", vectors, linear(graph, f"{name}.output", block.output, mixed))
    inner = _norm(graph, f"{name}.before_maps", block.before_maps, vectors)
    inner = _gelu(graph, linear(graph, f"{name}.expand", block.expand, inner))
    return graph.add("Add", vectors, linear(graph, f"{name}.contract", block.contract, inner))


def _convolutions(graph: Graph, trunk: Any, vectors: str, _is_item: str) -> str:
    for number, block in enumerate(trunk.blocks):
        vectors = _convolution(graph, f"trunk.blocks.{number}", block, vectors)
    return _norm(graph, "trunk.last", trunk.last, vectors)


def _convolution(graph: Graph, name: str, block: CausalConvolution, vectors: str) -> str:
    normed = graph.add("Transpose", _norm(graph, f"{name}.norm", block.norm, vectors), perm=[0, 2, 1])
    weight = graph.weight(name, values_of(block.convolution.weight))
    bias = graph.constant(f"{name}.bias", values_of(_there(block.convolution.bias)))
    (dilation,) = block.convolution.dilation
    added = graph.add("Conv", normed, weight, bias, dilations=[dilation], pads=[block.before, 0])
    added = graph.add("Transpose", graph.add("Relu", added), perm=[0, 2, 1])
    return graph.add("Add", vectors, added)


def _recurrent(graph: Graph, trunk: Any, vectors: str, _is_item: str) -> str:
    """Layers of cells, places before users as ONNX has them."""
    states = graph.add("Transpose", vectors, perm=[1, 0, 2])
    for layer in range(trunk.size.layers):
        states = _cells(graph, trunk.layers, layer, states)
    return _norm(graph, "trunk.last", trunk.last, graph.add("Transpose", states, perm=[1, 0, 2]))


def _cells(graph: Graph, layers: GRU | LSTM, layer: int, states: str) -> str:
    kind, gates = ("GRU", GRU_GATES) if isinstance(layers, GRU) else ("LSTM", LSTM_GATES)
    width = layers.hidden_size

    def ordered(what: str) -> Floats:
        table = values_of(getattr(layers, f"{what}_l{layer}"))
        stacked: Floats = table.reshape(len(gates), width, *table.shape[1:])[list(gates)].reshape(table.shape)
        return stacked

    name = f"trunk.layers.{layer}"
    maps = [
        graph.add("Unsqueeze", graph.weight(f"{name}.{what}", ordered(f"weight_{what}")), graph.axis(0))
        for what in ("ih", "hh")
    ]
    bias = np.concatenate([ordered("bias_ih"), ordered("bias_hh")])[None, :]
    outputs = [f"{name}.states"]
    # In Torch's unit the reset gate falls on what the state's map gives, its bias included.
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    graph.node(
        kind, [states, *maps, graph.constant(f"{name}.bias", bias)], outputs, hidden_size=width, **extra
    )
    return graph.add("Squeeze", outputs[0], graph.axis(1))


def _norm(graph: Graph, name: str, layer: nn.LayerNorm, vectors: str) -> str:
    scale, bias = (
        graph.constant(f"{name}.{what}", values_of(_there(getattr(layer, what))))
        for what in ("weight", "bias")
    )
    return graph.add("LayerNormalization", vectors, scale, bias, axis=-1, epsilon=layer.eps)


def _gelu(graph: Graph, values: str) -> str:
    """``x/2 · (1 + erf(x/√2))``; a node of its own only from opset 20 on."""
    spread = graph.add("Erf", graph.add("Div", values, graph.number(sqrt(2))))
    half = graph.add("Mul", values, graph.number(0.5))
    return graph.add("Mul", half, graph.add("Add", spread, graph.number(1)))


def _there(parameter: Tensor | None) -> Tensor:
    assert parameter is not None, "our layers have biases"  # noqa: S101 - for the type checker
    return parameter


_Writer = Callable[[Graph, Any, str, str], str]
_WRITERS: Final[Mapping[type[Trunk], _Writer]] = {
    Transformer: _attention,
    Masked: _attention,
    Cnn: _convolutions,
    Gru: _recurrent,
    Lstm: _recurrent,
}
