"""What a demo is asked to do."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from policies.drafting import Draft
from privacy.errors import UsageError

PublicFormat = Literal["movielens", "csv", "parquet", "inter"]
DemoFamily = Literal["popularity", "item-graph", "autoencoder"]
NoisePlacement = Literal["federation", "silo"]
MAX_INTERACTIONS_PER_USER = 200
GRADIENT_FAMILIES: Final = ("autoencoder",)
VERIFIED_ROUNDS: Final = 0.1


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
        colluding_silos: silos that may pool what they know with the coordinator; None is 1, or all others
            where each silo's own noise suffices.
        family: model family.
        split: how rows are held out of the silos' directories.
        seed: governs data and split, never noise.
        num_seeds: each is a new federation with fresh ledgers.
        out: directory of the first federation; others are in ``out/seed-<s>``.
        rounds: training rounds of a gradient family; None, here and below, is what ``plan new`` would take.
        local_steps: noised steps of a silo between two sums.
        noise_placement: whether shares add up to the promised noise, or each silo's own noise suffices.
        sample_rate: Poisson probability of each person in a step.
    """

    data: Path | None
    format: PublicFormat | None
    min_rating: float | None
    num_silos: int
    epsilon: float
    delta: float
    colluding_silos: int | None
    family: DemoFamily
    split: Literal["random", "last"]
    seed: int
    num_seeds: int
    out: Path
    rounds: int | None = None
    local_steps: int | None = None
    noise_placement: NoisePlacement | None = None
    sample_rate: float | None = None

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
                1 <= self.num_colluding < self.num_silos,
                "--colluding-silos",
                self.num_colluding,
                f"1 to {self.num_silos - 1}, one less than the silos",
            ),
            (self.num_seeds >= 1, "--seeds", self.num_seeds, "1 or more"),
            (self.seed >= 0, "--seed", self.seed, "0 or more"),
            (self.rounds is None or 1 <= self.rounds <= 10_000, "--rounds", self.rounds, "1 to 10,000"),
            (
                self.local_steps is None or 1 <= self.local_steps <= 1_000,
                "--local-steps",
                self.local_steps,
                "1 to 1,000",
            ),
            (
                self.sample_rate is None or 0 < self.sample_rate <= 1,
                "--sample-rate",
                self.sample_rate,
                "above 0 and at most 1",
            ),
        )
        for holds, option, value, allowed in limits:
            if not holds:
                raise UsageError(f"{option} {value} cannot be", where=option, remedy=f"choose {allowed}")
        self._check_training()
        self._check_placement()
        return self

    def _check_training(self) -> None:
        given = {
            "--rounds": self.rounds,
            "--local-steps": self.local_steps,
            "--noise-placement": self.noise_placement,
            "--sample-rate": self.sample_rate,
        }
        for option, value in given.items():
            if value is not None and not self.is_gradient:
                raise UsageError(
                    f"{self.family} is one secure sum and trains in no rounds",
                    where=option,
                    remedy=f"leave it out, or choose --model {' or '.join(GRADIENT_FAMILIES)}",
                )

    def _check_placement(self) -> None:
        """The plan's own rules, said in the demo's options before anything is made."""
        everybody_else = self.num_silos - 1
        if self.noise_placement == "silo" and self.num_colluding != everybody_else:
            raise UsageError(
                "under --noise-placement silo each silo's noise suffices alone, whoever colludes",
                where="--colluding-silos",
                remedy=f"leave it out, or write {everybody_else}",
            )
        if self.noise_placement == "federation" and self.num_colluding == everybody_else:
            raise UsageError(
                "shares of noise protect nobody when all other silos collude",
                where="--noise-placement",
                remedy="write --noise-placement silo, or lower --colluding-silos",
            )
        if (self.local_steps or 1) > 1 and self.num_colluding != everybody_else:
            raise UsageError(
                "the other silos' noise never protects steps between two sums",
                where="--local-steps",
                remedy="add --noise-placement silo",
            )

    @property
    def is_gradient(self) -> bool:
        """Whether the family trains by noised gradients, in rounds."""
        return self.family in GRADIENT_FAMILIES

    @property
    def is_sampled(self) -> bool:
        """Whether a step takes a random part of the people, which needs Rényi accounting."""
        return self.is_gradient and (Draft.sample_rate if self.sample_rate is None else self.sample_rate) < 1

    @property
    def verify_sums(self) -> float:
        """Share of the sums that a silo recomputes; the one sum of a job of statistics always is."""
        return VERIFIED_ROUNDS if self.is_gradient else 1.0

    @property
    def num_colluding(self) -> int:
        """Silos that the plan lets collude."""
        if self.colluding_silos is not None:
            return self.colluding_silos
        return self.num_silos - 1 if self.noise_placement == "silo" else 1

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
