"""Somebody hands a silo a text encoder that does more than encode, or claims to be larger than memory."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs the extra language")

from silo.language.encoder import TextEncoder
from silo.language.files import MAX_BYTES, MAX_SIZE, MODEL_TYPES, EncoderFiles, TextEncoderError
from silo.language.store import TextEncoderMissingError, add_encoder, find_encoder
from tests.support.tiny_encoder import SIZES, make_tiny_encoder


class RunsWhenLoaded:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (Path.touch, ("was-run",))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    target = tmp_path / "encoder"
    target.mkdir()
    for name in MAX_BYTES:
        (target / name).write_bytes((sound / name).read_bytes())
    return target


def with_config(directory: Path, **changes: Any) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


def refused(directory: Path, match: str) -> None:
    """Neither looked at nor kept, and nothing of a claimed size was made to find that out."""
    with pytest.raises(TextEncoderError, match=match):
        add_encoder(directory.parent / "silo", directory)
    assert not list((directory.parent / "silo").rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "extra/state.pkl", "modeling_own.py"])
def test_a_directory_with_a_pickle_or_code(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(pickle.dumps(RunsWhenLoaded()))
    refused(copy, "can run code")
    assert not Path("was-run").exists()


def test_weights_that_are_a_pickle_under_another_name(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(pickle.dumps(RunsWhenLoaded()))
    refused(copy, "no safetensors")
    assert not Path("was-run").exists()


def test_remote_code_in_the_config(copy: Path) -> None:
    refused(with_config(copy, auto_map={"AutoModel": "someone/repo--modeling.Own"}), "names code")


def test_a_config_that_names_kernels_to_fetch_and_run(copy: Path) -> None:
    """Neither under the name of today's library nor under any other does the config reach beyond sizes."""
    kernels = "someone/own-kernels"
    named = {
        "attn_implementation": kernels,
        "_attn_implementation": kernels,
        "experts_implementation": kernels,
    }
    files = EncoderFiles.check(with_config(copy, **named, return_dict=False, use_kernels=True))
    assert not {*named, "return_dict", "use_kernels"} & files.config.keys()
    with_it = replace(files, config=files.config | {"attn_implementation": kernels})
    for each in (files, with_it):
        encoder = TextEncoder(each)
        assert encoder._network.config._attn_implementation == "sdpa"
        assert encoder.encode(["red shoe"]).any()


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_every_known_network_is_built_from_its_sizes(copy: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModel

    pad = {"mpnet": 1, "roberta": 1, "xlm-roberta": 1}.get(kind, 0)
    config = AutoConfig.for_model(**(SIZES | {"model_type": kind, "pad_token_id": pad}))
    AutoModel.from_config(config).save_pretrained(copy)
    texts = ["red shoe " * 100, "love song"]
    vectors = TextEncoder(EncoderFiles.check(copy)).encode(texts)
    assert vectors.shape == (2, SIZES["hidden_size"])
    assert vectors.any(axis=1).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"pad_token_id": 9_999},
        {"pad_token_id": -1},
        {"pad_token_id": "a"},
        {"hidden_act": "own"},
        {"layer_norm_eps": "a"},
        {"vocab_size": -1},
        {"max_position_embeddings": 0},
    ],
)
def test_sizes_that_no_network_has(copy: Path, sizes: dict[str, Any]) -> None:
    refused(with_config(copy, **sizes), "no network can be made|leave no place|config.json says")


def test_a_padding_that_leaves_no_place_for_a_token(copy: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    last = SIZES["max_position_embeddings"] - 1
    RobertaModel(RobertaConfig(**SIZES, pad_token_id=last)).save_pretrained(copy)
    refused(copy, "no place|no network can be made")


def test_weights_of_which_no_config_speaks_are_not_loaded(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may hold gigabytes beside a small network: refused by name or, as heads, left where they are."""
    import torch
    from safetensors import torch as files

    sound = files.load_file(copy / "model.safetensors")
    extra = {"encoder.layer.1.output.dense.weight": torch.zeros(2, 2)}
    files.save_file(sound | extra, copy / "model.safetensors")
    refused(copy, "stands in no network")

    def fail(*_: object) -> None:
        raise AssertionError("the whole file is loaded")

    named = {f"bert.{name}": tensor for name, tensor in sound.items()}
    head = {"cls.decoder.weight": torch.zeros(2, 2), "bert.embeddings.position_ids": torch.arange(40)[None]}
    files.save_file(named | head, copy / "model.safetensors")
    monkeypatch.setattr(files, "load_file", fail)
    assert TextEncoder(EncoderFiles.check(copy)).encode(["red shoe"]).any()


def test_an_adapter_that_names_another_model(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    refused(copy, "adapter")


def test_a_network_that_nobody_knows(copy: Path) -> None:
    refused(with_config(copy, model_type="own"), "model_type 'own'")


@pytest.mark.parametrize(
    ("size", "match"),
    [
        ({"vocab_size": MAX_SIZE + 1}, "a size above"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"hidden_size": MAX_SIZE, "intermediate_size": MAX_SIZE}, "more than"),
        ({"hidden_size": 4096}, "config.json says"),
        ({"num_hidden_layers": 2}, "missing"),
    ],
)
def test_a_config_that_claims_huge_or_other_tensors(copy: Path, size: dict[str, int], match: str) -> None:
    refused(with_config(copy, **size), match)


def test_a_header_that_claims_more_than_the_file_has(copy: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(copy, "no safetensors")


def test_weights_that_are_not_finite(copy: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    broken = {name: np.full_like(table, np.nan) for name, table in tensors.items()}
    save_file(broken, copy / "model.safetensors")
    refused(copy, "not finite")


def test_a_file_too_large_to_read(copy: Path) -> None:
    with (copy / "tokenizer.json").open("r+b") as file:
        file.truncate(MAX_BYTES["tokenizer.json"] + 1)
    refused(copy, "at most")


@pytest.mark.parametrize("content", [b"[]", b"{", b"[" * 100_000])
def test_a_config_that_is_no_config(copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    refused(copy, "no JSON|no description")


def test_a_tokenizer_with_tokens_beyond_the_network(copy: Path) -> None:
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["word"] = 10_000
    path.write_text(json.dumps(tokenizer))
    refused(copy, "tokens that the network does not")


def test_a_kept_encoder_that_was_altered_later(copy: Path, tmp_path: Path) -> None:
    kept = add_encoder(tmp_path / "silo", copy)
    with_config(kept.directory, hidden_act="relu")
    with pytest.raises(TextEncoderMissingError):
        find_encoder(tmp_path / "silo", kept.sha256)


def test_a_sound_one_is_kept_and_encodes_alike(sound: Path, tmp_path: Path) -> None:
    kept = add_encoder(tmp_path, sound)
    texts = ["red shoe", "love song"]
    found = TextEncoder(find_encoder(tmp_path, kept.sha256)).encode(texts)
    assert (found == TextEncoder(EncoderFiles.check(sound)).encode(texts)).all()
