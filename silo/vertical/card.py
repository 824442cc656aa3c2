"""What a silo keeps beside what a vertical job left it: where it comes from, and what it promises to whom."""

from __future__ import annotations

import json

from federation.steps import Step, durable
from policies.files import write_atomically
from policies.plans.models import PrivateEncoderModel
from policies.plans.plan import Plan
from privacy.accounting import epsilon_pld
from silo.jobs.context import JobContext
from silo.jobs.model import CARD_FILE, committed_events
from silo.model_card import card_header, privacy_claims
from silo.tensor_files import sha256_of
from silo.vertical.artefacts import BASIS_FILE, MODEL_FILE


async def write_card(context: JobContext) -> None:
    """Write the card of the joint model, or of a feature silo's basis: public facts of the job only."""
    plan, state = context.state.plan, context.state
    is_label = context.me == plan.leader
    path = context.directory / (MODEL_FILE if is_label else BASIS_FILE)
    events = committed_events(context)
    second = await context.worker.run(epsilon_pld, events, plan.privacy.target_delta)
    card = card_header(state, context.site.charter.name) | {
        "role": "label" if is_label else "feature",
        "model": {"sha256": sha256_of(path), "num_bytes": path.stat().st_size},
        "spine_slots": state.spine_slots,
        "privacy": privacy_claims(plan, promise(plan), events, second) | {"unit": plan.unit_of(context.me)},
    }
    with durable(Step.MODEL_WRITTEN):
        write_atomically(context.directory / CARD_FILE, json.dumps(card, indent=2).encode())


def promise(plan: Plan) -> str:
    """What is promised to whom, and what is assumed, in words."""
    units = ", ".join(f"{name} ({plan.unit_of(name).replace('_', ' ')})" for name in plan.silos[1:])
    label, privacy = plan.leader, plan.privacy
    is_revealed = plan.alignment is not None and plan.alignment.reveal == "both"
    revealed = "Whom all silos have in common is shown to each, and no epsilon bounds that. " * is_revealed
    return (
        f"Of each partner, {units}: whoever holds all that {label} ever received in this job, and compares a "
        f"world with one such unit and one without it, learns at most epsilon {privacy.target_epsilon:g} "
        f"(delta {privacy.target_delta:g}), whoever else colludes. {_of_label(plan)} Its "
        f"share is the noised number of people in common. {revealed}"
        "The coordinator and one silo together learn which of that silo's people are elsewhere. Serving is "
        "another permission: what a session shows of a person is outside epsilon."
    )


def _of_label(plan: Plan) -> str:
    label = plan.leader
    if isinstance(plan.model, PrivateEncoderModel):
        return f"That rests on no assumption about {label}, whose rows stayed with it."
    return (
        f"{label} is assumed to follow the protocol: its rows are as short as the plan says. {label}'s rows "
        "left under its own key only."
    )
