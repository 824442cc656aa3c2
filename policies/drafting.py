"""From a promise to a plan: fills in the noise and the grid that keep it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from policies.plan import Plan
from policies.price import (
    MAX_ROUNDING_COST,
    PlanImpossibleError,
    largest_grid,
    metrics_shape,
    plan_epsilon,
    schedule,
    sensitivity_in_one_silo,
)
from policies.validation import validate_values
from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from privacy.events import EventCount

DEFAULT_ORDERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

Family = Literal["popularity", "item-graph", "linear"]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What people decide about a plan; :func:`complete_plan` computes the rest.

    Attributes:
        silos: the roster, the leader first.
        catalogue_sha256: of the public item file.
        catalogue_items: number of its lines.
        family: of the model.
        target_epsilon: total of everything released.
        target_delta: total.
        max_users_per_silo: public bound, rounded up.
        colluding_silos: silos, the observer included, that may pool what they know with the coordinator.
        max_silos_per_user: in how many silos one person may be; all of them unless someone declares less.
        filter: accounting to calibrate with; left out: zCDP, or Rényi where users are sampled.
        max_interactions_per_user: cap of one history.
        holdout: rows kept out of contributions; ``none`` where the caller holds them out itself.
        holdout_fraction: of each user's rows.
        holdout_seed: of the random split.
        metrics_epsilon: noised metrics at this price; left out: none.
        min_silos: fewest silos of a sum; left out: all of them.
        rank: of an item graph.
        features: width of a linear model's item features; rounds to max_grad_norm below belong to it too.
    """

    silos: tuple[str, ...]
    catalogue_sha256: str
    catalogue_items: int
    family: Family
    target_epsilon: float
    target_delta: float
    max_users_per_silo: int
    colluding_silos: int = 1
    max_silos_per_user: int | None = None
    filter: FilterSpec | None = None
    max_interactions_per_user: int = 200
    purpose: str = "product-recommendation"
    holdout: Literal["none", "random", "last"] = "none"
    holdout_fraction: float = 0.2
    holdout_seed: int = 0
    metrics_epsilon: float | None = None
    min_silos: int | None = None
    max_failed_opens: int = 2
    max_burned_rounds: int = 0
    rank: int = 64
    features: int = 1
    rounds: int = 5
    sample_rate: float = 1.0
    expected_batch_size: float | None = None
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.05
    local_steps: int = 1
    max_grad_norm: float = 1.0


def complete_plan(draft: Draft) -> Plan:
    """Return the plan that keeps the draft's promise with the least noise and the finest grid.

    Guarantees: ``plan_epsilon(plan) <= target_epsilon``, and an untouched budget of the same epsilon, delta
    and filter can pay for it. Everything is rounded to the private side.

    Raises:
        PlanImpossibleError: no noise or grid can do it.
        PolicyFileError: fields out of range or contradicting each other; all problems at once.
        CalibrationError: the metrics alone use up the promise.
    """
    document = _document(draft)
    start = _plan(document)
    multiplier = _training_multiplier(start) * start.privacy.max_silos_per_user
    worst_rounding = 1.0 if start.is_statistics else 1 + 1.01 * MAX_ROUNDING_COST
    coarse = _with(document, noise_multiplier=_round_up(multiplier * worst_rounding), grid=1)
    grid = largest_grid(coarse)
    relative = sensitivity_in_one_silo(_with(document, noise_multiplier=1.0, grid=grid)) / grid
    plan = _with(document, noise_multiplier=_round_up(multiplier * relative), grid=grid)
    schedule(plan)
    spent = plan_epsilon(plan)
    if spent > draft.target_epsilon:
        raise PlanImpossibleError(
            f"calibration ends at epsilon {spent:.6g} of {draft.target_epsilon:.6g}",
            where="privacy.noise_multiplier",
        )
    return plan


def _training_multiplier(plan: Plan) -> float:
    """Return the noise of one training release over its full sensitivity, beside the metrics if any."""
    training, privacy = plan.training, plan.privacy
    metrics = metrics_shape(plan)
    return calibrate_noise_multiplier(
        privacy.target_epsilon,
        privacy.target_delta,
        privacy.filter_spec,
        releases=training.rounds + training.max_burned_rounds,
        sample_rate=training.sample_rate,
        max_silos_per_user=privacy.max_silos_per_user,
        fixed=() if metrics is None else (EventCount(metrics.event, 1),),
    )


