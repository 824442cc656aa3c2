"""``cnn``: convolutions over places, dilated: few layers see far (NextItNet, Yuan et al., WSDM 2019)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from silo.models.sequence.trunk import Trunk, TrunkSize

REACH = 3
"""Places that one convolution sees."""


class CausalConvolution(nn.Module):
    """Adds to each place what a convolution makes of it and those before it.

    Args:
        width: of a place.
        dilation: distance between two places that are seen.
        dropout: on what is added.
    """

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.before = (REACH - 1) * dilation
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, width, REACH, dilation=dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """(users, places, width) to the same."""
        padded = functional.pad(self.norm(vectors).transpose(1, 2), (self.before, 0))
        added: Tensor = self.dropout(functional.relu(self.convolution(padded))).transpose(1, 2)
        return vectors + added


class Cnn(Trunk):
    """Layers of causal convolutions, each seeing twice as far as the one before."""

    def __init__(self, size: TrunkSize) -> None:
        super().__init__(size)
        self.blocks = nn.ModuleList(
            CausalConvolution(size.width, 2**layer, size.dropout) for layer in range(size.layers)
        )
        self.last = nn.LayerNorm(size.width)

    @override
    def forward(self, vectors: Tensor, is_item: Tensor) -> Tensor:
        for block in self.blocks:
            vectors = block(vectors)
        read: Tensor = self.last(vectors)
        return read
