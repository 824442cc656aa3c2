"""What a demo of a vertical plan says at its end: a table, a plot, who saw and spent what, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from statistics import fmean, stdev
from typing import Any

from rich.panel import Panel
from rich.table import Table

from policies.plans.plan import Plan
from silo.demo.outcome import Outcome, cell, metrics_of, promised, traffic
from silo.demo.vertical.dataset import VerticalData
from silo.demo.vertical.harness import COLUMNS
from silo.demo.vertical.settings import LABEL_SILO, VerticalSettings
from silo.vertical.card import promise as job_promise
from silo.vertical.moments.files import cross_moments

HEADINGS = {
    "silo_alone": "label silo alone",
    "federated_private": "with partners (private)",
    "federated_plain": "with partners (no privacy)",
    "pooled_plain": "pooled (no privacy)",
    "popularity": "popularity",
}
LEGEND = (
    "label silo alone: the best of ridge and EASE on its own rows; chosen, like all else, on half of its "
    "people, figures are of the others\n"
    "pooled (no privacy): all rows in one place, as many principal components of all partners' columns as "
    "help; a model of the same kind, so no upper limit"
)
KEPT = (
    f"{LABEL_SILO} keeps the weights of the private row, chosen on people whose rows the demo holds out: "
    "archipel recommend uses them"
)
SHOWN = ("ndcg@20", "recall@20", "hit_rate@10")
PLOTTED = "ndcg@20"
LITTLE_PERCENT = 1.0
"""A lift below this is called nothing."""
ERRORS = 2.0
"""So is one that is not so many standard errors above 0."""
_BAR_CELLS = 44


def as_json(settings: VerticalSettings, data: VerticalData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything a machine may want to know; spending, traffic and times are the first seed's."""
    first = outcomes[0]
    plan = first.world.plan()
    model, alignment = cross_moments(plan), plan.alignment
    if alignment is None or plan.roles is None:
        raise RuntimeError("a vertical plan has an alignment and roles")
    return {
        "data": {
            "name": data.name,
            "partition": plan.partition,
            "users": len(data.people),
            "items": len(data.catalogue),
            "interactions": int(data.users.rows.nnz + data.users.held_out.nnz),
            "silos": plan.num_silos,
            "users_by_silo": {name: int(data.members(name).size) for name in plan.silos},
            "people_in_common_with_label_silo": first.measured.details["people_in_common"],
            "evaluated_users": first.measured.details["evaluated_people"],
            "label_items": settings.label_items,
            "coverage": data.coverage,
            "split": "random",
            "seeds": [outcome.seed for outcome in outcomes],
            "notes": list(data.notes),
        },
        "model": {"family": model.family, "dimensions": model.dimensions, "basis": model.basis},
        "privacy": {
            "unit_by_silo": {name: plan.unit_of(name) for name in plan.silos},
            **promised(first),
            "serving": "consented_session",
        },
        "alignment": {
            "capacities": dict(alignment.capacities),
            "spine_slots": first.state.spine_slots,
            "min_intersection": alignment.min_intersection,
            "epsilon": alignment.epsilon,
            "reveal": alignment.reveal,
        },
        "sessions": dict(first.sessions),
        **metrics_of(outcomes),
        "lift_percent": _lift(outcomes),
        "weights_by_seed": {str(o.seed): o.measured.details["weights"] for o in outcomes},
        "traffic": {"bytes_by_silo": traffic(first.world, first.state.job)},
        "seconds": first.seconds,
    }


