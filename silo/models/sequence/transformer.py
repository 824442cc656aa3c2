"""``transformer``: each place attends to itself and those before it (SASRec, Kang & McAuley, ICDM 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from silo.models.sequence.attention import AttentionBlock
from silo.models.sequence.trunk import Trunk, TrunkSize


class Transformer(Trunk):
    """Positions are added, then blocks of attention."""

    def __init__(self, size: TrunkSize) -> None:
        super().__init__(size)
        self.position = nn.Embedding(size.places, size.width)
        self.blocks = nn.ModuleList(AttentionBlock(size.width, size.dropout) for _ in range(size.layers))
        self.last = nn.LayerNorm(size.width)

    @override
    def forward(self, vectors: Tensor, is_item: Tensor) -> Tensor:
        # One row of places a user: a position that all users share would have one gradient for all of them.
        places = torch.arange(vectors.shape[1]).expand(vectors.shape[:2])
        vectors = vectors + self.position(places)
        for block in self.blocks:
            vectors = block(vectors)
        read: Tensor = self.last(vectors)
        return read
