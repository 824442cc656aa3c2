"""What a demo of a vertical plan is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from privacy.errors import UsageError
from silo.data.ciao import is_ciao
from silo.demo.common_settings import CommonSettings, require

WorldKind = Literal["marketplace", "halves", "ciao"]

LABEL_SILO: Final = "shop"
CONTENT_SILO: Final = "content-platform"
SOCIAL_SILO: Final = "social-network"
PEOPLE: Final = 4_000
MIN_PEOPLE: Final = 200


@dataclass(frozen=True, kw_only=True)
class VerticalSettings(CommonSettings):
    """Settings of one demo: a shop, and others who know other things of the same people.

    Attributes:
        label_items: training items of each person at the label silo; half of theirs if those are fewer.
        people: of the built-in marketplace; None is ``PEOPLE``.
    """

    label_items: int = 5
    people: int | None = None

    def check(self) -> VerticalSettings:
        """Refuse what cannot be.

        Raises:
            UsageError: which option, and what would do.
        """
        self.check_common()
        people = self.num_people
        require(
            (
                (1 <= self.label_items <= 100, "--label-items", self.label_items, "1 to 100"),
                (MIN_PEOPLE <= people <= 100_000, "--people", people, f"{MIN_PEOPLE} to 100,000"),
            )
        )
        if self.data is not None and self.people is not None:
            raise UsageError(
                "a data set has as many people as it has",
                where="--people",
                remedy="leave it out, or leave out --data",
            )
        if self.kind == "ciao" and (self.min_rating is not None or self.format is not None):
            raise UsageError(
                "ciao is read in one way, every rating a row",
                where="--data",
                remedy="leave out --min-rating and --format",
            )
        return self

    @property
    def num_people(self) -> int:
        """Of the built-in marketplace."""
        return PEOPLE if self.people is None else self.people

    @property
    def kind(self) -> WorldKind:
        """Which world the data makes: any set of interactions is halved, Ciao has three parties."""
        if self.data is None:
            return "marketplace"
        return "ciao" if is_ciao(self.data) else "halves"

    @property
    def silo_names(self) -> tuple[str, ...]:
        """The label silo, then its partners."""
        partners = (CONTENT_SILO,) if self.kind == "halves" else (CONTENT_SILO, SOCIAL_SILO)
        return LABEL_SILO, *partners
