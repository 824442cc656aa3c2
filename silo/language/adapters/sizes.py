"""How large adapters of an encoder are, read from its config: what a plan has to say beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

_TYPES: Final = ("bert", "roberta", "xlm-roberta", "llama")
"""Networks whose layers :mod:`silo.language.adapters.stack` knows."""


def adapted_outputs(config: Mapping[str, Any]) -> int | None:
    """Values that the adapted maps of one layer give together: what a plan calls ``outputs``.

    Args:
        config: of a checked encoder (:class:`silo.language.files.EncoderFiles`).

    Returns:
        None for a type of network that cannot be adapted.
    """
    if config["model_type"] not in _TYPES:
        return None
    width = cast(int, config["hidden_size"])
    if config["model_type"] != "llama":
        return 2 * width
    heads = cast(int, config["num_attention_heads"])
    a_head = config.get("head_dim") or width // heads
    return int(a_head * (heads + (config.get("num_key_value_heads") or heads)))
