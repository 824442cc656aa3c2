"""A text encoder small enough to be made in a test: real files of the library's own, random weights."""

from __future__ import annotations

from pathlib import Path

WORDS = ("red", "blue", "green", "shoe", "shirt", "film", "song", "war", "love", "space")
VOCABULARY = (*WORDS, "Item", "a", "b", "c", *map(str, range(30)))
SIZES = {
    "vocab_size": 4 + len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}


def make_tiny_encoder(directory: Path, seed: int = 0) -> Path:
    """Write config.json, tokenizer.json and model.safetensors of a BERT of some thousand weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BertModel(BertConfig(**SIZES))
    network.save_pretrained(directory)
    vocabulary = {
        word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *VOCABULARY))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory
