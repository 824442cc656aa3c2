"""Texts to vectors by a pretrained network: mean of its last layer over the tokens, at length one.

The network is built by the installed library from numbers in ``config.json``, first without memory to compare
every shape with the file of weights. No code of a model's author and no connection is ever asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from silo.extras import require_extra
from silo.language.files import (
    CONFIG,
    MAX_PARAMETERS,
    TOKENIZER,
    WEIGHTS,
    EncoderFiles,
    Shapes,
    TextEncoderError,
)

if TYPE_CHECKING:
    from torch import Tensor

    from silo.language.adapters.stack import UpperLayers

MAX_TOKENS: Final = 128
MAX_CHARACTERS: Final = 4_000
"""What is left of a text before it is cut into tokens: far more than ``MAX_TOKENS`` of any script."""
TEXTS_AT_ONCE: Final = 64

Vectors = NDArray[np.float32]
Notice = Callable[[int, int], None]

_UNUSED: Final = "pooler."
"""Layers of some networks that the mean does not read; files may lack them."""
_COUNTED: Final = ("position_ids", "inv_freq")
"""Tables that older files hold and the network counts out itself."""
_AFTER_PADDING: Final = frozenset({"roberta", "xlm-roberta", "mpnet"})
"""They number the places of tokens from the padding's number on."""
_ATTENTION: Final = {"mpnet": "eager"}
"""Where the library has no ``sdpa``. Always said, so that no other name is looked for, here or elsewhere."""


