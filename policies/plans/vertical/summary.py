"""What a vertical plan promises and costs each role, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from policies.plans.models import PrivateEncoderModel
from policies.plans.price import plan_epsilon, plan_epsilon_pld
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_step
from policies.plans.vertical.price import basis_event, entry_epsilon, moments_event
from policies.plans.vertical.reveals import describe_disclosures, disclosures, epsilon_towards

if TYPE_CHECKING:
    from policies.plans.plan import Plan


def summarise_vertical(plan: Plan) -> dict[str, Any]:
    """Return what a vertical plan promises and costs, as JSON values."""
    from policies.canonical import digest

    privacy, alignment, roles = plan.privacy, plan.alignment, plan.roles
    if alignment is None or roles is None:
        raise ValueError("a vertical plan has roles and alignment")
    return {
        "plan_sha256": digest(plan),
        "family": plan.model.family,
        "partition": plan.partition,
        "silos": list(plan.silos),
        "label": roles.label,
        "features": {silo: terms.model_dump(mode="json") for silo, terms in roles.features.items()},
        "neighboring_relation": privacy.neighboring_relation,
        "target_epsilon": privacy.target_epsilon,
        "target_delta": privacy.target_delta,
        "epsilon": plan_epsilon(plan),
        "epsilon_pld": plan_epsilon_pld(plan),
        "epsilon_by_silo": {silo: plan_epsilon(plan, silo=silo) for silo in plan.silos},
        "filter": privacy.filter,
        "alignment_epsilon": alignment.epsilon,
        **_multipliers(plan),
        "min_intersection": alignment.min_intersection,
        "reveal": alignment.reveal,
        "spine_slots": alignment.spine_slots,
        "epsilon_towards": epsilon_towards(plan),
        "disclosures": [asdict(one) for one in disclosures(plan)],
        "serving": list(serving_modes(plan)),
    }


def describe_vertical(plan: Plan, summary: Mapping[str, Any]) -> list[str]:
    """Return the same for people.

    Args:
        plan: the plan.
        summary: of it, by :func:`summarise_vertical`.
    """
    label, features = summary["label"], ", ".join(summary["features"])
    lines = [
        f"{label} ranks items; {features} bring what they know of the same people",
        f"a feature silo spends epsilon {summary['epsilon']:.4g} at delta {plan.privacy.target_delta:g} "
        f"({summary['filter']}; {summary['epsilon_pld']:.4g} by a second accountant), add or remove one",
        f"{label} spends epsilon {summary['epsilon_by_silo'][label]:.4g}, for the noised numbers of its "
        f"people and of those in common; {_label_rows(plan)}",
        _noise(plan, summary),
    ]
    lines += [_unit(silo, terms) for silo, terms in summary["features"].items()]
    return [*lines, _alignment(summary), _room(plan), *describe_disclosures(plan), _serving(plan)]


def serving_modes(plan: Plan) -> tuple[str, ...]:
    """How the label silo's lists may be made after a job, where the policies of both silos allow it."""
    if isinstance(plan.model, PrivateEncoderModel):
        return ("own_features_only", "dp_release", "consented_session")
    return ("own_features_only", "consented_session", "user_side_merge")


def _serving(plan: Plan) -> str:
    label = plan.leader
    if isinstance(plan.model, PrivateEncoderModel):
        return (
            f"{label} makes lists from the noised numbers that this job releases (dp_release), and asks "
            "nobody; what a partner knows exactly takes the person's own token (consented_session)"
        )
    return (
        f"{label} makes lists from its own rows alone, unless the person brings a partner's token "
        "(consented_session) or merges the list on their own device (user_side_merge); this job releases no "
        "numbers of anybody: serving without asking takes a plan of the family private-encoder (dp_release)"
    )


def _multipliers(plan: Plan) -> dict[str, float]:
    if isinstance(plan.model, PrivateEncoderModel):
        return {
            "training_noise_multiplier": encoder_step(plan).event.noise_multiplier,
            "release_noise_multiplier": encoder_release_event(plan).noise_multiplier,
        }
    return {
        "basis_noise_multiplier": basis_event(plan).noise_multiplier,
        "moments_noise_multiplier": moments_event(plan).noise_multiplier,
    }


def _noise(plan: Plan, summary: Mapping[str, Any]) -> str:
    if isinstance(plan.model, PrivateEncoderModel):
        return (
            f"noise multipliers {summary['training_noise_multiplier']:g} in each of {plan.training.rounds} "
            f"steps of an encoder and {summary['release_noise_multiplier']:g} on the {plan.model.dimensions} "
            "numbers that it makes of a person, released once; each feature silo adds all of it itself"
        )
    return (
        f"noise multipliers {summary['basis_noise_multiplier']:g} of the basis and "
        f"{summary['moments_noise_multiplier']:g} of the moments; each feature silo adds all of it itself"
    )


def _label_rows(plan: Plan) -> str:
    is_encoder = isinstance(plan.model, PrivateEncoderModel)
    return "its rows stay with it" if is_encoder else "its rows leave under its own key only"


def _unit(silo: str, terms: Mapping[str, Any]) -> str:
    words = {
        "user": "one person's whole history",
        "user_row": "one person's own list; that they stand in others' lists is not protected",
        "user_node": f"one person's own list and their place in up to {terms['max_degree']} others'",
    }
    return f"protected at {silo}: {words[terms['unit']]}"


def _room(plan: Plan) -> str:
    from privacy.alignment.thinning import reserve

    spare = reserve(entry_epsilon(plan))
    return (
        f"{spare:,} places of each list are for the noise that hides how many people a silo has; of more "
        "people than the others hold, some are left out at random"
    )


def _alignment(summary: Mapping[str, Any]) -> str:
    least = f"{summary['min_intersection']:,}"
    if summary["reveal"] == "both":
        return f"from {least} people in common on, every silo learns whom it has in common with the others"
    slots = f"{summary['spine_slots']:,}"
    return f"{slots} slots hide who is known where; below about {least} people in common the job ends"
