"""What a model says of itself: where it comes from and what it promises to the people in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from federation.rounds import JobState
from policies.plans.plan import Plan
from policies.plans.price import spent_epsilon
from privacy.events import EventCount
from silo.tasks import Built


def model_card(
    state: JobState, charter_name: str, built: Built, events: Sequence[EventCount], *, num_opened: int
) -> dict[str, Any]:
    """The card beside a model file: public facts of its job only.

    Args:
        state: the job.
        charter_name: the federation.
        built: facts about the files.
        events: what the silo's ledger committed for the job.
        num_opened: training rounds in the model.
    """
    plan = state.plan
    card: dict[str, Any] = card_header(state, charter_name) | {
        "model": built.facts,
        "checkpoint": built.checkpoint_sha256,
        "rounds": {"opened": num_opened, "planned": plan.training.rounds},
        "note": note_of(state, num_opened),
        "privacy": privacy_claims(plan, privacy_statement(plan), events, built.epsilon_pld)
        | {"unit": plan.privacy.unit},
    }
    return card if built.metrics is None else card | {"metrics": built.metrics}


def card_header(state: JobState, charter_name: str) -> dict[str, Any]:
    """What every card begins with: which job this is of."""
    plan = state.plan
    return {
        "kind": "ModelCard",
        "schema_version": 1,
        "federation": charter_name,
        "job": state.job,
        "job_id": state.job_id.hex(),
        "plan_sha256": state.plan_sha256,
        "purpose": plan.purpose,
        "family": plan.model.family,
        "silos": list(plan.silos),
        "catalogue": plan.catalogue.model_dump(mode="json"),
    }


def privacy_claims(
    plan: Plan, statement: str, events: Sequence[EventCount], epsilon_pld: float
) -> dict[str, Any]:
    """What a card says of privacy, apart from the unit.

    Args:
        plan: the job's.
        statement: in words.
        events: what this silo's ledger committed.
        epsilon_pld: of these, by the second accountant.
    """
    return {
        "statement": statement,
        "neighboring_relation": plan.privacy.neighboring_relation,
        "target_epsilon": plan.privacy.target_epsilon,
        "target_delta": plan.privacy.target_delta,
        "epsilon": spent_epsilon(plan, events),
        "epsilon_pld": epsilon_pld,
        "accountant": plan.privacy.filter,
        "noise_placement": plan.privacy.noise_placement,
        "colluding_silos": plan.privacy.colluding_silos,
        "max_silos_per_user": plan.privacy.max_silos_per_user,
    }


def note_of(state: JobState, num_opened: int) -> str | None:
    """What a model of fewer rounds than planned says of itself; None for a whole one."""
    planned = state.plan.training.rounds
    if state.outcome in (None, "completed") and num_opened == planned:
        return None
    why = "this silo was absent" if state.outcome in (None, "completed") else state.outcome
    return f"after {num_opened} of {planned} rounds: {why}"


def privacy_statement(plan: Plan) -> str:
    """What is promised to one person, in words."""
    privacy = plan.privacy
    n, c, m = plan.num_silos, privacy.colluding_silos, privacy.max_silos_per_user
    where = (
        "in any one silo (the silos declared that nobody is in two of them)"
        if m == 1
        else f"in up to {m} of the {n} silos"
    )
    return (
        "Whoever sees everything this job releases, and compares a world with one person's whole history "
        f"{where} with a world without that person, finds no outcome more than "
        f"e^{privacy.target_epsilon:g} = "
        f"{math.exp(privacy.target_epsilon):,.0f} times as likely in one as in the other, except with "
        f"probability {privacy.target_delta:g} (epsilon {privacy.target_epsilon:g}, delta "
        f"{privacy.target_delta:g}, add or remove one person). "
        f"This holds against the coordinator together with {c} of the {n} silos, the reader's own included, "
        "as long as they follow the protocol; against outsiders and the coordinator alone everything is "
        "encrypted as well."
    )
