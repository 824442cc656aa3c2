"""A marketplace that never was: people with hidden tastes, items with words, times and friends.

The demo's default data and the public set on which defaults are chosen. Everything follows from the seed, and
everything that can be seen (attributes, texts, friends, the order of a person's events) follows, with noise,
from the same hidden clusters, so that every family of models finds something to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.public_sets import ROW_SCHEMA, PublicSet

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DEPARTMENTS: Final = {
    "garden": ("planter", "trellis", "lantern", "bench", "hammock", "watering can"),
    "kitchen": ("kettle", "skillet", "chopping board", "teapot", "spice rack", "mixing bowl"),
    "outdoor": ("tent", "backpack", "headlamp", "sleeping bag", "camp stove", "water bottle"),
    "office": ("notebook", "desk lamp", "pen tray", "organiser", "chair", "monitor stand"),
    "music": ("guitar strap", "metronome", "songbook", "tuner", "drum pad", "microphone stand"),
    "toys": ("puzzle", "train set", "kite", "building kit", "board game", "plush bear"),
    "sports": ("yoga mat", "jump rope", "racket", "dumbbell", "cycling bell", "swim goggles"),
    "beauty": ("soap", "hand cream", "hair brush", "bath salts", "mirror", "perfume"),
}
STYLES: Final = ("rustic", "minimal", "retro")
_MATERIALS: Final = ("oak", "steel", "linen", "ceramic", "bamboo", "leather", "glass", "wool")
_PRICE_BANDS: Final = ("budget", "everyday", "premium")
_TASTE_DIMENSIONS: Final = 12
_TASTE_STRENGTH: Final = 6.5
_POPULARITY_SPREAD: Final = 1.3
_MIN_EVENTS: Final = 5
_MEDIAN_EVENTS: Final = 32.0
_EVENTS_SPREAD: Final = 0.85
_MAX_SHARE_OF_CATALOGUE: Final = 0.3
_ATTRIBUTE_SLIP: Final = 0.1
_FIRST_DAY: Final = 1_672_531_200  # 2023-01-01 UTC
_DAYS: Final = 730
_DAY_SECONDS: Final = 86_400
_FRIENDS_BY_TASTE: Final = 4
_FRIEND_CANDIDATES: Final = 48
_USERS_PER_BLOCK: Final = 1024


@dataclass(frozen=True)
class World:
    """What nobody sees: vectors of taste.

    Attributes:
        centres: clusters × dimensions, of norm 1.
        clusters: of each item.
        items: items × dimensions, of norm 1.
        users: people × dimensions, of norm 1.
        popularity: of each item, added to every person's utility.
    """

    centres: Floats
    clusters: Integers
    items: Floats
    users: Floats
    popularity: Floats


def marketplace(seed: int, num_users: int = 8_192, num_items: int = 1_200) -> PublicSet:
    """Make the marketplace of ``seed``.

    Args:
        seed: same seed and sizes, same marketplace.
        num_users: people, each with at least five events.
        num_items: items; 50 or more.

    Returns:
        A public set with ratings absent, times, item attributes (department, style, price band) and texts,
        and a friend graph (each pair once, ``user_id < friend_id``).

    Raises:
        UsageError: sizes that make no marketplace.
    """
    if num_users < 2 or num_items < 50:
        raise UsageError(
            f"a marketplace of {num_users} users and {num_items} items is too small",
            remedy="Ask for 2 users and 50 items or more.",
        )
    rng = np.random.default_rng([seed, num_users, num_items])
    world = make_world(rng, num_users, num_items)
    catalogue = Catalogue.from_items(_describe_items(rng, world.clusters))
    users, items, times = _make_events(rng, world)
    user_names = names_of("u", num_users)
    rows = pl.DataFrame(
        {
            "user_id": user_names.gather(users),
            "item_id": names_of("p", num_items).gather(items),
            "timestamp": times,
            "rating": pl.Series([None], dtype=pl.Float64).new_from_index(0, users.size),
        },
        schema=ROW_SCHEMA,
    )
    return PublicSet(
        name=f"marketplace-{seed}",
        rows=rows.sort("user_id", "item_id"),
        catalogue=catalogue,
        notes=("Synthetic: made from the seed, no real person's data.",),
        friends=_make_friends(rng, world.users, user_names),
    )


def names_of(prefix: str, count: int) -> pl.Series:
    """Return ``count`` ids of equal length."""
    digits = len(str(count - 1))
    return pl.Series([f"{prefix}{number:0{digits}d}" for number in range(count)])


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float64)


def make_world(rng: np.random.Generator, num_users: int, num_items: int) -> World:
    """Draw tastes of people and places of items among them."""
    num_clusters = len(DEPARTMENTS) * len(STYLES)
    departments = rng.standard_normal((len(DEPARTMENTS), 1, _TASTE_DIMENSIONS))
    styles = rng.standard_normal((1, len(STYLES), _TASTE_DIMENSIONS))
    centres = _unit((departments + 0.7 * styles).reshape(num_clusters, -1))
    clusters, items = place_items(rng, centres, num_items)
    weights = rng.dirichlet(np.full(num_clusters, 0.09), size=num_users)
    users = _unit(weights @ centres + 0.08 * rng.standard_normal((num_users, _TASTE_DIMENSIONS)))
    popularity = _POPULARITY_SPREAD * rng.standard_normal(num_items)
    return World(centres, clusters, items, users, popularity)


def place_items(rng: np.random.Generator, centres: Floats, num_items: int) -> tuple[Integers, Floats]:
    """Return a cluster and, near its centre, a vector of norm 1 for each item."""
    num_clusters, num_dimensions = centres.shape
    clusters = rng.choice(num_clusters, num_items, p=rng.dirichlet(np.full(num_clusters, 8.0)))
    return clusters, _unit(centres[clusters] + 0.16 * rng.standard_normal((num_items, num_dimensions)))


def _make_events(rng: np.random.Generator, world: World) -> tuple[Integers, Integers, Integers]:
    """Users, items and times."""
    users, items, counts = choose_items(rng, world, _MEDIAN_EVENTS)
    return _in_time(rng, users, items, world.clusters, counts)


def choose_items(
    rng: np.random.Generator, world: World, median_events: float
) -> tuple[Integers, Integers, Integers]:
    """Users, items, and how many each user has; drawn without replacement by Gumbel top-k."""
    num_users, num_items = len(world.users), len(world.items)
    activity = rng.lognormal(np.log(median_events), _EVENTS_SPREAD, num_users)
    most = max(_MIN_EVENTS, int(_MAX_SHARE_OF_CATALOGUE * num_items))
    counts = np.clip(activity, _MIN_EVENTS, most).astype(np.int64)
    chosen = []
    for start in range(0, num_users, _USERS_PER_BLOCK):
        tastes = world.users[start : start + _USERS_PER_BLOCK]
        utility = _TASTE_STRENGTH * (tastes @ world.items.T) + world.popularity
        keys = rng.gumbel(size=utility.shape) + utility
        order = np.argsort(-keys, axis=1)[:, :most]
        block_counts = counts[start : start + _USERS_PER_BLOCK]
        chosen.append(order[np.arange(order.shape[1]) < block_counts[:, None]])
    return np.repeat(np.arange(num_users), counts), np.concatenate(chosen), counts


def _in_time(
    rng: np.random.Generator, users: Integers, items: Integers, clusters: Integers, counts: Integers
) -> tuple[Integers, Integers, Integers]:
    """Give each person a first day and visits; items of one cluster tend to fall into the same visits."""
    moods = rng.random((counts.size, int(clusters.max()) + 1))
    mood = moods[users, clusters[items]] + 0.15 * rng.standard_normal(users.size)
    order = np.lexsort((mood, users))
    users, items = users[order], items[order]
    place = np.arange(users.size) - np.repeat(np.cumsum(counts) - counts, counts)
    first = rng.uniform(0.0, 0.5 * _DAYS, counts.size)
    length = rng.uniform(0.1, 0.5, counts.size) * _DAYS
    visits = np.maximum(1, counts // 4)
    visit = np.floor(place * visits[users] / counts[users])
    day = np.floor(first[users] + length[users] * visit / visits[users])
    minute = 18 * 3600 + 90 * (place % 8) + rng.integers(0, 60, users.size)
    return users, items, (_FIRST_DAY + _DAY_SECONDS * day + minute).astype(np.int64)


def _describe_items(rng: np.random.Generator, clusters: Integers) -> list[CatalogueItem]:
    departments = list(DEPARTMENTS)
    names = names_of("p", clusters.size)
    slips = rng.random((clusters.size, 2)) < _ATTRIBUTE_SLIP
    others = rng.integers(0, [len(departments), len(STYLES)], (clusters.size, 2))
    picks = rng.integers(0, [6, len(_MATERIALS), len(_PRICE_BANDS)], (clusters.size, 3))
    items = []
    for number, cluster in enumerate(clusters):
        truth = (int(cluster) // len(STYLES), int(cluster) % len(STYLES))
        told = [
            int(other) if slip else true
            for true, other, slip in zip(truth, others[number], slips[number], strict=True)
        ]
        department, style = departments[told[0]], STYLES[told[1]]
        thing, material = DEPARTMENTS[department][picks[number, 0]], _MATERIALS[picks[number, 1]]
        price = _PRICE_BANDS[picks[number, 2]]
        items.append(
            CatalogueItem(
                item_id=names[number],
                title=f"{style.capitalize()} {material} {thing}",
                text=f"A {style} {thing} made of {material} for the {department} shelf; {price} price.",
                attributes=(f"department: {department}", f"style: {style}", f"price: {price}"),
            )
        )
    return items


def _make_friends(rng: np.random.Generator, tastes: Floats, names: pl.Series) -> pl.DataFrame:
    """Link each person to the likeliest of some acquaintances, and to one at random."""
    num_users = len(tastes)
    candidates = rng.integers(0, num_users, (num_users, _FRIEND_CANDIDATES))
    likeness = np.einsum("ud,ucd->uc", tastes, tastes[candidates])
    closest = np.argsort(-likeness, axis=1)[:, :_FRIENDS_BY_TASTE]
    friends = np.concatenate([np.take_along_axis(candidates, closest, axis=1), candidates[:, :1]], axis=1)
    me = np.repeat(np.arange(num_users), friends.shape[1])
    pairs = np.sort(np.stack([me, friends.ravel()], axis=1), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    return pl.DataFrame({"user_id": names.gather(pairs[:, 0]), "friend_id": names.gather(pairs[:, 1])})
