"""Rows, item lists, policies and plan of shops that sell different things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from silo.data.catalogue import Catalogue
from silo.demo.language.dataset import LanguageData
from silo.demo.settings import DemoSettings
from silo.demo.staging import shop_plan_options, shop_policy

DIMENSIONS: Final = 32


@dataclass(frozen=True)
class LanguageStaging:
    """Shops without an item in common.

    Attributes:
        settings: of the demo.
        data: who sells and knows what.
        encoder_sha256: of the text encoder that all of them have.
    """

    settings: DemoSettings
    data: LanguageData
    encoder_sha256: str

    @property
    def catalogue(self) -> Catalogue:
        """The plan's public texts: the proposer's own list."""
        return self.data.members[0].catalogue

    def fill(self, name: str, directory: Path) -> None:
        """Write a shop's rows and, as `archipel data catalogue` does, the list of its items."""
        shop = self.data.shop(name)
        (directory / "data").mkdir(parents=True, exist_ok=True)
        shop.rows().write_parquet(directory / "data" / "purchases.parquet")
        shop.catalogue.save(directory / "catalogues")

    def policy(self, name: str) -> str:
        """Template ``retailer``, filled in, with the list that its administrators sign."""
        listed = f"    item_list: catalogues/{self.data.shop(name).catalogue.sha256}.jsonl\n    columns:"
        before, columns, after = shop_policy(self.settings, name).partition("    columns:")
        if not columns or "    columns:" in after:
            raise RuntimeError("the template has not the one dataset that names a list")
        return before + listed + after

    def plan_options(self) -> list[str]:
        """Roster, promise, training, and the space of texts."""
        largest = max(shop.train.num_users for shop in self.data.members)
        dimensions = min(DIMENSIONS, len(self.catalogue) // 2)  # texts span fewer than there are
        return [
            *shop_plan_options(self.settings, largest),
            *("--encoder", self.encoder_sha256, "--text-dimensions", str(dimensions)),
        ]
