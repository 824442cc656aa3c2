"""A layer of self-attention and a layer of its own for each place, made of plain linear maps.

``nn.MultiheadAttention`` keeps its maps in one parameter that is used behind its layer's back, so gradients
of single people could not be told apart.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

HEADS = 2
SPREAD = 2
"""Width between the two maps of a place, over the width of the places."""


class AttentionBlock(nn.Module):
    """Pre-norm block (Xiong et al., ICML 2020): attention over places, then two maps of each place.

    Args:
        width: of a place; divisible by ``HEADS``.
        dropout: on what each half adds.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_maps = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        # A bias of keys moves all scores of a query alike: it would be noised and do nothing.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, SPREAD * width), nn.Linear(SPREAD * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, may_see: Tensor | None = None) -> Tensor:
        """Read (users, places, width).

        Args:
            vectors: what stands at each place.
            may_see: (users, places) bool, places that all others see; None: each those up to itself.
        """
        normed = self.before_attention(vectors)
        query, key, value = (self._heads(part(normed)) for part in (self.query, self.key, self.value))
        mask = None if may_see is None else may_see[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None
        )
        vectors = vectors + self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))
        inner = functional.gelu(self.expand(self.before_maps(vectors)))
        added: Tensor = self.dropout(self.contract(inner))
        return vectors + added

    @staticmethod
    def _heads(values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], HEADS, -1).transpose(1, 2)
