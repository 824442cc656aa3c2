"""A softmax over a sample of a long list: every item as likely as another, the same ones for everybody.

Items in the loss of several people are no private matter as long as coins and list are public; negatives
taken from other people of a batch would be, and are never used.

Source: sampled softmax with logQ correction (Bengio & Senécal, IEEE TNN 2008; Yi et al., RecSys 2019), here
for uniform samples without replacement: each of ``m`` items drawn besides the target stands for
``(items - 1) / m``, so the expected denominator is that of the whole list, and it is that denominator where
all are drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sampled_items(num_items: int, count: int, seed: int, step: int) -> NDArray[np.int64]:
    """The items that compete in a step: ``count`` different ones in order, by public coins."""
    drawn = np.random.default_rng([seed, step]).choice(num_items, count, replace=False)
    return np.sort(drawn).astype(np.int64)


def sampled_losses(read: Tensor, wanted: Tensor, features: Tensor, bias: Tensor, drawn: Tensor) -> Tensor:
    """Cross-entropy of what was wanted among the drawn items, corrected for those that were not drawn.

    Args:
        read: (places, width), what a network says at each place.
        wanted: (places,) items.
        features: items × width.
        bias: (items,).
        drawn: (count,) different items, at least two.

    Returns:
        (places,) losses.
    """
    of_wanted = (read * features[wanted]).sum(dim=1) + bias[wanted]
    is_wanted = drawn == wanted[:, None]
    others = (len(drawn) - is_wanted.sum(dim=1, keepdim=True)).to(read.dtype)
    scores = read @ features[drawn].T + bias[drawn] + torch.log((len(features) - 1) / others)
    competing = torch.cat([of_wanted[:, None], scores.masked_fill(is_wanted, -torch.inf)], dim=1)
    losses: Tensor = torch.logsumexp(competing, dim=1) - of_wanted
    return losses
