"""Rules across the fields of a vertical plan. Each names its field, says why, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from policies.plans.rules import catalogue_problems, gradient_problems
from policies.plans.vertical.price import NOISED_NUMBERS

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from policies.plans.vertical.terms import AlignmentTerms, FeatureTerms, Roles

LEAST_GATE_EPSILON = 1e-4
"""Of one entry of one list, for which noise is drawn (:data:`privacy.alignment.spine.MIN_EPSILON`)."""


def vertical_problems(plan: Plan) -> Iterator[str]:
    """Yield every contradiction as ``field: what is wrong; what to write``; none in a valid plan.

    Args:
        plan: a vertical plan whose single fields are in range.
    """
    if len(set(plan.silos)) != plan.num_silos:
        yield "silos: a silo stands in the roster twice; write each once"
    if plan.roles is None:
        yield "roles: a vertical plan says who ranks items and who brings features; write them"
    else:
        yield from _role_problems(plan, plan.roles)
    if plan.alignment is None:
        yield "alignment: a vertical plan says how common people are found; write it"
    else:
        yield from _alignment_problems(plan, plan.alignment)
    yield from _family_problems(plan)
    yield from catalogue_problems(plan)
    yield from _schedule_problems(plan)
    yield from _promise_problems(plan)
    if plan.model.family == "private-encoder":
        yield from _encoder_problems(plan)
    else:
        yield from _moments_problems(plan)


def _role_problems(plan: Plan, roles: Roles) -> Iterator[str]:
    if roles.label != plan.silos[0]:
        yield f"roles.label: {roles.label} does not lead the roster; write it first in silos"
    if roles.label in roles.features:
        yield (
            f"roles.features: {roles.label} is the label silo; a silo ranks items or brings features, not "
            "both; leave it out of roles.features, or name another label silo"
        )
    elif {roles.label, *roles.features} != set(plan.silos):
        yield "roles.features: not exactly the other silos of the roster; every silo has one role"
    for name, terms in roles.features.items():
        if (terms.unit == "user_node") != (terms.max_degree is not None):
            yield (
                f"roles.features.{name}.max_degree: it bounds in how many rows a node is, so it belongs to "
                "unit: user_node and to no other; write both or neither"
            )


def _alignment_problems(plan: Plan, alignment: AlignmentTerms) -> Iterator[str]:
    if set(alignment.capacities) != set(plan.silos):
        yield "alignment.capacities: not exactly the silos of the roster; write one for each"
    largest, smallest = max(alignment.capacities.values()), min(alignment.capacities.values())
    if largest > plan.max_users_per_silo:
        yield f"alignment.capacities: {largest} is more than max_users_per_silo; raise that, or lower this"
    if alignment.min_intersection > smallest:
        yield (
            f"alignment.min_intersection: a silo with a capacity of {smallest} never has so many in common; "
            "write less"
        )
    taken_along = plan.roles.most_taken_along if plan.roles else 0
    least = NOISED_NUMBERS * LEAST_GATE_EPSILON * (1 + taken_along)
    if alignment.epsilon < least:
        yield (
            f"alignment.epsilon: {alignment.epsilon:g} is too little where a node may take "
            f"{taken_along} others along: its noise drowns every number of people; "
            f"write {least:g} or more, or a smaller max_degree"
        )
    if alignment.epsilon >= plan.privacy.target_epsilon:
        yield (
            f"alignment.epsilon: {alignment.epsilon:g} leaves nothing of target_epsilon "
            f"{plan.privacy.target_epsilon:g} to the moments; write less, such as "
            f"{max(0.001, plan.privacy.target_epsilon / 40):g}"
        )


def _family_problems(plan: Plan) -> Iterator[str]:
    model = plan.model
    if model.family not in ("cross-moments", "private-encoder"):
        yield (
            f"model.family: {model.family} needs one catalogue in all silos; "
            "write cross-moments or private-encoder"
        )
    elif model.label_items > plan.catalogue.items:
        yield f"model.label_items: the catalogue has {plan.catalogue.items} items; write at most so many"


def _schedule_problems(plan: Plan) -> Iterator[str]:
    protection = plan.protection
    if protection.min_silos != plan.num_silos or protection.round_minutes is not None:
        yield (
            f"protection.min_silos: every role is needed; write {plan.num_silos}, and leave round_minutes out"
        )
    if plan.releases.metrics != "none":
        yield "releases.metrics: the label silo measures on its own people; write metrics: none"
    if plan.releases.model != "label":
        yield "releases.model: only the label silo learns the joint model; write label"


def _promise_problems(plan: Plan) -> Iterator[str]:
    privacy, n = plan.privacy, plan.num_silos
    if privacy.noise_placement != "silo" or privacy.colluding_silos != n - 1:
        yield (
            "privacy.noise_placement: each feature silo's noise suffices alone, whoever else colludes; "
            f"write noise_placement: silo and colluding_silos: {n - 1}"
        )
    if privacy.max_silos_per_user != n:
        yield f"privacy.max_silos_per_user: the same people are in all silos; write {n}"


def _moments_problems(plan: Plan) -> Iterator[str]:
    privacy = plan.privacy
    if plan.training.model_dump(exclude_defaults=True):
        yield "training: cross-moments are one shot without a schedule; write training: {rounds: 1}"
    if privacy.contribution_norm != 1.0:
        yield "privacy.contribution_norm: a feature silo scales each row to norm 1.0; write 1.0"
    if privacy.max_grad_norm is not None or privacy.clipping != "flat":
        yield "privacy.max_grad_norm: cross-moments have no gradients; leave it and clipping out"
    if plan.roles and plan.alignment and plan.model.family == "cross-moments":
        yield from _noise_problems(plan, plan.roles, plan.alignment)


def _noise_problems(plan: Plan, roles: Roles, alignment: AlignmentTerms) -> Iterator[str]:
    """Noise that cannot be drawn is found now: in the job it would be, once the alignment is paid for."""
    from policies.plans.vertical.price import basis_event, moments_event
    from privacy.encryption.crossmoments.noise import MomentsNoiseSource
    from privacy.encryption.crossmoments.parameters import MomentsShape, MomentsShapeError
    from privacy.moments import GramNoise
    from privacy.noise import NoiseError

    norm = getattr(plan.model, "label_norm", 1.0)
    is_common_only = alignment.reveal == "both"
    least_slots = alignment.min_intersection if is_common_only else alignment.spine_slots
    for name, terms in roles.features.items():
        if terms.rows_per_unit > least_slots:
            yield _drowned(name, terms, least_slots, is_common_only=is_common_only)
        try:
            shape = MomentsShape(
                num_slots=alignment.spine_slots,
                num_items=getattr(plan.model, "label_items", 1),
                num_features=getattr(plan.model, "dimensions", 1),
                max_row_norm=norm,
                max_entry=min(1.0, norm),
                rows_per_person=terms.rows_per_unit,
            )
            MomentsNoiseSource(moments_event(plan), shape)
            GramNoise(basis_event(plan), rows_per_person=terms.rows_per_unit)
        except (MomentsShapeError, NoiseError) as error:
            yield (
                f"roles.features.{name}: moments that cannot be made: {error.message}; write a smaller "
                "max_degree, a larger target_epsilon or a smaller label_norm"
            )


def _drowned(name: str, terms: FeatureTerms, least_slots: int, *, is_common_only: bool) -> str:
    """Sums over fewer rows than one person weighs are noise; with reveal: both the spine may be so short."""
    larger = "min_intersection" if is_common_only else "capacities"
    spine = "with reveal: both a spine of people in common" if is_common_only else "the spine"
    return (
        f"roles.features.{name}.max_degree: the noise hides {terms.rows_per_unit:,} rows, 1 + 2 max_degree; "
        f"{spine} may have {least_slots:,} slots, and sums over so few drown in it; "
        f"write max_degree {max(0, (least_slots - 1) // 2)} or less, or larger alignment.{larger}"
    )


def _encoder_problems(plan: Plan) -> Iterator[str]:
    training, privacy = plan.training, plan.privacy
    yield from gradient_problems(plan)
    if training.rounds < 2:
        yield "training.rounds: the first step averages rows, the others train; write 2 or more"
    if training.max_burned_rounds or training.local_steps != 1 or training.local_learning_rate is not None:
        yield (
            "training.local_steps: a feature silo trains alone, every round is a step of its own and none "
            "can burn; leave local_steps, local_learning_rate and max_burned_rounds out"
        )
    epsilon, total = getattr(plan.model, "release_epsilon", 0.0), privacy.target_epsilon
    if epsilon >= total:
        yield (
            f"model.release_epsilon: {epsilon:g} leaves nothing of target_epsilon {total:g} to the training; "
            f"write less, such as {total * 0.9:g}"
        )
    for name, terms in plan.roles.features.items() if plan.roles else ():
        if terms.unit == "user_node" and training.sample_rate < 1:
            yield (
                f"roles.features.{name}.unit: one person changes several rows, which a sample hides less "
                "than one; write training.sample_rate: 1.0, or user_row"
            )
