"""What a demo of shops without an item in common says at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.panel import Panel

from policies.plans.models import LanguageModel
from silo.demo.language.dataset import LanguageData
from silo.demo.outcome import Outcome, metrics_of, promised
from silo.demo.report import PROMISE, SPOILING, costs, secure_sum, table_of
from silo.model_card import privacy_statement

HEADINGS = {
    "silo_alone": "silo alone (private)",
    "federated_private": "federated (private)",
    "federated_plain": "federated (no privacy)",
    "untrained": "untrained: likeness of texts",
    "popularity": "own popularity",
    "alone_and_popularity": "silo alone + own popularity",
    "federated_and_popularity": "federated + own popularity",
}
NEWCOMER_HEADINGS = {
    "newcomer_adopted": "adopted",
    "newcomer_untrained": "untrained: likeness of texts",
    "newcomer_popularity": "own popularity",
    "newcomer_and_popularity": "adopted + own popularity",
}
LEGEND = (
    "silo alone: same method, the whole noise. Own popularity is exact and stays in the silo: texts do not "
    "tell it, so it cannot be learnt together\n"
    "+ own popularity: both, standardised for each person, half and half; nothing was chosen\n"
    "The first shop proposed, so its list is the plan's public texts and all have it; no other list leaves "
    "its shop\n"
    "There is no pooled row: no item is in two lists, and all rows in one place would rank another list"
)
JUDGED_BY = "ndcg@20"
ONLY_PRODUCTS = (
    "Only federated (private), adopted and popularity are what a silo has, and sums of these; the other rows "
    "were computed by the demo's harness, which owns all data as no party does, and are charged to no ledger."
)


def as_json(data: LanguageData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything a machine may want to know; spending, traffic and times are the first seed's."""
    first = outcomes[0]
    plan, shops = first.world.plan(), (*data.members, data.newcomer)
    model = plan.model
    if not isinstance(model, LanguageModel):
        raise RuntimeError("a language demo has a language plan")
    return {
        "data": {
            "name": data.name,
            "users": sum(shop.train.num_users for shop in shops),
            "items": sum(len(shop.catalogue) for shop in shops),
            "interactions": sum(
                shop.train.num_interactions + shop.held_out.num_interactions for shop in shops
            ),
            "silos": len(data.members),
            "newcomer": data.newcomer.name,
            "users_by_silo": {shop.name: shop.train.num_users for shop in shops},
            "items_by_silo": {shop.name: len(shop.catalogue) for shop in shops},
            "split": data.split,
            "seeds": [outcome.seed for outcome in outcomes],
            "notes": list(data.notes),
        },
        "model": {
            "family": model.family,
            "architecture": model.architecture,
            "dimensions": model.dimensions,
            "hidden": model.hidden,
        },
        "privacy": {"unit": plan.privacy.unit, **promised(first)},
        **metrics_of(outcomes),
        "adopted": dict(first.sessions),
        "secure_sum": secure_sum(first),
        "seconds": first.seconds,
    }


def for_people(found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
    """Two tables, what was spent, what it cost, and the promise in words."""
    plan, data, seeds = outcomes[0].world.plan(), found["data"], len(outcomes)
    how = f"{data['name']}, language ({found['model']['architecture']})"
    how += ", last item held out" if data["split"] == "last" else ""
    later, ledger = data["newcomer"], "adopting read none of its rows and cost no epsilon"
    newcomer = (
        f"{later}, which joined afterwards ({data['items_by_silo'][later]:,} items of its own; {ledger})"
    )
    return [
        table_of(found, how, HEADINGS, seeds),
        LEGEND,
        verdict(found, "federated_private", "silo_alone", "By themselves the others bring a shop"),
        verdict(
            found, "federated_and_popularity", "alone_and_popularity", "With its own popularity they bring it"
        ),
        table_of(found, newcomer, NEWCOMER_HEADINGS, seeds),
        verdict(found, "newcomer_and_popularity", "newcomer_popularity", f"Adopting brings {later}"),
        *costs(found),
        Panel(f"{privacy_statement(plan)} {SPOILING} {ONLY_PRODUCTS}", title=PROMISE, title_align="left"),
        *(f"note: {note}" for note in data["notes"]),
    ]


def verdict(found: dict[str, Any], better: str, than: str, whom: str) -> str:
    """What one row has over another, plainly; one number without an error bar, of people measured once."""
    headings = HEADINGS | NEWCOMER_HEADINGS
    value, other = (found["metrics"][column][JUDGED_BY] for column in (better, than))
    between = f"{headings[better]} against {headings[than]}"
    if other <= 0:
        return f"{whom} {JUDGED_BY} {value:.3f} where there was {other:.3f}: {between}."
    gained = round(100 * (value / other - 1), 1)
    figures = f"{JUDGED_BY} {gained:+.1f} %, {between}"
    return f"{whom} {figures}." if gained > 0 else f"{whom} nothing on this data: {figures}."
