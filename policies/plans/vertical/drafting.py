"""From a promise to a vertical plan: the least noise with which a feature silo keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from policies.plans.models import PrivateEncoderModel
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from policies.plans.shapes import FINEST_GRID, PlanImpossibleError, sensitivity_in_one_silo
from policies.plans.vertical.encoder_price import encoder_release_event
from policies.plans.vertical.price import alignment_event
from policies.validation import validate_values
from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from privacy.events import EventCount

MAX_USUAL_LABEL_ITEMS = 2_000


@dataclass(frozen=True, kw_only=True)
class VerticalDraft:
    """What somebody has to decide; the rest of a vertical plan follows.

    Attributes:
        label: the silo whose items are ranked.
        features: the other silos, and the unit of each: ``user``, ``user_row``, or ``user_node:DEGREE``.
        catalogue_sha256: digest of the label silo's public list.
        catalogue_items: number of its items.
        target_epsilon: total of everything a feature silo releases.
        target_delta: likewise.
        capacities: the declared size of each silo's list of people.
        min_intersection: people in common with which the job goes on.
        alignment_epsilon: of the noised number that is compared with it, and of that of a silo's people.
        reveal: whether silos learn whom they have in common.
        identifiers: how ids are written alike.
        label_items: items of a row that are encrypted; left out: up to 2,000 of the catalogue.
        label_norm: L2 norm of the label silo's rows.
        dimensions: numbers that stand for one person of a feature silo.
        basis: how they are made.
        basis_share: what the basis takes of the promise.
        filter: accounting; left out: zCDP.
        max_interactions_per_user: cap of one history.
        purpose: what the silos' policies know the plan as.
        holdout: rows that the label silo keeps for measuring.
        holdout_fraction: of each person's.
        holdout_seed: of the random holdout.
    """

    label: str
    features: Mapping[str, str]
    catalogue_sha256: str
    catalogue_items: int
    target_epsilon: float
    target_delta: float
    capacities: Mapping[str, int]
    min_intersection: int
    alignment_epsilon: float = 0.1
    reveal: Literal["none", "both"] = "none"
    identifiers: Literal["exact", "email", "phone"] = "exact"
    label_items: int | None = None
    label_norm: float = 1.0
    dimensions: int = 16
    basis: Literal["dp_pca", "public"] = "dp_pca"
    basis_share: float = 0.3
    filter: FilterSpec | None = None
    max_interactions_per_user: int = 200
    purpose: str = "product-recommendation"
    holdout: Literal["none", "random", "last"] = "none"
    holdout_fraction: float = 0.2
    holdout_seed: int = 0


def complete_vertical_plan(draft: VerticalDraft) -> Plan:
    """Return the plan that keeps the draft's promise with the least noise.

    Guarantees: ``plan_epsilon(plan) <= target_epsilon``, and an untouched budget of the same epsilon, delta
    and filter can pay for it.

    Raises:
        PlanImpossibleError: no noise does it.
        PolicyFileError: fields out of range or contradicting each other; all problems at once.
        CalibrationError: the alignment alone uses up the promise.
    """
    return calibrated(vertical_document(draft))


def recalibrate_vertical(plan: Plan, target_epsilon: float) -> Plan:
    """Return the same plan with the noise of another promise; the alignment keeps its price.

    What a private encoder releases keeps its share of the promise.

    Raises: as :func:`complete_vertical_plan`.
    """
    document = plan.model_dump(mode="json", exclude_unset=True)
    if isinstance(plan.model, PrivateEncoderModel):
        scale = target_epsilon / plan.privacy.target_epsilon
        document["model"] |= {"release_epsilon": plan.model.release_epsilon * scale}
    document["privacy"] |= {"target_epsilon": target_epsilon}
    return calibrated(document)


def calibrated(document: dict[str, Any]) -> Plan:
    """Return the plan of a document with the least noise in what repeats: the moments, or an encoder's steps.

    Raises: as :func:`complete_vertical_plan`.
    """
    start = validate_values(document, Plan, "plan")
    privacy, training = start.privacy, start.training
    fixed, larger = [EventCount(alignment_event(start), 1)], 1.0
    if isinstance(start.model, PrivateEncoderModel):
        fixed.append(EventCount(encoder_release_event(start), 1))
        larger = sensitivity_in_one_silo(start) / privacy.grid
    multiplier = calibrate_noise_multiplier(
        privacy.target_epsilon,
        privacy.target_delta,
        privacy.filter_spec,
        releases=training.rounds,
        sample_rate=training.sample_rate,
        fixed=fixed,
    )
    document["privacy"]["noise_multiplier"] = math.ceil(multiplier * larger * (1 + 1e-5) * 1e5) / 1e5
    plan = validate_values(document, Plan, "plan")
    if plan_epsilon(plan) > privacy.target_epsilon:
        raise PlanImpossibleError(
            f"calibration ends at epsilon {plan_epsilon(plan):.6g} of {privacy.target_epsilon:.6g}",
            where="privacy.noise_multiplier",
        )
    return plan


def vertical_document(draft: VerticalDraft) -> dict[str, Any]:
    """Return a plan of cross-moments as a document, its noise still to be calibrated."""
    silos = (draft.label, *draft.features)
    spec = draft.filter or ZcdpFilter()
    holdout: dict[str, Any] = {"kind": draft.holdout}
    if draft.holdout != "none":
        holdout["fraction"] = draft.holdout_fraction
    if draft.holdout == "random":
        holdout["seed"] = draft.holdout_seed
    return {
        "kind": "Plan",
        "schema_version": 1,
        "purpose": draft.purpose,
        "partition": "vertical",
        "silos": silos,
        "roles": {
            "label": draft.label,
            "features": {silo: _terms(unit) for silo, unit in draft.features.items()},
        },
        "catalogue": {"kind": "shared", "sha256": draft.catalogue_sha256, "items": draft.catalogue_items},
        "alignment": {
            "capacities": dict(draft.capacities),
            "min_intersection": draft.min_intersection,
            "epsilon": draft.alignment_epsilon,
            "reveal": draft.reveal,
            "identifiers": draft.identifiers,
        },
        "max_users_per_silo": max(draft.capacities.values(), default=1),
        "max_interactions_per_user": draft.max_interactions_per_user,
        "holdout": holdout,
        "model": {
            "family": "cross-moments",
            "label_items": draft.label_items or min(draft.catalogue_items, MAX_USUAL_LABEL_ITEMS),
            "label_norm": draft.label_norm,
            "dimensions": draft.dimensions,
            "basis": draft.basis,
            "basis_share": draft.basis_share,
        },
        "training": {"rounds": 1},
        "privacy": {
            "unit": "user",
            "neighboring_relation": "add_or_remove_one",
            "target_epsilon": draft.target_epsilon,
            "target_delta": draft.target_delta,
            "filter": spec.kind,
            **({"orders": spec.orders} if isinstance(spec, RenyiFilter) else {}),
            "noise_multiplier": 1.0,
            "contribution_norm": 1.0,
            "grid": FINEST_GRID,
            "noise_placement": "silo",
            "colluding_silos": len(silos) - 1,
            "max_silos_per_user": len(silos),
        },
        "protection": {"encryption": "bfv", "masks": "pairwise", "min_silos": len(silos)},
        "releases": {"model": "label", "metrics": "none"},
    }


def _terms(unit: str) -> dict[str, Any]:
    """``user_node:20`` names the largest number of edges of a person that count."""
    name, _, degree = unit.partition(":")
    return {"unit": name} | ({"max_degree": int(degree)} if degree.isdecimal() else {})
