"""A sample of a long list: every item as likely as another, the same ones for everybody.

Items in the loss of several people are no private matter as long as coins and list are public; negatives
taken from other people of a batch would be, and are never used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sampled_items(num_items: int, count: int, seed: int, step: int) -> NDArray[np.int64]:
    """The items that compete in a step: ``count`` different ones in order, by public coins."""
    drawn = np.random.default_rng([seed, step]).choice(num_items, count, replace=False)
    return np.sort(drawn).astype(np.int64)
