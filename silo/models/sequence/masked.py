"""``masked``: each place attends to all others (BERT4Rec, Sun et al., CIKM 2019)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from silo.models.sequence.attention import AttentionBlock
from silo.models.sequence.trunk import Trunk, TrunkSize


class Masked(Trunk):
    """Positions are added, then blocks of attention that look both ways, padding left out."""

    is_causal: ClassVar[bool] = False

    def __init__(self, size: TrunkSize) -> None:
        super().__init__(size)
        self.position = nn.Embedding(size.places, size.width)
        self.blocks = nn.ModuleList(AttentionBlock(size.width, size.dropout) for _ in range(size.layers))
        self.last = nn.LayerNorm(size.width)

    @override
    def forward(self, vectors: Tensor, is_item: Tensor) -> Tensor:
        places = torch.arange(vectors.shape[1]).expand(vectors.shape[:2])
        vectors = vectors + self.position(places)
        # Somebody without a history sees the first place, or a softmax over nothing would be no number.
        may_see = is_item | (places == 0)
        for block in self.blocks:
            vectors = block(vectors, may_see)
        read: Tensor = self.last(vectors)
        return read
