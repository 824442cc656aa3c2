"""How surprised a place is by its item: cross-entropy over a list or a sample, without a table of scores.

Scores of places × items in float64 leave the processor's caches many times over, and autograd would keep
several such tables. Here a few places at a time are scored, compared and turned into a gradient at once; over
the whole list the numbers are those of ``cross_entropy(vectors @ features.T + bias)``.

Source of the loss over a sample: sampled softmax with logQ correction (Bengio & Senécal, IEEE TNN 2008; Yi et
al., RecSys 2019), here for uniform samples without replacement: each of ``m`` items drawn besides the wanted
one stands for ``(items - 1) / m``, so the expected denominator is that of the whole list, and it is that
denominator where all are drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORES_AT_ONCE = 1 << 16
"""Places × competing items scored at a time: half a megabyte."""


def next_item_losses(
    vectors: Tensor, wanted: Tensor, features: Tensor, bias: Tensor, drawn: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each place.

    Args:
        vectors: (asked, features), trained; a place's score of an item is the product with its features.
        wanted: (asked,) index of the item that is asked for.
        features: (items, features), constant.
        bias: (items,), constant, added to every place's scores.
        drawn: (count,) different items in order, at least two, that compete for all; None: all do.

    Returns:
        (asked,) losses, each a function of its own row alone.
    """
    own, column = (features[wanted], bias[wanted]), wanted
    is_rival, rivals = torch.ones_like(wanted, dtype=torch.bool), (features, bias)
    weight = torch.zeros(len(wanted), dtype=vectors.dtype)
    if drawn is not None:
        column = torch.searchsorted(drawn, wanted).clamp(max=len(drawn) - 1)
        is_rival, rivals = drawn[column] == wanted, (features[drawn], bias[drawn])
        weight = torch.log((len(features) - 1) / (len(drawn) - is_rival.to(vectors.dtype)))
    taken_out = torch.where(is_rival, -torch.inf, torch.zeros_like(weight))
    losses: Tensor = _NextItemLosses.apply(  # type: ignore[no-untyped-call]
        vectors, *own, *rivals, column[:, None], taken_out[:, None], weight[:, None]
    )
    return losses


class _NextItemLosses(torch.autograd.Function):
    """Losses, and on the way their gradients: expected features under the scores, less the wanted ones.

    Arguments after the vectors:
        own, own_bias: of the item that each place wants: (asked, features) and (asked,).
        features, bias: of the items that compete.
        column: (asked, 1) a competing item: the wanted one where it is among them.
        taken_out: (asked, 1) added to its score: -inf if it is the wanted one, no rival of itself, else 0.
        weight: (asked, 1) logarithm of how many items each competing one stands for.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, own: Tensor, own_bias: Tensor, features: Tensor, bias: Tensor,
        column: Tensor, taken_out: Tensor, weight: Tensor,
    ) -> Tensor:  # fmt: skip
        found = ((vectors * own).sum(dim=1) + own_bias)[:, None]
        losses, gradients = torch.empty_like(found), torch.empty_like(vectors)
        at_once = max(1, SCORES_AT_ONCE // len(features))
        for start in range(0, len(vectors), at_once):
            part = slice(start, start + at_once)
            scores = torch.addmm(bias, vectors[part], features.T)
            scores.scatter_add_(1, column[part], taken_out[part])
            losses[part] = _compare(scores, found[part], weight[part], features, own[part], gradients[part])
        ctx.save_for_backward(gradients)
        return losses[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, backprops: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return gradients * backprops[:, None], *(None,) * 7


def _compare(
    scores: Tensor, found: Tensor, weight: Tensor, features: Tensor, own: Tensor, gradients: Tensor
) -> Tensor:
    """Losses of some places; what each loss does along its vector is written into ``gradients``.

    Args:
        scores: places × competing items; overwritten.
        found: places × 1, scores of what is wanted.
        weight: places × 1, see :class:`_NextItemLosses`.
        features: competing items × features.
        own: places × features.
        gradients: places × features, written.
    """
    highest = torch.maximum(scores.amax(dim=1, keepdim=True) + weight, found)
    shares = scores.sub_(highest - weight).exp_()
    others = shares.sum(dim=1, keepdim=True)
    total = others + (found - highest).exp()
    torch.mm(shares, features, out=gradients)
    gradients.addcmul_(others, own, value=-1).div_(total)
    return total.log() + (highest - found)
