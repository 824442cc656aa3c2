"""From a promise to a plan: fills in the noise and the grid that keep it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from policies.plans.adapters import AdapterDraft
from policies.plans.models import STATISTICS, FamilyName, LanguageArchitectureName
from policies.plans.plan import Plan
from policies.plans.price import (
    MAX_ROUNDING_COST,
    PlanImpossibleError,
    largest_grid,
    metrics_shape,
    plan_epsilon,
    popularity_shape,
    schedule,
    sensitivity_in_one_silo,
)
from policies.plans.recipes import (
    DEFAULT_LANGUAGE_ARCHITECTURE,
    DEFAULT_ROUND_MINUTES,
    MASKED_SHARE,
    Recipe,
    recipe_of,
)
from policies.plans.shapes import burns_of_popularity
from policies.validation import validate_values
from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from privacy.events import EventCount

_USUAL_ARCHITECTURES = {"sequence": "transformer", "language": DEFAULT_LANGUAGE_ARCHITECTURE}
DEFAULT_ORDERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, kw_only=True)
class Draft(AdapterDraft):
    """What people decide about a plan; :func:`complete_plan` computes the rest.

    What is None here is left out of the plan, or comes from the family's recipe
    (:data:`policies.plans.recipes.RECIPES`). What is given but means nothing to the family is refused.

    Attributes:
        silos: the roster, the leader first.
        catalogue_sha256: of the public item file.
        catalogue_items: number of its lines.
        family: of the model.
        target_epsilon: total of everything released.
        target_delta: total.
        max_users_per_silo: public bound, rounded up.
        colluding_silos: silos, the observer included, that may pool what they know with the coordinator; left
            out: 1, or all others where each silo's own noise suffices.
        noise_placement: left out: ``federation`` where two silos stay outside the collusion.
        max_silos_per_user: in how many silos one person may be; all of them unless someone declares less.
        filter: accounting to calibrate with; left out: zCDP, or Rényi where users are sampled.
        max_interactions_per_user: cap of one history.
        holdout: rows kept out of contributions; ``none`` where the caller holds them out itself.
        holdout_fraction: of each user's rows.
        holdout_seed: of the random split.
        metrics_epsilon: noised metrics at this price; left out: none.
        min_silos: fewest silos of a sum; left out: all of them.
        round_minutes: how long a round waits for a silo; left out: ten, where it may go on without.
        rank: of an item graph.
        features: width of the items' public features in a trained model.
        encoder_sha256: of the text encoder, where every silo ranks items of its own; the catalogue then sets
            the scale of texts.
        text_dimensions: of the space of item texts.
        architecture: of a network over ordered histories.
        layers: of it.
        places: newest items of a history that it reads.
        hidden: width of the hidden layer, or of such a network.
        input_dropout: share of a history that it does not see in a step and is asked for.
        seed: of its first parameters.
        bias_epsilon: price of the popularity it starts from; 0 for none.
        start_from: SHA-256 of the checkpoint it starts from.
        expected_batch_size: public divisor of a summed gradient; left out: what the bounds allow. Bounds
            are rounded up, so that is too large: steps get shorter (which Adam undoes) and levels wider.
    """

    silos: tuple[str, ...]
    catalogue_sha256: str
    catalogue_items: int
    family: FamilyName
    target_epsilon: float
    target_delta: float
    max_users_per_silo: int
    colluding_silos: int | None = None
    noise_placement: Literal["federation", "silo"] | None = None
    max_silos_per_user: int | None = None
    filter: FilterSpec | None = None
    max_interactions_per_user: int = 200
    purpose: str = "product-recommendation"
    holdout: Literal["none", "random", "last"] = "none"
    holdout_fraction: float = 0.2
    holdout_seed: int = 0
    metrics_epsilon: float | None = None
    min_silos: int | None = None
    round_minutes: float | None = None
    max_failed_opens: int = 2
    max_burned_rounds: int | None = None
    rank: int | None = None
    features: int | None = None
    encoder_sha256: str | None = None
    text_dimensions: int | None = None
    architecture: LanguageArchitectureName | None = None
    layers: int | None = None
    places: int | None = None
    negatives: int | None = None
    hidden: int | None = None
    input_dropout: float | None = None
    seed: int | None = None
    bias_epsilon: float | None = None
    start_from: str | None = None
    rounds: int | None = None
    sample_rate: float = 1.0
    expected_batch_size: float | None = None
    optimizer: Literal["sgd", "adam"] | None = None
    learning_rate: float | None = None
    decay: Literal["none", "linear"] | None = None
    second_moment_decay: float | None = None
    local_steps: int = 1
    local_learning_rate: float | None = None
    max_grad_norm: float | None = None
    clipping: Literal["flat", "automatic"] | None = None


def complete_plan(draft: Draft) -> Plan:
    """Return the plan that keeps the draft's promise with the least noise and the finest grid.

    Guarantees: ``plan_epsilon(plan) <= target_epsilon``, and an untouched budget of the same epsilon, delta
    and filter can pay for it. Everything is rounded to the private side.

    Raises:
        PlanImpossibleError: no noise or grid can do it.
        PolicyFileError: fields out of range or contradicting each other; all problems at once.
        CalibrationError: popularity or metrics alone use up the promise.
    """
    return _calibrated(_document(draft))


def recalibrate(plan: Plan, target_epsilon: float) -> Plan:
    """Return the same plan with the noise and grid of another promise; its other releases keep their price.

    Raises:
        PlanImpossibleError: no noise or grid can do it.
        PolicyFileError: an epsilon out of range.
        CalibrationError: popularity or metrics alone use up the promise.
    """
    document = plan.model_dump(mode="json", exclude_unset=True)
    document["privacy"] |= {"target_epsilon": target_epsilon}
    return _calibrated(document)


def _calibrated(document: dict[str, Any]) -> Plan:
    start = _with(document, noise_multiplier=1.0, grid=1)
    multiplier = _training_multiplier(start) * start.privacy.max_silos_per_user
    worst_rounding = 1.0 if start.is_statistics else 1 + 1.01 * MAX_ROUNDING_COST
    coarse = _with(document, noise_multiplier=_round_up(multiplier * worst_rounding), grid=1)
    grid = largest_grid(coarse)
    relative = sensitivity_in_one_silo(_with(document, noise_multiplier=1.0, grid=grid)) / grid
    plan = _with(document, noise_multiplier=_round_up(multiplier * relative), grid=grid)
    schedule(plan)
    spent, promised = plan_epsilon(plan), plan.privacy.target_epsilon
    if spent > promised:
        raise PlanImpossibleError(
            f"calibration ends at epsilon {spent:.6g} of {promised:.6g}", where="privacy.noise_multiplier"
        )
    return plan


def _training_multiplier(plan: Plan) -> float:
    """Return the noise of one training step over its full sensitivity, beside all other releases."""
    training, privacy = plan.training, plan.privacy
    popularity, metrics = popularity_shape(plan), metrics_shape(plan)
    fixed = [] if metrics is None else [EventCount(metrics.event, 1)]
    if popularity is not None:
        fixed.append(EventCount(popularity.event, 1 + burns_of_popularity(plan)))
    return calibrate_noise_multiplier(
        privacy.target_epsilon,
        privacy.target_delta,
        privacy.filter_spec,
        releases=(training.rounds + training.max_burned_rounds) * training.local_steps,
        sample_rate=training.sample_rate,
        max_silos_per_user=privacy.max_silos_per_user,
        fixed=fixed,
    )


def _document(draft: Draft) -> dict[str, Any]:
    """Return the plan as the mapping a file holds, with noise and grid still open."""
    if draft.adapter is not None and draft.architecture is None:
        draft = replace(draft, architecture="bottleneck")
    recipe = recipe_of(draft.family, draft.architecture)
    metrics: Any = "none"
    if draft.metrics_epsilon is not None:
        metrics = {"noised": True, "epsilon": draft.metrics_epsilon}
    return {
        "kind": "Plan",
        "schema_version": 1,
        "purpose": draft.purpose,
        "partition": "horizontal",
        "silos": draft.silos,
        "catalogue": _catalogue(draft),
        "max_users_per_silo": draft.max_users_per_silo,
        "max_interactions_per_user": draft.max_interactions_per_user,
        "holdout": _holdout(draft),
        "model": _model(draft, recipe),
        "training": _training(draft, recipe),
        "privacy": _privacy(draft, recipe),
        "protection": _protection(draft),
        "releases": {"model": "members", "metrics": metrics},
    }


def _catalogue(draft: Draft) -> dict[str, Any]:
    listed = {"sha256": draft.catalogue_sha256, "items": draft.catalogue_items}
    if draft.encoder_sha256 is None:
        return {"kind": "shared"} | listed
    return {"kind": "per_silo"} | listed | {"encoder_sha256": draft.encoder_sha256}


def _holdout(draft: Draft) -> dict[str, Any]:
    match draft.holdout:
        case "none":
            return {"kind": "none"}
        case "last":
            return {"kind": "last", "fraction": draft.holdout_fraction}
        case _:
            return {"kind": "random", "fraction": draft.holdout_fraction, "seed": draft.holdout_seed}


def _model(draft: Draft, recipe: Recipe | None) -> dict[str, Any]:
    asked = _given(
        rank=draft.rank,
        architecture=draft.architecture,
        features=draft.features,
        dimensions=draft.text_dimensions,
        layers=draft.layers,
        places=draft.places,
        negatives=draft.negatives and {"count": draft.negatives},
        hidden=draft.hidden,
        input_dropout=draft.input_dropout,
        seed=draft.seed,
        encoder_adapter=draft.adapter_section(),
        bias=None if draft.bias_epsilon is None else _bias(draft.bias_epsilon),
        start_from=draft.start_from,
    )
    usual: dict[str, Any] = {"rank": 64} if draft.family == "item-graph" else {}
    if recipe is not None:
        usual = _given(
            features=recipe.features and min(recipe.features, draft.catalogue_items),
            dimensions=recipe.dimensions and min(recipe.dimensions, draft.catalogue_items),
            hidden=recipe.hidden,
            layers=recipe.layers,
            places=recipe.places,
            negatives=recipe.negatives and {"count": recipe.negatives},
            input_dropout=MASKED_SHARE if draft.architecture == "masked" else recipe.input_dropout,
        )
        if draft.family in _USUAL_ARCHITECTURES:
            usual["architecture"] = _USUAL_ARCHITECTURES[draft.family]
        if recipe.popularity_share:
            usual["bias"] = _bias(recipe.popularity_share * draft.target_epsilon)
    return {"family": draft.family} | usual | asked


def _bias(epsilon: float) -> Any:
    return {"noised": True, "epsilon": epsilon} if epsilon else "none"


def _training(draft: Draft, recipe: Recipe | None) -> dict[str, Any]:
    asked = _given(
        rounds=draft.rounds,
        max_burned_rounds=draft.max_burned_rounds,
        sample_rate=draft.sample_rate if recipe or draft.sample_rate != 1 else None,
        expected_batch_size=draft.expected_batch_size,
        optimizer=draft.optimizer,
        learning_rate=draft.learning_rate,
        decay=draft.decay,
        second_moment_decay=draft.second_moment_decay,
        local_steps=draft.local_steps if recipe or draft.local_steps != 1 else None,
        local_learning_rate=draft.local_learning_rate,
    )
    usual = _usual_training(draft, recipe) if recipe else {"rounds": 1, "max_burned_rounds": 0}
    return usual | asked


def _usual_training(draft: Draft, recipe: Recipe) -> dict[str, Any]:
    everybody = draft.sample_rate * draft.max_users_per_silo * len(draft.silos)
    is_adam = (draft.optimizer or recipe.optimizer) == "adam"
    return {
        "rounds": recipe.rounds,
        "max_burned_rounds": _usual_burned_rounds(draft, recipe),
        "sample_rate": 1.0,
        "expected_batch_size": float(everybody),
        "optimizer": recipe.optimizer,
        "learning_rate": recipe.learning_rate,
        **_given(
            decay=_unless(recipe.decay, "none"),
            second_moment_decay=_unless(recipe.second_moment_decay, 0.999) if is_adam else None,
        ),
        "local_steps": 1,
        **_given(local_learning_rate=recipe.local_learning_rate if draft.local_steps > 1 else None),
    }


def _usual_burned_rounds(draft: Draft, recipe: Recipe) -> int:
    """A tenth of the rounds where they may go on without a silo: each absence burns one."""
    if draft.min_silos is None or draft.min_silos >= len(draft.silos):
        return 0
    return math.ceil((draft.rounds or recipe.rounds) / 10)


def _privacy(draft: Draft, recipe: Recipe | None) -> dict[str, Any]:
    n = len(draft.silos)
    sampled = recipe is not None and draft.sample_rate < 1
    spec = draft.filter or (RenyiFilter(orders=DEFAULT_ORDERS) if sampled else ZcdpFilter())
    placement, colluding_silos = _placement(draft)
    norms: dict[str, Any] = {"contribution_norm": 1.0}
    if recipe is not None:
        norms = _given(max_grad_norm=recipe.max_grad_norm, clipping=_unless(recipe.clipping, "flat"))
    asked = _given(max_grad_norm=draft.max_grad_norm, clipping=draft.clipping)
    return {
        "unit": "user",
        "neighboring_relation": "add_or_remove_one",
        "target_epsilon": draft.target_epsilon,
        "target_delta": draft.target_delta,
        "filter": spec.kind,
        **({"orders": spec.orders} if isinstance(spec, RenyiFilter) else {}),
        "noise_multiplier": 1.0,
        **(norms | asked),
        "grid": 1,
        "noise_placement": placement,
        "colluding_silos": colluding_silos,
        "max_silos_per_user": n if draft.max_silos_per_user is None else draft.max_silos_per_user,
    }


def _placement(draft: Draft) -> tuple[str, int]:
    n, c = len(draft.silos), draft.colluding_silos
    usual = "silo" if n - (c or 1) < 2 else "federation"
    placement = draft.noise_placement or usual
    return placement, c if c is not None else (n - 1 if placement == "silo" else 1)


def _protection(draft: Draft) -> dict[str, Any]:
    n = len(draft.silos)
    min_silos = draft.min_silos or n
    may_go_on = draft.family not in STATISTICS and min_silos < n
    minutes = draft.round_minutes or (DEFAULT_ROUND_MINUTES if may_go_on else None)
    return {
        "encryption": "bfv",
        "masks": "pairwise",
        "min_silos": min_silos,
        "max_failed_opens": draft.max_failed_opens,
        **_given(round_minutes=minutes),
    }


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that somebody decided."""
    return {name: value for name, value in fields.items() if value is not None}


def _unless(value: Any, default: Any) -> Any:
    """Return a value that the plan has to say, None where its absence says the same."""
    return None if value == default else value


def _with(document: dict[str, Any], *, noise_multiplier: float, grid: int) -> Plan:
    section = document["privacy"] | {"noise_multiplier": noise_multiplier, "grid": grid}
    return validate_values(document | {"privacy": section}, Plan, "plan")


def _round_up(value: float) -> float:
    return math.ceil(value * 100_000) / 100_000
