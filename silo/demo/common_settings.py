"""What every demo is asked, whatever its silos have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from privacy.errors import UsageError
from silo.data.public_sets import PublicFormat

Limit: TypeAlias = tuple[bool, str, object, str]
"""Whether it holds, which option, what was given, what would do."""


@dataclass(frozen=True, kw_only=True)
class CommonSettings(ABC):
    """Settings of one demo.

    Attributes:
        data: folder or file of a data set; None is the built-in synthetic marketplace.
        format: how it is written; None finds out.
        min_rating: keep rows rated at least this; None keeps every row.
        epsilon: total budget of each silo, and of the plan.
        delta: likewise.
        seed: governs data and split, never noise.
        num_seeds: each is a new federation with fresh ledgers.
        out: directory of the first federation; others are in ``out/seed-<s>``.
    """

    data: Path | None
    format: PublicFormat | None
    min_rating: float | None
    epsilon: float
    delta: float
    seed: int
    num_seeds: int
    out: Path

    @property
    @abstractmethod
    def silo_names(self) -> tuple[str, ...]:
        """The institutions, the roster's first first."""

    def check_common(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: which option, and what would do.
        """
        require(
            (
                (0 < self.epsilon <= 100, "--epsilon", self.epsilon, "above 0 and at most 100"),
                (0 < self.delta <= 0.01, "--delta", self.delta, "above 0 and at most 0.01"),
                (self.num_seeds >= 1, "--seeds", self.num_seeds, "1 or more"),
                (self.seed >= 0, "--seed", self.seed, "0 or more"),
            )
        )

    def directory_of(self, seed: int) -> Path:
        """Where the federation of one seed lives."""
        return self.out if seed == self.seed else self.out / f"seed-{seed}"


def require(limits: Iterable[Limit]) -> None:
    """Refuse the first option that is out of its range.

    Raises:
        UsageError: which option, and what would do.
    """
    for holds, option, value, allowed in limits:
        if not holds:
            raise UsageError(f"{option} {value} cannot be", where=option, remedy=f"choose {allowed}")
