"""Short texts by a GPT-type network that a silo keeps as an encoder: local, greedy, bounded."""

from __future__ import annotations

import re
from typing import Final

from safetensors import safe_open

from silo.extras import require_extra
from silo.language.encoder import load_network, load_tokenizer
from silo.language.files import TOKENIZER, WEIGHTS, EncoderFiles, TextEncoderError

WRITES: Final = "llama"
"""The type of network that also writes."""
MAX_PROMPT_TOKENS: Final = 512
MAX_NEW_TOKENS: Final = 48

_TURN: Final = "<|im_start|>"
_END: Final = "<|im_end|>"
_UNPRINTED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]+")


class TextWriter:
    """A network that goes on with a text, always by the likeliest token, so the same text gives the same.

    Args:
        files: checked; a network of type ``llama`` that was taught to answer in turns (ChatML).

    Raises:
        MissingExtraError: the libraries of the extra ``language`` are not installed.
        TextEncoderError: a network that cannot write, or files that do not fit each other.
    """

    def __init__(self, files: EncoderFiles) -> None:
        require_extra("language", "transformers", "tokenizers")
        import torch
        from transformers import AutoModelForCausalLM

        if files.config["model_type"] != WRITES:
            raise TextEncoderError(
                f"a network of type {files.config['model_type']} reads and does not write",
                where=str(files.directory),
                remedy="archipel silo encoder convert makes one that does",
            )
        network, _ = load_network(files)
        self._tokenizer = load_tokenizer(files, network.config, MAX_PROMPT_TOKENS)
        self._end = self._tokenizer.token_to_id(_END)
        if self._end is None or self._tokenizer.token_to_id(_TURN) is None:
            raise TextEncoderError(
                "a tokenizer without turns: this network was not taught to answer",
                where=str(files.directory / TOKENIZER),
                remedy="take an instructed model with ChatML, such as SmolLM2-135M-Instruct",
            )
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(network.config, trust_remote_code=False)
        whole.model = network
        whole.lm_head.weight = network.embed_tokens.weight
        if "lm_head.weight" in files.shapes:
            with safe_open(files.directory / WEIGHTS, framework="pt") as file:
                whole.lm_head.weight = torch.nn.Parameter(file.get_tensor("lm_head.weight").float())
        self._network = whole.eval()

    def write(self, system: str, user: str, start: str = "") -> str:
        """Answer in one paragraph of at most ``MAX_NEW_TOKENS`` tokens, without control characters.

        Args:
            system: what the network is to do.
            user: what it is asked; of system and user together the first ``MAX_PROMPT_TOKENS`` are read.
            start: what the answer begins with; a small network then keeps to the matter.
        """
        import torch

        turns = [("system", system), ("user", user)]
        prompt = "".join(f"{_TURN}{who}\n{_said(text)}{_END}\n" for who, text in turns)
        tokens = torch.tensor([self._tokenizer.encode(f"{prompt}{_TURN}assistant\n{_said(start)}").ids])
        with torch.inference_mode():
            written = self._network.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                eos_token_id=self._end,
                pad_token_id=self._end,
            )
        text = self._tokenizer.decode(written[0, tokens.shape[1] :].tolist(), skip_special_tokens=True)
        return _UNPRINTED.sub(" ", (_said(start) + text).strip().split("\n")[0]).strip()


def _said(text: str) -> str:
    """A text that cannot end its turn or start another one."""
    return text.replace(_TURN, " ").replace(_END, " ")
