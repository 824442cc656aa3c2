"""What a demo of a horizontal plan says at its end: a table, a statement, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.panel import Panel
from rich.table import Table

from policies.plans.models import SequenceModel
from policies.plans.plan import Plan
from policies.plans.price import schedule
from silo.demo.dataset import DemoData
from silo.demo.local_noise import local_noise_plan
from silo.demo.outcome import Outcome, cell, metrics_of, promised, traffic
from silo.demo.settings import DemoSettings
from silo.model_card import privacy_statement

FLOAT32_BYTES = 4
HEADINGS = {
    "silo_alone": "silo alone (private)",
    "federated_private": "federated (private)",
    "federated_local_noise": "federated, own noise",
    "pooled_private": "pooled (private)",
    "pooled_same_noise": "pooled, same noise",
    "pooled_plain": "pooled (no privacy)",
    "popularity": "popularity",
}
LEGEND = (
    "silo alone: same method, attributes and fallback, the whole noise; ±: spread over seeds\n"
    "pooled (private): central noise; same noise: as much as the federation's shares add up to\n"
)
LEGEND_OF_STATISTICS = (
    "pooled (no privacy): the exact counts; an item graph is then plain EASE, without attributes"
)
LEGEND_OF_GRADIENTS = (
    "pooled (no privacy): no noise, gradients clipped as everywhere; the schedule is made for noised steps, "
    "so this is no upper limit\n"
    "federated, own noise: federated averaging, {steps} local steps in each of {rounds} rounds, the whole "
    "noise in every silo, same epsilon"
)
PROMISE = "What is promised"
SPOILING = (
    "A malicious silo can spoil a model, within its clipped and range-checked contribution; n-1 colluding "
    "silos learn the last one's noised share."
)
ONLY_PRODUCT = (
    "Only federated (private) is a product; the other columns were computed by the demo's harness, which "
    "owns all data as no party does, and are charged to no ledger."
)
SHOWN = ("ndcg@20", "recall@20", "hit_rate@10", "mrr@10")


def as_json(settings: DemoSettings, data: DemoData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything a machine may want to know; spending, traffic and times are the first seed's."""
    first = outcomes[0]
    plan = first.world.plan()
    return {
        "data": {
            "name": data.name,
            "users": data.train.num_users,
            "items": len(data.catalogue),
            "interactions": data.train.num_interactions + data.held_out.num_interactions,
            "silos": settings.num_silos,
            "users_by_silo": {
                name: int(data.users_of(number).size) for number, name in enumerate(settings.silo_names)
            },
            "split": data.split,
            "seeds": [outcome.seed for outcome in outcomes],
            "notes": list(data.notes),
        },
        "model": _model(plan),
        "privacy": {"unit": plan.privacy.unit, **promised(first)},
        **metrics_of(outcomes),
        "secure_sum": secure_sum(first),
        "seconds": first.seconds,
    }


def _model(plan: Plan) -> dict[str, str]:
    if isinstance(plan.model, SequenceModel):
        return {"family": plan.model.family, "architecture": plan.model.architecture}
    return {"family": plan.model.family}


def secure_sum(outcome: Outcome) -> dict[str, Any]:
    """Shape and traffic of the job's sums; bytes as the agents' transports counted them."""
    plan = outcome.world.plan()
    shapes = schedule(plan)
    layout = next(shape.layout for shape in shapes if shape.purpose == "training")
    values = sum(shape.values for shape in shapes)
    by_silo = traffic(outcome.world, outcome.state.job)
    up = max(found["up"] for found in by_silo.values())
    return {
        "values": values,
        "bits": layout.bits,
        "values_per_slot": layout.values_per_slot,
        "frames": layout.num_frames,
        "bytes_up_per_silo": up,
        "bytes_down_per_silo": max(found["down"] for found in by_silo.values()),
        "bytes_by_silo": by_silo,
        "ratio_to_float32": up / (FLOAT32_BYTES * values),
    }


def for_people(found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
    """The table, what was spent, what it cost, and the promise in words."""
    plan = outcomes[0].world.plan()
    return [
        table_of(found, f"{found['data']['name']}, {_in_words(found)}", HEADINGS, len(outcomes)),
        LEGEND + _legend_of_family(plan),
        *costs(found),
        Panel(f"{privacy_statement(plan)} {SPOILING} {ONLY_PRODUCT}", title=PROMISE, title_align="left"),
        *(f"note: {note}" for note in found["data"]["notes"]),
    ]


def table_of(found: dict[str, Any], about: str, headings: Mapping[str, str], seeds: int) -> Table:
    """The figures of the rows that have a heading; the product's own row stands out."""
    epsilon = found["privacy"]["target_epsilon"]
    title = f"{about}, epsilon {epsilon:g}: mean over {seeds} seed{'s' if seeds > 1 else ''}"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in SHOWN:
        table.add_column(name, justify="right", no_wrap=True)
    for column in (column for column in found["metrics"] if column in headings):
        cells = [cell(found, column, name, seeds) for name in SHOWN]
        table.add_row(headings[column], *cells, style="bold" if column == "federated_private" else None)
    return table


def costs(found: dict[str, Any]) -> list[str]:
    """Bytes and epsilon of each silo."""
    sums = found["secure_sum"]
    up, down = sums["bytes_up_per_silo"], sums["bytes_down_per_silo"]
    by_silo = found["privacy"]["per_silo_spent"].items()
    spending = ", ".join(f"{name} {about['epsilon']:.3f}" for name, about in by_silo)
    return [
        f"Each silo sent {up / 1e6:.2f} MB ({sums['ratio_to_float32']:.2f} x float32 of "
        f"{sums['values']:,} values) and fetched {down / 1e6:.2f} MB.",
        f"Epsilon spent, by each silo's own ledger: {spending} "
        f"(PLD, tighter, for information: {found['privacy']['epsilon_pld']:.3f}).",
    ]


def _in_words(found: dict[str, Any]) -> str:
    model = found["model"]
    named = f"{model['family']} ({model['architecture']})" if "architecture" in model else model["family"]
    return f"{named}, last item held out" if found["data"]["split"] == "last" else str(named)


def _legend_of_family(plan: Plan) -> str:
    if plan.is_statistics:
        return LEGEND_OF_STATISTICS
    training = local_noise_plan(plan).training
    return LEGEND_OF_GRADIENTS.format(steps=training.local_steps, rounds=training.rounds)
