"""What a plan promises, costs and sums, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.plans.price import (
    RoundShape,
    cap_loss,
    forecast_bytes,
    plan_epsilon,
    plan_epsilon_pld,
    rounding_cost,
    schedule,
    spent_epsilon,
    training_shape,
)
from policies.plans.vertical.summary import describe_vertical, summarise_vertical
from policies.plans.words import listed
from privacy.events import EventCount

if TYPE_CHECKING:
    from policies.plans.plan import Plan


def summarise(plan: Plan) -> dict[str, Any]:
    """Return what a plan promises and costs, as JSON values; of a vertical plan other ones.

    Raises:
        PlanImpossibleError: no sum can carry it.
    """
    from policies.canonical import digest

    if plan.is_vertical:
        return summarise_vertical(plan)
    shape, traffic, privacy = training_shape(plan), forecast_bytes(plan), plan.privacy
    return {
        "plan_sha256": digest(plan),
        "family": plan.model.family,
        "silos": list(plan.silos),
        "fewest_contributors": plan.fewest_contributors,
        "unit": privacy.unit,
        "neighboring_relation": privacy.neighboring_relation,
        "target_epsilon": privacy.target_epsilon,
        "target_delta": privacy.target_delta,
        "epsilon": plan_epsilon(plan),
        "epsilon_pld": plan_epsilon_pld(plan),
        "filter": privacy.filter,
        "noise_multiplier": privacy.noise_multiplier,
        "noise_placement": privacy.noise_placement,
        "colluding_silos": privacy.colluding_silos,
        "max_silos_per_user": privacy.max_silos_per_user,
        "grid": privacy.grid,
        "weight_lost_at_cap": cap_loss(plan),
        "rounding_cost": rounding_cost(plan),
        "rounds": len(schedule(plan)),
        "max_burned_rounds": plan.training.max_burned_rounds,
        "local_steps": plan.training.local_steps,
        "releases": releases(plan),
        "values": traffic.values,
        "bits": shape.layout.bits,
        "values_per_slot": shape.layout.values_per_slot,
        "upload_bytes": traffic.upload_bytes,
        "download_bytes": traffic.download_bytes,
    }


def releases(plan: Plan) -> list[dict[str, Any]]:
    """Return the kinds of sums of a plan in their order: how many, how long, what each kind costs alone."""
    counts: dict[RoundShape, int] = {}
    for shape in schedule(plan):
        counts[shape] = counts.get(shape, 0) + 1
    return [
        {
            "purpose": shape.purpose,
            "rounds": count,
            "values": shape.values,
            "epsilon_alone": spent_epsilon(plan, [EventCount(shape.event, count)]),
        }
        for shape, count in counts.items()
    ]


def headline(plan: Plan) -> str:
    """Return a plan in a few words: ``item-graph over 4 silos, 3,883 items``."""
    is_own = plan.catalogue.kind == "per_silo"
    items = "items of their own" if is_own else f"{plan.catalogue.items:,} items"
    return f"{plan.model.family} over {plan.num_silos} silos, {items}"


def describe(plan: Plan, summary: Mapping[str, Any]) -> list[str]:
    """Return the same for people.

    Args:
        plan: the plan.
        summary: of it, by :func:`summarise`.
    """
    if plan.is_vertical:
        return describe_vertical(plan, summary)
    privacy = plan.privacy
    scope = (
        "per person, who is in one silo of the roster"
        if privacy.max_silos_per_user == 1
        else f"per person, over up to {privacy.max_silos_per_user} silos of the roster"
    )
    burned = summary["max_burned_rounds"]
    return [
        f"epsilon {summary['epsilon']:.4g} at delta {privacy.target_delta:g} ({privacy.filter}; "
        f"{summary['epsilon_pld']:.4g} by a second accountant), unit user, add or remove one, {scope}",
        f"noise multiplier {privacy.noise_multiplier:g} ({privacy.noise_placement}), holds while no more "
        f"than {counted(privacy.colluding_silos, 'silo')} may help the coordinator",
        f"secure sums: {sums_in_words(plan)}" + (f"; up to {burned} may fail" if burned else ""),
        _grid_in_words(plan, summary),
        *_adapter_in_words(plan),
        f"{summary['values']:,} values, at most {byte_size(summary['upload_bytes'])} up and "
        f"{byte_size(summary['download_bytes'])} down for each silo",
    ]


def _adapter_in_words(plan: Plan) -> list[str]:
    adapter = plan.model.adapter if plan.model.family == "language" else None
    if adapter is None:
        return []
    fewer = "" if adapter.columns is None else _columns_in_words(adapter.columns)
    return [
        f"of the text encoder: {adapter.num_weights:,} values on its last {counted(adapter.layers, 'layer')} "
        f"({adapter.kind}, rank {adapter.rank}{fewer}); "
        f"it reads {counted(adapter.places, 'item')} of a person"
    ]


def _columns_in_words(columns: Mapping[str, int]) -> str:
    own = [f"{silo} trains the first {counted(number, 'column')}" for silo, number in columns.items()]
    return f", of which {listed(own)}"


def sums_in_words(plan: Plan) -> str:
    """Return the sums of a plan in their order, such as ``popularity, then 60 of the training``."""
    steps = plan.training.local_steps
    words = {
        "popularity": "popularity",
        "training": "one of everybody's statistics"
        if plan.is_statistics
        else f"{plan.training.rounds} of the training"
        + (f" ({steps} local steps each)" if steps > 1 else ""),
        "metrics": "metrics",
    }
    return ", then ".join(words[item["purpose"]] for item in releases(plan))


def _grid_in_words(plan: Plan, summary: Mapping[str, Any]) -> str:
    if plan.is_statistics:
        lost = summary["weight_lost_at_cap"]
        return (
            f"grid {plan.privacy.grid}: rounding takes at most {lost:.2%} of the weight of a person with "
            f"{plan.max_interactions_per_user} interactions"
        )
    return (
        f"grid {plan.privacy.grid}: rounding takes {summary['rounding_cost']:.2%} more noise; "
        f"{summary['bits']} bits a value, {counted(summary['values_per_slot'], 'value')} a slot"
    )


def byte_size(num_bytes: float) -> str:
    """Return a size for people: ``33.0 kB``, ``2.9 MB`` or ``1.2 GB``."""
    for unit, size in (("kB", 1e3), ("MB", 1e6)):
        if num_bytes < 1000 * size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e9:.1f} GB"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 silo``, ``2,000 silos``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"
