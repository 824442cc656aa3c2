"""``gru``: one state carried from place to place (GRU4Rec, Hidasi et al., ICLR 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from privacy.dpsgd.recurrent import GRU
from silo.models.sequence.trunk import Trunk, TrunkSize


class Gru(Trunk):
    """Layers of gated recurrent units."""

    def __init__(self, size: TrunkSize) -> None:
        super().__init__(size)
        self.layers = GRU(size.width, size.width, size.layers, batch_first=True)
        self.dropout = nn.Dropout(size.dropout)
        self.last = nn.LayerNorm(size.width)

    @override
    def forward(self, vectors: Tensor, is_item: Tensor) -> Tensor:
        states, _ = self.layers(vectors)
        read: Tensor = self.last(self.dropout(states))
        return read
