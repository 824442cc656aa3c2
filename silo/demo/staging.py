"""What a demo puts into its silos' directories and asks of the plan: all that differs with the partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from policies.catalog import render_template
from policies.plans.drafting import DEFAULT_ORDERS
from silo.data.catalogue import Catalogue
from silo.demo.dataset import DemoData
from silo.demo.settings import (
    BOTTLENECK,
    LANGUAGE_NETWORK_OPTIONS,
    LANGUAGE_ROUNDS,
    MAX_INTERACTIONS_PER_USER,
    SEQUENCE_OPTIONS,
    SEQUENCE_ROUNDS,
    DemoSettings,
)

_POLICY_DAYS: Final = 30


class Staging(Protocol):
    """One federation's rows, policies and plan, as its institutions would bring them."""

    @property
    def catalogue(self) -> Catalogue:
        """The plan's public items."""
        ...

    def fill(self, name: str, directory: Path) -> None:
        """Write a silo's own rows, and nobody else's, where its policy says they are."""
        ...

    def policy(self, name: str) -> str:
        """A template with the lines filled in that an administrator would edit."""
        ...

    def plan_options(self) -> Sequence[str]:
        """Words of ``archipel plan new`` about everything but catalogue and files."""
        ...


@dataclass(frozen=True)
class HorizontalStaging:
    """Shops with the same items and different people.

    Attributes:
        settings: of the demo.
        data: who is where.
    """

    settings: DemoSettings
    data: DemoData

    @property
    def catalogue(self) -> Catalogue:
        """The shops' items."""
        return self.data.catalogue

    def fill(self, name: str, directory: Path) -> None:
        """Write the rows of a shop's own people."""
        (directory / "data").mkdir(parents=True, exist_ok=True)
        rows = self.data.rows_of(self.settings.silo_names.index(name))
        rows.write_parquet(directory / "data" / "purchases.parquet")

    def policy(self, name: str) -> str:
        """Template ``retailer``, filled in."""
        return shop_policy(self.settings, name)

    def plan_options(self) -> list[str]:
        """Roster, promise and training."""
        settings = self.settings
        return shop_plan_options(
            settings, max(self.data.users_of(number).size for number in range(settings.num_silos))
        )


def shop_policy(settings: DemoSettings, name: str) -> str:
    """Template ``retailer`` with the lines filled in that a shop's administrator would edit."""
    return render_template(
        "retailer",
        silo=name,
        expires=policy_expiry(),
        with_members=[other for other in settings.silo_names if other != name],
        source={"parquet": "data/*.parquet"},
        columns={"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
        max_interactions_per_user=MAX_INTERACTIONS_PER_USER,
        max_silos_per_user=1,
        epsilon=settings.epsilon,
        delta=settings.delta,
        max_epsilon_per_plan=settings.epsilon,
        min_silos=settings.num_silos,
        min_colluding_silos=settings.num_colluding,
        orders=DEFAULT_ORDERS if settings.is_sampled else None,
        verify_sums=settings.verify_sums,
    )


def shop_plan_options(settings: DemoSettings, largest: int) -> list[str]:
    """Roster, promise and training of shops, of which the largest has so many people."""
    return [
        *("--silos", ",".join(settings.silo_names), "--family", settings.family),
        *("--epsilon", repr(settings.epsilon), "--delta", repr(settings.delta)),
        *("--colluding-silos", str(settings.num_colluding), "--max-silos-per-user", "1"),
        *("--max-users-per-silo", str(rounded_up(largest)), *training_options(settings)),
    ]


def training_options(settings: DemoSettings) -> list[str]:
    """What the demo was told about the training, in words of ``plan new``; its defaults fill in the rest.

    A model that reads histories in their order is smaller than those defaults unless more is asked for.
    """
    usual: dict[str, object] = {}
    if settings.is_sequence:
        usual |= SEQUENCE_OPTIONS | {"--rounds": SEQUENCE_ROUNDS}
    elif settings.is_language:
        usual |= {"--architecture": BOTTLENECK, "--rounds": LANGUAGE_ROUNDS}
        usual |= LANGUAGE_NETWORK_OPTIONS if settings.reads_order else {}
    asked = {
        "--architecture": settings.architecture,
        "--noise-placement": settings.noise_placement,
        "--rounds": settings.rounds,
        "--local-steps": settings.local_steps,
        "--sample-rate": settings.sample_rate,
    }
    given = usual | {option: value for option, value in asked.items() if value is not None}
    return [word for option, value in given.items() for word in (option, str(value))]


def policy_expiry() -> date:
    """The last day of a demo's policies."""
    return datetime.now(UTC).date() + timedelta(days=_POLICY_DAYS)


def rounded_up(users: int) -> int:
    """A public bound that does not tell how many users there are: the next power of two."""
    return 1 << max(users - 1, 1).bit_length()
