"""What a demo of a horizontal plan is asked to do."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final, Literal

from policies.plans.drafting import Draft
from policies.plans.models import LanguageArchitectureName
from privacy.errors import UsageError
from silo.demo.common_settings import CommonSettings, Limit, require

DemoFamily = Literal["popularity", "item-graph", "autoencoder", "sequence", "language"]
DemoSplit = Literal["random", "last"]
NoisePlacement = Literal["federation", "silo"]
MAX_INTERACTIONS_PER_USER = 200
GRADIENT_FAMILIES: Final = ("autoencoder", "sequence", "language")
SEQUENCE_OPTIONS: Final = {"--features": 40, "--hidden": 16, "--places": 10, "--learning-rate": 0.02}
SEQUENCE_ROUNDS: Final = 20
"""So that a laptop learns all rows of the table in minutes; what ``plan new`` takes is nine times the work.
On the marketplace of seed 100 twenty such steps led as far as forty of half the size."""
LANGUAGE_NETWORK_OPTIONS: Final = {"--places": 10, "--learning-rate": 0.02}
LANGUAGE_ROUNDS: Final = 30
BOTTLENECK: Final = "bottleneck"
"""What a demo's ``language`` model is: with so few people noise leaves little of an order."""
VERIFIED_ROUNDS: Final = 0.1
MIN_CANARIES: Final = 16
MAX_CANARIES: Final = 100_000
CANARIES: Final = 256
CANARIES_OF_PAIRS: Final = 2048


@dataclass(frozen=True, kw_only=True)
class DemoSettings(CommonSettings):
    """Settings of one demo: different people of the same shops.

    Attributes:
        num_silos: how many institutions.
        colluding_silos: silos that may pool what they know with the coordinator; None is 1, or all others
            where each silo's own noise suffices.
        family: model family.
        architecture: of a ``sequence`` or ``language`` model; None is ``BOTTLENECK`` for the latter and, here
            and below, what ``plan new`` would take.
        split: how rows are held out of the silos' directories; None is the last item of each person for
            these two where rows have times, else at random.
        rounds: training rounds of a gradient family; these two are given ``SEQUENCE_ROUNDS`` and
            ``LANGUAGE_ROUNDS``.
        local_steps: noised steps of a silo between two sums.
        noise_placement: whether shares add up to the promised noise, or each silo's own noise suffices.
        sample_rate: Poisson probability of each person in a step.
        record: whether the job is recorded for ``archipel audit attack`` instead of compared with others.
        canaries: made-up people of a recording; None is what the family needs.
    """

    num_silos: int = 4
    colluding_silos: int | None = None
    family: DemoFamily = "item-graph"
    architecture: LanguageArchitectureName | None = None
    split: DemoSplit | None = None
    rounds: int | None = None
    local_steps: int | None = None
    noise_placement: NoisePlacement | None = None
    sample_rate: float | None = None
    record: bool = False
    canaries: int | None = None

    def check(self) -> DemoSettings:
        """Refuse what cannot be.

        Raises:
            UsageError: which option, and what would do.
        """
        self.check_common()
        require(self._limits())
        self._check_training()
        self._check_placement()
        self._check_recording()
        return self

    def _limits(self) -> tuple[Limit, ...]:
        return (
            (2 <= self.num_silos <= 64, "--silos", self.num_silos, "2 to 64"),
            (
                1 <= self.num_colluding < self.num_silos,
                "--colluding-silos",
                self.num_colluding,
                f"1 to {self.num_silos - 1}, one less than the silos",
            ),
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

    def _check_recording(self) -> None:
        if self.record and self.is_language:
            raise UsageError(
                "silos with lists of their own are not recorded: canaries are made for one list",
                where="--record",
                remedy="leave it out, or choose another --model",
            )
        if self.record and self.num_seeds > 1:
            raise UsageError("one job is recorded at a time", where="--seeds", remedy="leave it out")
        if self.canaries is not None and not self.record:
            raise UsageError(
                "only a recorded demo has canaries",
                where="--canaries",
                remedy="leave it out, or add --record",
            )
        if self.canaries is not None and not MIN_CANARIES <= self.canaries <= MAX_CANARIES:
            raise UsageError(
                f"--canaries {self.canaries} cannot be",
                where="--canaries",
                remedy=f"choose {MIN_CANARIES} to {MAX_CANARIES:,}",
            )

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
        if self.architecture is not None and not (self.is_sequence or self.is_language):
            raise UsageError(
                f"{self.family} reads no history in its order",
                where="--architecture",
                remedy="leave it out, or choose --model sequence or language",
            )
        if self.architecture == BOTTLENECK and self.is_sequence:
            raise UsageError(
                "a bottleneck reads no history in its order",
                where="--architecture",
                remedy="choose another, or --model language",
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
    def is_sequence(self) -> bool:
        """Whether the family reads histories in their order."""
        return self.family == "sequence"

    @property
    def is_language(self) -> bool:
        """Whether every silo ranks a list of its own, by the texts of its items."""
        return self.family == "language"

    @property
    def reads_order(self) -> bool:
        """Whether the model reads histories in their order."""
        return self.is_sequence or (self.is_language and self.architecture not in {None, BOTTLENECK})

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
    def num_canaries(self) -> int:
        """Canaries of a recording: where each needs a vector of its own in every round, fewer."""
        if self.canaries is not None:
            return self.canaries
        return CANARIES_OF_PAIRS if self.family == "item-graph" else CANARIES

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The institutions: shop-a, shop-b and so on."""
        return tuple(map(_shop_name, range(self.num_silos)))

    @property
    def newcomer_name(self) -> str:
        """The next institution, which is in no job."""
        return _shop_name(self.num_silos)


def _shop_name(number: int) -> str:
    letters = string.ascii_lowercase
    return f"shop-{letters[number]}" if number < len(letters) else f"shop-{number + 1}"