def _lift(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """How much better than alone each column is: mean, sample standard deviation over seeds, standard error.

    The error is of the people that were measured, each seed's as if independent of the others'.
    """
    found = {}
    for name in outcomes[0].measured.details["lift_percent"]:
        values = [outcome.measured.details["lift_percent"][name] for outcome in outcomes]
        errors = [outcome.measured.details["lift_error_percent"][name] for outcome in outcomes]
        found[name] = {
            "mean": fmean(values),
            "std": stdev(values) if len(values) > 1 else 0.0,
            "error": hypot(*errors) / len(errors),
        }
    return found


def for_people(found: dict[str, Any], outcomes: Sequence[Outcome]) -> list[object]:
    """The table, the plot, what partners brought, what was seen and spent, and the promise in words."""
    plan, seeds = outcomes[0].world.plan(), len(outcomes)
    return [
        _table(found, plan, seeds),
        _plot(found),
        LEGEND,
        verdict(found),
        _seen(found, plan),
        _spending(found),
        _sessions(found),
        KEPT,
        Panel(demo_promise(plan), title="What is promised", title_align="left"),
        *(f"note: {note}" for note in found["data"]["notes"]),
    ]


def verdict(found: dict[str, Any]) -> str:
    """What partners brought, plainly."""
    private, plain = (found["lift_percent"][name] for name in ("federated_private", "federated_plain"))
    figures = (
        f"{PLOTTED} {private['mean']:+.1f} % (standard error {private['error']:.1f}) at epsilon "
        f"{found['privacy']['target_epsilon']:g}, {plain['mean']:+.1f} % without privacy"
    )
    popularity = found["metrics"]["popularity"][PLOTTED]
    if not any(map(_is_something, (private, plain))):
        said = f"The partners bring {LABEL_SILO} nothing on this data: {figures}."
    elif not _is_something(private):
        said = f"Under this noise the partners bring {LABEL_SILO} nothing: {figures}."
    else:
        said = f"The partners bring {LABEL_SILO} {figures}, compared with itself alone."
    if found["metrics"]["federated_private"][PLOTTED] <= popularity:
        said += " Popularity ranks as well as the private model."
    return said


def _is_something(lift: dict[str, float]) -> bool:
    return lift["mean"] >= LITTLE_PERCENT and lift["mean"] > ERRORS * lift["error"]


def _table(found: dict[str, Any], plan: Plan, seeds: int) -> Table:
    title = f"{found['data']['name']}, {found['model']['family']}, epsilon {plan.privacy.target_epsilon:g}"
    table = Table(title=f"{title}: mean over {seeds} seed{'s' if seeds > 1 else ''}", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (*SHOWN, "lift"):
        table.add_column(name, justify="right", no_wrap=True)
    for column in COLUMNS:
        lift = found["lift_percent"].get(column)
        table.add_row(
            HEADINGS[column],
            *(cell(found, column, name, seeds) for name in SHOWN),
            "" if lift is None else f"{lift['mean']:+.1f} %",
            style="bold" if column == "federated_private" else None,
        )
    return table


def _plot(found: dict[str, Any]) -> str:
    """One bar for each row of the table."""
    values = {column: found["metrics"][column][PLOTTED] for column in COLUMNS}
    largest = max(*values.values(), 1e-9)
    width = max(map(len, HEADINGS.values()))
    bars = (
        f"{HEADINGS[column]:<{width}} {'█' * round(_BAR_CELLS * value / largest)} {value:.4f}"
        for column, value in values.items()
    )
    return "\n".join([f"{PLOTTED}", *bars])


def _seen(found: dict[str, Any], plan: Plan) -> Table:
    """Who got to see what, and who can never have seen what."""
    model, slots = cross_moments(plan), f"{found['alignment']['spine_slots']:,}"
    partners = ", ".join(plan.silos[1:])
    table = Table(title="Who got to see what", title_justify="left")
    for heading in ("", "saw", "did not see"):
        table.add_column(heading)
    table.add_row(
        plan.leader,
        f"of each partner {model.label_items:,} x {model.dimensions} noised sums over people, and the noised "
        f"{model.dimensions} x {model.dimensions} Gram; in a session, the {model.dimensions} numbers of a "
        "person who consents",
        f"a row or an item of {partners}; who is known there, but for whoever brings a token",
    )
    for name in plan.silos[1:]:
        table.add_row(
            name,
            f"{slots} ciphertexts, as many as there are slots, whoever stands in them",
            f"an item or a person of {plan.leader}, the model, what other partners brought",
        )
    table.add_row(
        "coordinator",
        f"how many people the lists have in common; blinded lists, ciphertexts, sizes: {slots} slots",
        "an id, a row, any sum, any model",
    )
    return table


def _spending(found: dict[str, Any]) -> str:
    by_silo = found["privacy"]["per_silo_spent"].items()
    spending = ", ".join(f"{name} {about['epsilon']:.3f}" for name, about in by_silo)
    bytes_up = ", ".join(
        f"{name} {about['up'] / 1e6:.1f} MB" for name, about in found["traffic"]["bytes_by_silo"].items()
    )
    return (
        f"Epsilon spent, by each silo's own ledger: {spending} "
        f"(PLD, tighter, for information: {found['privacy']['epsilon_pld']:.3f}). Sent: {bytes_up}."
    )


def _sessions(found: dict[str, Any]) -> str:
    held = found["sessions"]
    return (
        f"In session: {held['asked']} questions with people's own tokens through the coordinator, "
        f"{held['answered']} answered. The answers differ by at most {held['largest_difference']:.1g} from "
        "what each partner's directory gives, which stands for the sessions of everybody else above."
    )


def demo_promise(plan: Plan) -> str:
    """What is promised to whom, what is assumed, and what serving adds."""
    return (
        f"{job_promise(plan)} These figures assume consented_session; every person of this demo consents. "
        "Only with partners (private) is a product; the other rows were computed by the demo's "
        "harness, which owns all data as no party does, and are charged to no ledger."
    )
