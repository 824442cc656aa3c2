"""A pretrained text encoder on disk: the three files that are read, what they may hold, and their one digest.

``config.json`` (sizes), ``tokenizer.json`` (a table) and ``model.safetensors`` (numbers) of a Hugging Face
directory. Nothing else in it is opened, and a directory that also holds pickles, adapters or code is refused:
other programs would run them. Every size is compared with a limit, and with the other files, before anything
of that size is made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from policies.canonical import digest
from privacy.errors import DataError
from silo.tensor_files import sha256_of

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
WEIGHTS: Final = "model.safetensors"
MAX_BYTES: Final = {CONFIG: 1 << 20, TOKENIZER: 1 << 26, WEIGHTS: 1 << 32}
MAX_ENTRIES: Final = 1_000
MAX_SIZE: Final = 1 << 20
"""Largest whole number in ``config.json``: vocabularies and positions stay well below."""
MAX_LAYERS: Final = 128
MAX_PARAMETERS: Final = 1 << 30
MODEL_TYPES: Final = ("bert", "roberta", "xlm-roberta", "mpnet", "llama")
"""Networks of the installed library with these names for their sizes; no other code is asked for one."""

_SIZES: Final = frozenset({
    "attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps",
    "max_position_embeddings", "mlp_bias", "model_type", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "pad_token_id", "relative_attention_num_buckets", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "type_vocab_size", "vocab_size",
})  # fmt: skip
"""What is read of ``config.json``. The library takes many more names, some of them for code to fetch and run
(``attn_implementation``), so whatever is not among these never reaches it."""

Shapes = dict[str, tuple[int, ...]]

_CAN_RUN: Final = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py", ".so"})
_CODE: Final = ("auto_map", "custom_pipelines")
_DTYPES: Final = frozenset({"F32", "F16", "BF16"})
_REMEDY: Final = "take a directory with config.json, tokenizer.json and model.safetensors, and no code"


class TextEncoderError(DataError):
    """A directory that is no text encoder, or one that is not safe to read."""

    code = "text_encoder"


@dataclass(frozen=True)
class EncoderFiles:
    """A directory whose files were looked at.

    Attributes:
        directory: where they are.
        config: of the network, the known names alone; no whole number in it is above ``MAX_SIZE``.
        shapes: of the weights, by name, as the file's own header says.
        sha256: over the digests of the three files: what a plan calls this encoder.
    """

    directory: Path
    config: dict[str, Any]
    shapes: Shapes
    sha256: str

    @classmethod
    def check(cls, directory: Path) -> EncoderFiles:
        """Look at a directory without reading a weight.

        Raises:
            TextEncoderError: something that can run, a missing or too large file, a config of another kind or
                with sizes beyond the limits, weights that are no numbers.
        """
        _refuse_what_can_run(directory)
        for name, limit in MAX_BYTES.items():
            _check_size(directory / name, limit)
        config, shapes = _config(directory / CONFIG), _shapes(directory / WEIGHTS)
        digests = {name: sha256_of(directory / name) for name in MAX_BYTES}
        return cls(directory, config, shapes, digest(digests))


def _refuse_what_can_run(directory: Path) -> None:
    if not directory.is_dir():
        raise _refused(directory, "there is no such directory")
    for number, path in enumerate(directory.rglob("*")):
        if number >= MAX_ENTRIES:
            raise _refused(directory, f"more than {MAX_ENTRIES} files")
        if path.suffix.lower() in _CAN_RUN:
            raise _refused(path, "a file that can run code when it is loaded")
        if path.name == "adapter_config.json":
            raise _refused(path, "an adapter, which names another model to fetch")


def _check_size(path: Path, limit: int) -> None:
    try:
        num_bytes = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise _refused(path, error.strerror or "it cannot be read") from error
    if num_bytes is None:
        raise _refused(path, "there is no such file")
    if num_bytes > limit:
        raise _refused(path, f"{num_bytes:,} bytes, where at most {limit:,} are read")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _refused(path, "this is no JSON") from error
    if not isinstance(config, dict):
        raise _refused(path, "this is no description of a network")
    if any(name in config for name in _CODE):
        raise _refused(path, "it names code to load with the model; none is ever loaded")
    if config.get("model_type") not in MODEL_TYPES:
        found = str(config.get("model_type"))[:40]
        raise _refused(path, f"model_type {found!r}; known are {', '.join(MODEL_TYPES)}")
    layers = config.get("num_hidden_layers")
    if type(layers) is not int or not 0 < layers <= MAX_LAYERS:
        raise _refused(path, f"num_hidden_layers is not between 1 and {MAX_LAYERS}")
    if _largest(config) > MAX_SIZE:
        raise _refused(path, f"a size above {MAX_SIZE:,}")
    return {name: value for name, value in config.items() if name in _SIZES}


def _largest(value: Any) -> int:
    """The largest whole number, in absolute value, anywhere in a JSON value."""
    if isinstance(value, dict):
        return max((_largest(each) for each in value.values()), default=0)
    if isinstance(value, list):
        return max((_largest(each) for each in value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _shapes(path: Path) -> Shapes:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            types = {each.get_dtype() for each in slices.values()}
            shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
    except SafetensorError as error:
        raise _refused(path, f"this is no safetensors file ({error})") from error
    if others := types - _DTYPES - {"I64"}:
        raise _refused(path, f"weights of type {', '.join(sorted(others))}, not {', '.join(sorted(_DTYPES))}")
    return shapes


def _refused(path: Path, reason: str) -> TextEncoderError:
    return TextEncoderError(reason, where=str(path), remedy=_REMEDY)
