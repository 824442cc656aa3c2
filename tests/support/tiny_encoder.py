"""A text encoder small enough to be made in a test: real files of the library's own, random weights."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ("red", "blue", "green", "shoe", "shirt", "film", "song", "war", "love", "space")
TURNS = ("<|im_start|>", "<|im_end|>")
VOCABULARY = (*WORDS, "Item", "a", "b", "c", *map(str, range(30)))
SIZES = {
    "vocab_size": 4 + len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}


def make_tiny_encoder(
    directory: Path, seed: int = 0, *, layers: int = 1, model_type: str = "bert", spread: float | None = None
) -> Path:
    """Write config.json, tokenizer.json and model.safetensors of a network of some thousand weights.

    Args:
        directory: existing.
        seed: of the weights.
        layers: of the network.
        model_type: any that the library has a network of that needs no more sizes than these.
        spread: of the weights of maps; left out: the library's, with which texts hardly differ.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModel

    sizes = SIZES | {"num_hidden_layers": layers, "pad_token_id": 0}
    if model_type == "llama":
        sizes |= {"num_key_value_heads": 1}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModel.from_config(AutoConfig.for_model(model_type, **sizes))
        for weight in network.parameters():
            if spread is not None and weight.dim() == 2:
                torch.nn.init.normal_(weight, std=spread)
    network.save_pretrained(directory)
    vocabulary = {
        word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *VOCABULARY))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def make_tiny_writer(directory: Path) -> Path:
    """Write a network that also writes: of type llama, the last two words of its vocabulary end turns."""
    path = make_tiny_encoder(directory, layers=2, model_type="llama", spread=0.4) / "tokenizer.json"
    content = json.loads(path.read_text())
    for name, old in zip(TURNS, ("28", "29"), strict=True):
        number = content["model"]["vocab"].pop(old)
        content["model"]["vocab"][name] = number
        content["added_tokens"].append(
            {"id": number, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
        )  # fmt: skip
    path.write_text(json.dumps(content))
    return directory
