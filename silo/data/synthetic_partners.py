"""What other organisations know of the marketplace's people: what they view, and whom they follow.

Everything follows the tastes that :func:`silo.data.synthetic.marketplace` draws from the same seed and sizes:
the marketplace's own rows stay as they are, whatever is drawn here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from silo.data.synthetic import choose_items, make_world, names_of, place_items

_MEDIAN_VIEWS: Final = 40.0
_POPULARITY_SPREAD: Final = 1.0
_MEDIAN_FOLLOWED: Final = 30.0
_FAME_SPREAD: Final = 2.5
_VIEWS, _FOLLOWS = 1, 2
"""Tell these draws from the marketplace's own, and from each other."""


def content_views(seed: int, num_users: int, num_items: int, num_contents: int) -> pl.DataFrame:
    """Articles and videos that the people of a marketplace have viewed.

    Args:
        seed: of the marketplace.
        num_users: of the marketplace.
        num_items: of the marketplace.
        num_contents: articles and videos, half of each.

    Returns:
        Columns ``user_id`` (the marketplace's) and ``item_id``; each pair once, sorted.
    """
    world = make_world(np.random.default_rng([seed, num_users, num_items]), num_users, num_items)
    rng = np.random.default_rng([seed, num_users, num_items, _VIEWS])
    clusters, contents = place_items(rng, world.centres, num_contents)
    popularity = _POPULARITY_SPREAD * rng.standard_normal(num_contents)
    world = replace(world, clusters=clusters, items=contents, popularity=popularity)
    users, viewed, _ = choose_items(rng, world, _MEDIAN_VIEWS)
    names = pl.concat(
        [names_of("article-", num_contents - num_contents // 2), names_of("video-", num_contents // 2)]
    )
    frame = pl.DataFrame({"user_id": names_of("u", num_users).gather(users), "item_id": names.gather(viewed)})
    return frame.sort("user_id", "item_id")


def follows(seed: int, num_users: int, num_items: int) -> pl.DataFrame:
    """Whom people of a marketplace follow on a social network: people like them, and a few whom many know.

    Arguments as for :func:`content_views`.

    Returns:
        Columns ``user_id`` and ``item_id`` (who is followed); nobody follows themselves; sorted.
    """
    world = make_world(np.random.default_rng([seed, num_users, num_items]), num_users, num_items)
    rng = np.random.default_rng([seed, num_users, num_items, _FOLLOWS])
    fame = _FAME_SPREAD * rng.standard_normal(num_users)
    users, followed, _ = choose_items(
        rng, replace(world, items=world.users, popularity=fame), _MEDIAN_FOLLOWED
    )
    is_other = users != followed
    names = names_of("u", num_users)
    frame = pl.DataFrame(
        {"user_id": names.gather(users[is_other]), "item_id": names.gather(followed[is_other])}
    )
    return frame.sort("user_id", "item_id")