class TextEncoder:
    """A network that turns texts into vectors.

    Args:
        files: checked.

    Attributes:
        sha256: what a plan calls this encoder.
        width: values of a vector.

    Raises:
        MissingExtraError: the libraries of the extra ``language`` are not installed.
        TextEncoderError: config, weights and tokenizer do not fit each other; nothing large was allocated.
    """

    def __init__(self, files: EncoderFiles) -> None:
        require_extra("language", "transformers", "tokenizers")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        self.sha256 = files.sha256
        self._network, self._vocabulary = load_network(files)
        self.width: int = self._network.config.hidden_size
        self._tokenizer = load_tokenizer(files, self._network.config)

    def upper_layers(self, num_layers: int) -> UpperLayers:
        """Copies of the network's last layers, to be adapted.

        Raises:
            TextEncoderError: fewer layers, or a type of network that cannot be adapted.
        """
        from silo.language.adapters.stack import upper_layers

        return upper_layers(self._network, num_layers)

    def encode(self, texts: Sequence[str], notice: Notice | None = None) -> Vectors:
        """Vectors of texts, each of length one; zeros for a text in which nothing is written.

        Args:
            texts: of any script and length; what is beyond ``MAX_TOKENS`` is not read.
            notice: told (texts done, texts in all) after every batch.

        Returns:
            texts × ``width`` float32.
        """
        found = np.zeros((len(texts), self.width), np.float32)
        short = [text.strip()[:MAX_CHARACTERS] for text in texts]
        # Texts of one length together: a batch is as long as its longest.
        order = sorted((number for number, text in enumerate(short) if text), key=lambda it: len(short[it]))
        for start in range(0, len(order), TEXTS_AT_ONCE):
            batch = order[start : start + TEXTS_AT_ONCE]
            found[batch] = self._encode([short[number] for number in batch])
            if notice is not None:
                notice(start + len(batch), len(order))
        return found

    def tokens(self, texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> tuple[Tensor, Tensor]:
        """Cut texts into tokens.

        Args:
            texts: at least one.
            max_tokens: most tokens of a text; what the network has room for if that is less.

        Returns:
            texts × tokens of the longest: numbers of tokens, and whether there is one (bool; from the left).
            A text in which nothing is written has none.
        """
        import torch

        tokenizer = self._tokenizer
        if max_tokens < tokenizer.truncation["max_length"]:
            tokenizer = type(tokenizer).from_str(tokenizer.to_str())
            tokenizer.enable_truncation(max_tokens)
        cut = tokenizer.encode_batch(list(texts))
        tokens = torch.tensor([each.ids for each in cut])
        is_token = torch.tensor([each.attention_mask for each in cut]).bool()
        if int(tokens.max()) >= self._vocabulary:
            raise TextEncoderError("the tokenizer knows tokens that the network does not", where=TOKENIZER)
        return tokens, is_token & torch.tensor([bool(text.strip()) for text in texts])[:, None]

    def below(self, tokens: Tensor, is_token: Tensor, num_layers: int) -> Tensor:
        """What comes into the first of the network's last layers.

        Args:
            tokens: as :meth:`tokens` cuts them.
            is_token: likewise.
            num_layers: how many last layers; at most as many as there are.

        Returns:
            texts × tokens × ``width`` float32; zeros where there is no token.
        """
        import torch

        with torch.no_grad():
            run = self._network(
                input_ids=tokens, attention_mask=is_token.long(), output_hidden_states=True, use_cache=False
            )
        # One more than there are layers: what came into each, and what came out of the last one.
        below: Tensor = run.hidden_states[-1 - num_layers]
        return below.masked_fill(~is_token[..., None], 0.0)  # a text without tokens may come out as no number

    def _encode(self, texts: list[str]) -> Vectors:
        import torch
        from torch.nn.functional import normalize

        tokens, is_token = self.tokens(texts)
        with torch.inference_mode():
            layer = self._network(input_ids=tokens, attention_mask=is_token.long()).last_hidden_state
            weights = is_token[..., None].to(layer.dtype)
            mean = (layer * weights).sum(1) / weights.sum(1).clamp(min=1)
            vectors: Vectors = normalize(mean, dim=1).numpy()
        if not np.isfinite(vectors).all():
            raise TextEncoderError("a vector that is not finite", where=WEIGHTS)
        return vectors


def load_network(files: EncoderFiles) -> tuple[Any, int]:
    """Build the network and read its weights.

    Returns:
        The network, to be used and not trained, and how many tokens it knows.

    Raises:
        TextEncoderError: sizes that fit no network, or weights of another one.
    """
    try:
        network = _build(files)
    except TextEncoderError:
        raise
    except Exception as error:  # sizes that fit no network end in whatever the library meets first
        raise TextEncoderError(
            f"no network can be made of it ({type(error).__name__}: {error})", where=str(files.directory)
        ) from error
    return network, network.get_input_embeddings().num_embeddings


def _build(files: EncoderFiles) -> Any:
    """The network with its weights; one token goes through it, as some sizes fail only there."""
    import torch
    from transformers import AutoConfig, AutoModel

    attention = _ATTENTION.get(files.config["model_type"], "sdpa")
    config = AutoConfig.for_model(**files.config)
    with torch.device("meta"):
        outline = AutoModel.from_config(config, attn_implementation=attention, trust_remote_code=False)
    prefix = _check_shapes(outline, files)
    network = AutoModel.from_config(config, attn_implementation=attention, trust_remote_code=False).float()
    with safe_open(files.directory / WEIGHTS, framework="pt") as file:
        for name, weight in network.named_parameters():
            if prefix + name in files.shapes:
                weight.data.copy_(file.get_tensor(prefix + name))
    with torch.inference_mode():
        network.eval()(input_ids=torch.tensor([[0]]), attention_mask=torch.tensor([[1]]))
    return network


def _check_shapes(outline: Any, files: EncoderFiles) -> str:
    """Compare the network that the config describes with the weights; returns what their names begin with.

    Raises:
        TextEncoderError: too large, a weight is missing or of another shape, or there are some of a network
            that the config does not describe.
    """
    wanted: Shapes = {name: tuple(weight.shape) for name, weight in outline.named_parameters()}
    if sum(weight.numel() for weight in outline.parameters()) > MAX_PARAMETERS:
        raise TextEncoderError(f"more than {MAX_PARAMETERS:,} weights", where=str(files.directory))
    named = f"{outline.base_model_prefix}."
    prefix = named if any(name.startswith(named) for name in files.shapes) else ""
    own = {
        name.removeprefix(prefix): shape for name, shape in files.shapes.items() if name.startswith(prefix)
    }
    for name in sorted(wanted.keys() | own.keys()):
        shape, found = wanted.get(name), own.get(name)
        if shape is None and not name.startswith(_UNUSED) and not name.endswith(_COUNTED):
            raise _not_alike(files, f"{prefix + name} stands in no network of config.json")
        if shape is not None and found != shape and not (found is None and name.startswith(_UNUSED)):
            said = "missing" if found is None else f"of shape {list(found)}"
            raise _not_alike(files, f"{prefix + name} is {said}, config.json says {list(shape)}")
    return prefix


def _not_alike(files: EncoderFiles, reason: str) -> TextEncoderError:
    remedy = "take both files from one copy of the model"
    return TextEncoderError(reason, where=str(files.directory / WEIGHTS), remedy=remedy)


def load_tokenizer(files: EncoderFiles, config: Any, max_tokens: int = MAX_TOKENS) -> Any:
    """Read the tokenizer; it cuts texts at ``max_tokens``, or at what the network has room for.

    Raises:
        TextEncoderError: no tokenizer, or a network without room for a token.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(files.directory / TOKENIZER))
    except Exception as error:  # the library raises nothing narrower
        raise TextEncoderError("this is no tokenizer", where=str(files.directory / TOKENIZER)) from error
    positions = getattr(config, "max_position_embeddings", MAX_TOKENS)
    padding = getattr(config, "pad_token_id", None) or 0
    before = padding + 1 if config.model_type in _AFTER_PADDING else 0
    room = positions - max(2, before)
    if padding < 0 or room < 1:
        raise TextEncoderError(
            f"pad_token_id {padding} and max_position_embeddings {positions} leave no place for a token",
            where=str(files.directory / CONFIG),
        )
    tokenizer.enable_truncation(min(max_tokens, room))
    tokenizer.enable_padding(pad_id=padding, length=None)
    return tokenizer
