"""What a vertical plan costs: each silo pays for its own role, because each adds all of its noise itself.

Every silo pays for two noised numbers, half each: of its own people, which decides how many of them go into
its list, and of the people in common. A feature silo pays for two Gaussian releases
more: the Gram of its rows, from which its basis comes, and the moments that the label silo opens. Their zCDP
add up to ``1 / (2 noise_multiplier²)``, of which the Gram takes ``basis_share``. What the label silo sends
about its own rows is encrypted under its own key and costs nothing. With a private encoder the two are its
training and the release of everybody's numbers (:mod:`policies.plans.vertical.encoder_price`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.plans.models import CrossMomentsModel, PrivateEncoderModel
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_training_event
from privacy.errors import UsageError
from privacy.events import EventCount, GaussianEvent, PureEvent
from privacy.moments import FeatureEvents, feature_events

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from policies.plans.vertical.terms import AlignmentTerms


NOISED_NUMBERS = 2
"""That ``alignment.epsilon`` pays for, in equal parts."""


def vertical_events(plan: Plan, silo: str | None) -> tuple[EventCount, ...]:
    """Return everything that a vertical plan may release of one silo's people.

    Args:
        plan: a vertical plan.
        silo: of its roster; left out, or any other: what a feature silo pays.
    """
    alignment = EventCount(alignment_event(plan), 1)
    if silo is not None and plan.roles is not None and silo == plan.roles.label:
        return (alignment,)
    if isinstance(plan.model, PrivateEncoderModel):
        training, release = encoder_training_event(plan), encoder_release_event(plan)
        return alignment, EventCount(training, 1), EventCount(release, 1)
    basis, moments = basis_event(plan), moments_event(plan)
    if basis == moments:
        return alignment, EventCount(basis, 2)
    return alignment, EventCount(basis, 1), EventCount(moments, 1)


def alignment_event(plan: Plan) -> PureEvent:
    """Return the event of both noised numbers: of a silo's people, and of those in common."""
    if plan.alignment is None:
        raise UsageError("this plan aligns nobody", where="alignment", remedy="propose a vertical plan")
    return PureEvent(epsilon=plan.alignment.epsilon)


def entry_epsilon(plan: Plan) -> float:
    """Return what one entry of one list is worth in each of the two noised numbers.

    Where the unit is a node of a graph, a person who goes may take along everybody who had named nobody else:
    their rows are empty then, and whoever has none is in no list. So ``1 + max_degree`` people more or fewer
    are in a list, and in common, and the noise that is worth half of ``alignment.epsilon`` is so many times
    as large; several such silos add up (:attr:`~policies.plans.vertical.terms.Roles.most_taken_along`).

    Raises:
        UsageError: the plan aligns nobody.
    """
    if plan.alignment is None or plan.roles is None:
        raise UsageError("this plan aligns nobody", where="alignment", remedy="propose a vertical plan")
    return plan.alignment.epsilon / NOISED_NUMBERS / (1 + plan.roles.most_taken_along)


def gate_terms(plan: Plan) -> AlignmentTerms:
    """Return the alignment as the coordinator noises it: its epsilon is :func:`entry_epsilon`.

    Raises:
        UsageError: the plan aligns nobody.
    """
    if plan.alignment is None:
        raise UsageError("this plan aligns nobody", where="alignment", remedy="propose a vertical plan")
    return plan.alignment.model_copy(update={"epsilon": entry_epsilon(plan)})


def basis_event(plan: Plan) -> GaussianEvent:
    """Return the event of a feature silo's noised Gram."""
    return _events(plan).basis


def moments_event(plan: Plan) -> GaussianEvent:
    """Return the event of a feature silo's noised moments with the label silo's rows."""
    return _events(plan).moments


def _events(plan: Plan) -> FeatureEvents:
    return feature_events(plan.privacy.noise_multiplier, basis_share=_model(plan).basis_share)


def _model(plan: Plan) -> CrossMomentsModel:
    if not isinstance(plan.model, CrossMomentsModel):
        raise UsageError(
            "this plan has no moments", where="model.family", remedy="write family: cross-moments"
        )
    return plan.model
