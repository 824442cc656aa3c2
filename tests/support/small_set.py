"""A small public data set as files: enough structure to learn, little enough to run in seconds.

Names of users are long and odd on purpose: a search of files for them finds no chance matches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_ITEMS = 140
NUM_USERS = 320
GENRES = ("drama", "war", "noir", "comedy")


def user_name(index: int) -> str:
    return f"person-{index * 7919 % 100_003:06d}-of-the-test"


def write_set(directory: Path, seed: int = 1) -> Path:
    """Write ``items.csv`` and ``interactions.csv``; four tastes, few popular items, uneven histories."""
    directory.mkdir(parents=True)
    items = [f"item-{i:04d},Item {i},{GENRES[i % 4]}" for i in range(NUM_ITEMS)]
    (directory / "items.csv").write_text("\n".join(["item_id,title,genres", *items]) + "\n")
    rng = np.random.default_rng(seed)
    popularity = (1.0 + np.arange(NUM_ITEMS)) ** -0.7
    lines = ["user_id,item_id,timestamp"]
    for user in range(NUM_USERS):
        odds = popularity * np.where(np.arange(NUM_ITEMS) % 4 == user % 4, 8.0, 1.0)
        chosen = rng.choice(NUM_ITEMS, int(rng.integers(1, 30)), replace=False, p=odds / odds.sum())
        lines += [f"{user_name(user)},item-{item:04d},{1_600_000_000 + at}" for at, item in enumerate(chosen)]
    (directory / "interactions.csv").write_text("\n".join(lines) + "\n")
    return directory
