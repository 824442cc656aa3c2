"""What comes into the first adapted layer, text by text: run once for each item, kept within a bound.

Exact: a text's activations depend on nothing but the text, so what is kept is what would be computed again.
They are computed in blocks of neighbouring items, the same whoever asks in whatever order, because rounding
depends on what stands in a batch: a person's gradient may not change in any bit with who was asked before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from silo.language.encoder import MAX_CHARACTERS

if TYPE_CHECKING:
    from silo.language.encoder import TextEncoder

BLOCK_TEXTS: Final = 32
DEFAULT_CACHE_BYTES: Final = 1 << 30


class FrozenActivations:
    """Activations of a catalogue's texts below the adapted layers.

    Args:
        encoder: whose lower layers; its network is left as it is.
        texts: of the items, in their order; one may be empty.
        num_layers: how many of the last layers are adapted.
        max_tokens: most tokens that are read of a text.
        max_bytes: of activations that are kept; one block at least. The least recently used go first.

    Attributes:
        num_tokens: tokens that every text is padded to: of the longest one, at most ``max_tokens``.
        is_token: texts × ``num_tokens`` bool; a row without any is a text in which nothing is written.
        num_computed: blocks that were run through the network so far.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        texts: Sequence[str],
        num_layers: int,
        max_tokens: int,
        max_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        cut = encoder.tokens([text.strip()[:MAX_CHARACTERS] for text in texts], max_tokens)
        self._tokens, self.is_token = cut
        self.num_tokens: int = self._tokens.shape[1]
        self._encoder, self._num_layers = encoder, num_layers
        block_bytes = BLOCK_TEXTS * self.num_tokens * encoder.width * torch.float32.itemsize
        self._max_blocks = max(1, max_bytes // block_bytes)
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self.num_computed = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def of(self, items: Tensor) -> Tensor:
        """Activations of items.

        Args:
            items: indices, of any shape.

        Returns:
            ``items.shape`` × ``num_tokens`` × width, float64.
        """
        flat = items.reshape(-1)
        found = torch.empty(len(flat), self.num_tokens, self._encoder.width, dtype=torch.float64)
        for number in torch.unique(flat // BLOCK_TEXTS).tolist():
            is_inside = flat // BLOCK_TEXTS == number
            found[is_inside] = self._block(number)[flat[is_inside] - number * BLOCK_TEXTS].double()
        return found.reshape(*items.shape, *found.shape[1:])

    def _block(self, number: int) -> Tensor:
        if number not in self._kept:
            rows = slice(number * BLOCK_TEXTS, (number + 1) * BLOCK_TEXTS)
            tokens, is_token = self._tokens[rows], self.is_token[rows]
            self._kept[number] = self._encoder.below(tokens, is_token, self._num_layers)
            self.num_computed += 1
            if len(self._kept) > self._max_blocks:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]