def _document(draft: Draft) -> dict[str, Any]:
    """Return the plan as the mapping a file holds, with noise and grid still open (1)."""
    n = len(draft.silos)
    metrics: Any = "none"
    if draft.metrics_epsilon is not None:
        metrics = {"noised": True, "epsilon": draft.metrics_epsilon}
    return {
        "kind": "Plan",
        "schema_version": 1,
        "purpose": draft.purpose,
        "partition": "horizontal",
        "silos": draft.silos,
        "catalogue": {"kind": "shared", "sha256": draft.catalogue_sha256, "items": draft.catalogue_items},
        "max_users_per_silo": draft.max_users_per_silo,
        "max_interactions_per_user": draft.max_interactions_per_user,
        "holdout": _holdout(draft),
        "model": _model(draft),
        "training": _training(draft),
        "privacy": _privacy(draft),
        "protection": {
            "encryption": "bfv",
            "masks": "pairwise",
            "min_silos": draft.min_silos or n,
            "max_failed_opens": draft.max_failed_opens,
        },
        "releases": {"model": "members", "metrics": metrics},
    }


def _holdout(draft: Draft) -> dict[str, Any]:
    match draft.holdout:
        case "none":
            return {"kind": "none"}
        case "last":
            return {"kind": "last", "fraction": draft.holdout_fraction}
        case _:
            return {"kind": "random", "fraction": draft.holdout_fraction, "seed": draft.holdout_seed}


def _model(draft: Draft) -> dict[str, Any]:
    match draft.family:
        case "item-graph":
            return {"family": "item-graph", "rank": draft.rank}
        case "linear":
            return {"family": "linear", "features": draft.features}
        case _:
            return {"family": draft.family}


def _training(draft: Draft) -> dict[str, Any]:
    if draft.family != "linear":
        return {"rounds": 1, "max_burned_rounds": draft.max_burned_rounds}
    everybody = float(draft.max_users_per_silo * len(draft.silos))
    return {
        "rounds": draft.rounds,
        "max_burned_rounds": draft.max_burned_rounds,
        "sample_rate": draft.sample_rate,
        "expected_batch_size": draft.expected_batch_size or draft.sample_rate * everybody,
        "optimizer": draft.optimizer,
        "learning_rate": draft.learning_rate,
        "local_steps": draft.local_steps,
    }


def _privacy(draft: Draft) -> dict[str, Any]:
    n = len(draft.silos)
    sampled = draft.family == "linear" and draft.sample_rate < 1
    spec = draft.filter or (RenyiFilter(orders=DEFAULT_ORDERS) if sampled else ZcdpFilter())
    section: dict[str, Any] = {
        "unit": "user",
        "neighboring_relation": "add_or_remove_one",
        "target_epsilon": draft.target_epsilon,
        "target_delta": draft.target_delta,
        "filter": spec.kind,
    }
    if isinstance(spec, RenyiFilter):
        section["orders"] = spec.orders
    section["noise_multiplier"] = 1.0
    if draft.family == "linear":
        section["max_grad_norm"] = draft.max_grad_norm
    else:
        section["contribution_norm"] = 1.0
    return section | {
        "grid": 1,
        "noise_placement": "silo" if n - draft.colluding_silos < 2 else "federation",
        "colluding_silos": draft.colluding_silos,
        "max_silos_per_user": n if draft.max_silos_per_user is None else draft.max_silos_per_user,
    }


def _plan(document: dict[str, Any]) -> Plan:
    return validate_values(document, Plan, "plan")


def _with(document: dict[str, Any], *, noise_multiplier: float, grid: int) -> Plan:
    section = document["privacy"] | {"noise_multiplier": noise_multiplier, "grid": grid}
    return _plan(document | {"privacy": section})


def _round_up(value: float) -> float:
    return math.ceil(value * 100_000) / 100_000
