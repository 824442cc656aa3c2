"""What a demo is asked to do."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from privacy.errors import UsageError

PublicFormat = Literal["movielens", "csv", "parquet", "inter"]
MAX_INTERACTIONS_PER_USER = 200


@dataclass(frozen=True)
class DemoSettings:
    """Settings of one demo.

    Attributes:
        data: folder or file of a data set; None is the built-in synthetic marketplace.
        format: how it is written; None finds out.
        min_rating: keep rows rated at least this; None keeps every row.
        num_silos: how many institutions.
        epsilon: total budget of each silo, and of the plan.
        delta: likewise.
        colluding_silos: silos that may pool what they know with the coordinator.
        family: model family.
        split: how rows are held out of the silos' directories.
        seed: governs data and split, never noise.
        num_seeds: each is a new federation with fresh ledgers.
        out: directory of the first federation; others are in ``out/seed-<s>``.
    """

    data: Path | None
    format: PublicFormat | None
    min_rating: float | None
    num_silos: int
    epsilon: float
    delta: float
    colluding_silos: int
    family: Literal["popularity", "item-graph"]
    split: Literal["random", "last"]
    seed: int
    num_seeds: int
    out: Path

    def check(self) -> DemoSettings:
        """Refuse what cannot be.

        Raises:
            UsageError: which option, and what would do.
        """
        limits = (
            (0 < self.epsilon <= 100, "--epsilon", self.epsilon, "above 0 and at most 100"),
            (0 < self.delta <= 0.01, "--delta", self.delta, "above 0 and at most 0.01"),
            (2 <= self.num_silos <= 64, "--silos", self.num_silos, "2 to 64"),
            (
                1 <= self.colluding_silos < self.num_silos,
                "--colluding-silos",
                self.colluding_silos,
                f"1 to {self.num_silos - 1}, one less than the silos",
            ),
            (self.num_seeds >= 1, "--seeds", self.num_seeds, "1 or more"),
            (self.seed >= 0, "--seed", self.seed, "0 or more"),
        )
        for holds, option, value, allowed in limits:
            if not holds:
                raise UsageError(f"{option} {value} cannot be", where=option, remedy=f"choose {allowed}")
        return self

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The institutions: shop-a, shop-b and so on."""
        letters = string.ascii_lowercase
        return tuple(
            f"shop-{letters[i]}" if i < len(letters) else f"shop-{i + 1}" for i in range(self.num_silos)
        )

    def directory_of(self, seed: int) -> Path:
        """Where the federation of one seed lives."""
        return self.out if seed == self.seed else self.out / f"seed-{seed}"
