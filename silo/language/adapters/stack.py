"""A text encoder cut in two: layers that nothing trained stands under, and the last ones, in float64.

The lower part is a function of an item's text alone, so it is run once for each item and kept
(:mod:`silo.language.adapters.frozen`). The upper part is copied in float64: one person's gradient may not
move with who else is in a batch by more than rounding of that precision (:mod:`privacy.dpsgd`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from silo.language.files import TextEncoderError

_MASKED: Final = -1e9
"""Added to the score of what may not be read: finite, so that a text without a token stays a number."""

MapPlace = tuple[nn.Module, str]
"""A layer's part, and the attribute under which it holds a map."""


class UpperLayers(ABC):
    """The last layers of one type of network, as float64 copies that never train and never drop.

    Args:
        network: of the installed library, with its weights.
        num_layers: how many of its last layers.

    Raises:
        TextEncoderError: the network has fewer.
    """

    stack: ClassVar[str]
    query_and_value: ClassVar[tuple[str, str]]

    def __init__(self, network: Any, num_layers: int) -> None:
        whole = network.get_submodule(self.stack)
        if num_layers > len(whole):
            raise TextEncoderError(
                f"{num_layers} layers are to be adapted, and this encoder has {len(whole)}",
                where="plan: model.encoder_adapter.layers",
                remedy=f"propose at most {len(whole)}",
            )
        self.width: int = network.config.hidden_size
        self.layers = [deepcopy(layer).double().eval().requires_grad_(False) for layer in whole[-num_layers:]]

    def maps(self) -> list[MapPlace]:
        """Where the maps to queries and to values are, layer by layer: what LoRA adapts (Hu et al. 2021)."""
        found = []
        for layer in self.layers:
            for path in self.query_and_value:
                parent, _, name = path.rpartition(".")
                found.append((layer.get_submodule(parent), name))
        return found

    @abstractmethod
    def __call__(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        """What the network's last layer gives.

        Args:
            hidden: texts × tokens × width float64, what came into the first of these layers.
            is_token: texts × tokens bool, true from the left.

        Returns:
            texts × tokens × width.
        """


class BertLayers(UpperLayers):
    """Attention both ways: BERT, RoBERTa, XLM-RoBERTa."""

    stack = "encoder.layer"
    query_and_value = ("attention.self.query", "attention.self.value")

    @override
    def __call__(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        mask = _MASKED * (~is_token)[:, None, None, :].to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask)
        return hidden


class LlamaLayers(UpperLayers):
    """Causal attention with turned places, as in GPT-type networks such as SmolLM2."""

    stack = "layers"
    query_and_value = ("self_attn.q_proj", "self_attn.v_proj")

    def __init__(self, network: Any, num_layers: int) -> None:
        super().__init__(network, num_layers)
        self._turn = deepcopy(network.rotary_emb)
        self._norm = _Norm(network.norm)
        for layer in self.layers:
            for name in ("input_layernorm", "post_attention_layernorm"):
                setattr(layer, name, _Norm(getattr(layer, name)))

    @override
    def __call__(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        places = torch.arange(hidden.shape[1])
        is_read = (places[None, :] <= places[:, None])[None] & is_token[:, None, :]
        mask = _MASKED * (~is_read)[:, None].to(hidden.dtype)
        turned = self._turn(hidden, position_ids=places[None])
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=turned)
        normed: Tensor = self._norm(hidden)
        return normed


class _Norm(nn.Module):
    """Root mean square to one, in the precision of the input; the library's own goes through float32."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self._weight, self._floor = of.weight.detach().double(), of.variance_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """``x / rms(x) · weight`` along the last dimension."""
        inverse = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self._floor)
        normed: Tensor = hidden * inverse * self._weight
        return normed


_KINDS: Final[Mapping[str, type[UpperLayers]]] = {
    "bert": BertLayers,
    "roberta": BertLayers,
    "xlm-roberta": BertLayers,
    "llama": LlamaLayers,
}


def upper_layers(network: Any, num_layers: int) -> UpperLayers:
    """The last layers of a network.

    Raises:
        TextEncoderError: a type whose layers cannot be told apart here, or fewer layers.
    """
    model_type = network.config.model_type
    if model_type not in _KINDS:
        raise TextEncoderError(
            f"layers of a {model_type} network cannot be adapted",
            where="plan: model.encoder_adapter",
            remedy=f"take an encoder of type {', '.join(_KINDS)}, or leave encoder_adapter out",
        )
    return _KINDS[model_type](network, num_layers)
