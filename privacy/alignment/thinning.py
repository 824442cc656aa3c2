"""How many of a silo's people go into its list: all who are sure to fit, else a random part of them.

A list has a declared number of places, and nobody may see that a silo has more people than that. No rule
can keep everybody while they fit, never more than fit, and move one person only when one comes: at the edge
one more pushes another out. So each person is kept by a coin of their own, and how the coins are biased
follows from a noised number of people, never from the number itself.

Guarantees
----------
- The bias is ε-private: one person more changes the number by at most 1, and the noise is discrete Laplace of
  scale ``1/ε``. Where one person may stand behind several entries, the caller divides ``ε`` by their number.
- Given the bias, one person more is at most one entry more. Nobody else's coin moves.
- More people than places are kept with probability below 2^-40 for the noise and 2^-40 for the coins.

==============================  ============================================================================
people                          kept
==============================  ============================================================================
``2 · reserve(ε)`` below        all, but for a chance of 2^-40
``reserve(ε)`` below the        all or nearly all, as the noise falls
places
above                           about the places less the reserve and the spread of the coins
==============================  ============================================================================
"""

from __future__ import annotations

import math

from privacy.alignment.spine import discrete_laplace
from privacy.randomness import WordSource

_NATS = 40 * math.log(2.0)
"""A chance of 2^-40, the usual statistical security parameter, as an exponent."""


def reserve(epsilon: float) -> int:
    """Places that the noise may need: it falls further than so many with probability below 2^-40.

    Args:
        epsilon: of one entry.
    """
    return math.ceil(_NATS / epsilon)


def share_kept(num_people: int, capacity: int, epsilon: float, source: WordSource) -> float:
    """Return the probability with which each person is to be kept, 1.0 where all are sure to fit.

    Args:
        num_people: of the silo; the result is ε-private in it.
        capacity: declared, public.
        epsilon: of one entry, at least 0.0001.
        source: uniform words.

    Raises:
        GateEpsilonError: below that, or not a number.
    """
    at_most = num_people + discrete_laplace(epsilon, source) + reserve(epsilon)
    if at_most <= capacity:
        return 1.0
    # Of n = at_most people, each left out with probability d/n, fewer than d - √(2 d t) are left out with
    # probability at most exp(-t) (Chernoff's lower tail). That has to be the surplus; solved for √d.
    surplus, root = at_most - capacity, math.sqrt(2.0 * _NATS)
    left_out = ((root + math.sqrt(root**2 + 4.0 * surplus)) / 2.0) ** 2
    return max(0.0, 1.0 - left_out / at_most)
