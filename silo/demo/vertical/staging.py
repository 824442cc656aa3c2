"""Rows, policies and plan of institutions with the same people, as each would bring its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.catalog import render_template
from policies.plans.vertical.price import NOISED_NUMBERS
from privacy.alignment.thinning import reserve
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.demo.staging import policy_expiry
from silo.demo.vertical.dataset import Partner, VerticalData
from silo.demo.vertical.settings import LABEL_SILO, VerticalSettings

MAX_INTERACTIONS_PER_USER: Final = 2_000
"""Rows are scaled to norm 1 whatever their length, so a cap keeps no promise here."""
_ROOM: Final = 1.1
_USUAL_ALIGNMENT_EPSILON: Final = 0.1
_NOISE_OF_FEW_PEOPLE: Final = 200.0
"""Over the number of people: the epsilon with which noise is small beside them."""
_LEAST_SHARE_IN_COMMON: Final = 0.1
_ITEM_LIST: Final = "items.jsonl"
_OWN_ONLY: Final = "serving: {mode: own_features_only}"
_PURPOSE: Final = "product-recommendation"
_LABEL_TABLE: Final = "purchases"


@dataclass(frozen=True)
class VerticalStaging:
    """A shop, and partners who know other things of the same people.

    Attributes:
        settings: of the demo.
        data: who knows what.
    """

    settings: VerticalSettings
    data: VerticalData

    @property
    def catalogue(self) -> Catalogue:
        """The label silo's items."""
        return self.data.catalogue

    def fill(self, name: str, directory: Path) -> None:
        """Write a silo's own rows; a feature silo with a public list of its items has that, too."""
        (directory / "data").mkdir(parents=True, exist_ok=True)
        self.data.rows_of(name).write_parquet(directory / "data" / f"{self._table(name)}.parquet")
        if name != LABEL_SILO and self.data.partner(name).has_public_list:
            items = (CatalogueItem(item_id=item_id) for item_id in self.data.partner(name).item_ids)
            (directory / _ITEM_LIST).write_bytes(Catalogue.from_items(items).encoded)

    def policy(self, name: str) -> str:
        """Template ``vertical-partner``, filled in."""
        settings, partner = self.settings, self._partner(name)
        text = render_template(
            "vertical-partner",
            silo=name,
            expires=policy_expiry(),
            with_members=[other for other in settings.silo_names if other != name],
            dataset=self._table(name),
            purpose=_PURPOSE,
            source={"parquet": "data/*.parquet"},
            columns={"user_id": "user_id", "item_id": partner.item_column if partner else "item_id"},
            max_interactions_per_user=MAX_INTERACTIONS_PER_USER,
            max_silos_per_user=len(settings.silo_names),
            epsilon=settings.epsilon,
            delta=settings.delta,
            max_epsilon_per_plan=settings.epsilon,
            capacity=self.capacities[name],
            min_intersection=self.min_intersection,
            max_alignment_epsilon=self.alignment_epsilon,
            unit="user_row" if partner and partner.unit == "user_row" else None,
        )
        if partner and partner.has_public_list:
            text = text.replace(f"# item_list: {_ITEM_LIST}", f"item_list: {_ITEM_LIST}")
        answers = f", answers: {{{LABEL_SILO}: [{_PURPOSE}]}}" if partner else ""
        return text.replace(f"\n{_OWN_ONLY}", f"\nserving: {{mode: consented_session{answers}}}")

    def plan_options(self) -> list[str]:
        """Roles, capacities, promise, and which of the label silo's rows take part."""
        settings = self.settings
        features = [
            f"{partner.name}:{partner.unit}" if partner.unit != "user" else partner.name
            for partner in self.data.partners
        ]
        capacities = [f"{name}={capacity}" for name, capacity in self.capacities.items()]
        return [
            *("--partition", "vertical", "--label", LABEL_SILO),
            *(word for feature in features for word in ("--feature", feature)),
            *(word for capacity in capacities for word in ("--capacity", capacity)),
            *("--min-intersection", str(self.min_intersection)),
            *("--alignment-epsilon", repr(self.alignment_epsilon)),
            *("--epsilon", repr(settings.epsilon), "--delta", repr(settings.delta)),
            *("--label-items", str(len(self.catalogue)), "--label-norm", repr(settings.label_items**0.5)),
            *("--max-interactions-per-user", str(MAX_INTERACTIONS_PER_USER)),
        ]

    @property
    def alignment_epsilon(self) -> float:
        """Of the noised numbers of people: usual, and more for few people, up to a little of the promise."""
        enough = max(_USUAL_ALIGNMENT_EPSILON, _NOISE_OF_FEW_PEOPLE / len(self.data.people))
        return round(min(enough, self.settings.epsilon / 20), 3)

    @property
    def capacities(self) -> dict[str, int]:
        """What each silo declares: round, and the places that noise on their number takes."""
        spare = reserve(self.alignment_epsilon / NOISED_NUMBERS)
        return {name: declared(self.data.members(name).size) + spare for name in self.settings.silo_names}

    @property
    def min_intersection(self) -> int:
        """A public bound below which nobody would think it worth while."""
        fewest = min(declared(self.data.members(name).size) for name in self.settings.silo_names)
        return int(fewest * _LEAST_SHARE_IN_COMMON)

    def _partner(self, name: str) -> Partner | None:
        return None if name == LABEL_SILO else self.data.partner(name)

    def _table(self, name: str) -> str:
        partner = self._partner(name)
        return _LABEL_TABLE if partner is None else partner.table


def declared(people: int) -> int:
    """A round size with room for a tenth more people."""
    step = 500 if people > 1_000 else 50
    return -(-int(people * _ROOM + 1) // step) * step
