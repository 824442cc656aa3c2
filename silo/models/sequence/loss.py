"""How surprised a place is by its item: cross-entropy over all items, without a table of all scores.

Scores of places × items in float64 leave the processor's caches many times over, and autograd would keep
several such tables. Here a few places at a time are scored, compared and turned into a gradient at once; the
numbers are those of ``cross_entropy(vectors @ features.T + bias)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORES_AT_ONCE = 1 << 16
"""Places × items scored at a time: half a megabyte."""


def next_item_losses(vectors: Tensor, wanted: Tensor, features: Tensor, bias: Tensor) -> Tensor:
    """Cross-entropy of each place.

    Args:
        vectors: (asked, features), trained; a place's score of an item is the product with its features.
        wanted: (asked,) index of the item that is asked for.
        features: (items, features), constant.
        bias: (items,), constant, added to every place's scores.

    Returns:
        (asked,) losses, each a function of its own row alone.
    """
    losses: Tensor = _NextItemLosses.apply(vectors, wanted, features, bias)  # type: ignore[no-untyped-call]
    return losses


class _NextItemLosses(torch.autograd.Function):
    """Losses, and on the way their gradients: expected features under the scores, less the wanted ones."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, wanted: Tensor, features: Tensor, bias: Tensor) -> Tensor:
        losses, gradients = vectors.new_empty(len(vectors)), torch.empty_like(vectors)
        at_once = max(1, SCORES_AT_ONCE // len(features))
        for start in range(0, len(vectors), at_once):
            part = slice(start, start + at_once)
            losses[part] = _score(vectors[part], wanted[part], features, bias, gradients[part])
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, backprops: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * backprops[:, None], None, None, None


def _score(vectors: Tensor, wanted: Tensor, features: Tensor, bias: Tensor, gradients: Tensor) -> Tensor:
    """Losses of some places; what each loss does along its vector is written into ``gradients``."""
    scores = torch.addmm(bias, vectors, features.T)
    found = scores.gather(1, wanted[:, None])[:, 0]
    highest = scores.amax(dim=1, keepdim=True)
    shares = scores.sub_(highest).exp_()
    total = shares.sum(dim=1, keepdim=True)
    torch.mm(shares, features, out=gradients)
    gradients.div_(total).sub_(features[wanted])
    return (total.log() + highest)[:, 0] - found
