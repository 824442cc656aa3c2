"""What a private encoder costs a feature silo: its training by DP-SGD, and one release of all numbers.

The training is a silo's own: it sums its own people's gradients, adds all of the noise itself, and only what
the noised steps lead to is ever used. So a step is priced as one of a single silo, whatever the roster, and
all steps are one self-composed event. Sub-sampling amplifies the training alone: the release is of everybody,
row by row, to somebody who knows whose row it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from policies.plans.models import PrivateEncoderModel
from policies.plans.shapes import (
    MAX_SHARE_STD,
    PlanImpossibleError,
    coarsest_grid,
    num_values,
    sensitivity_in_one_silo,
)
from privacy.calibration import CalibrationError, calibrate_noise_multiplier, release_event
from privacy.errors import UsageError
from privacy.events import SAMPLER, GaussianEvent, PoissonSampledGaussianEvent, SelfComposedEvent

if TYPE_CHECKING:
    from policies.plans.plan import Plan


@dataclass(frozen=True)
class EncoderStep:
    """One noised step of a feature silo's own training, in grid units.

    Attributes:
        grid: integer units per ``max_grad_norm``.
        max_values: weights of the encoder at most; the price of rounding is paid for so many.
        sensitivity: most (L2) that one person moves the sum, roundings included.
        noise_std: of what is added to it.
        event: of that.
    """

    grid: int
    max_values: int
    sensitivity: float
    noise_std: float
    event: GaussianEvent | PoissonSampledGaussianEvent
    purpose: str = "training"


def private_encoder(plan: Plan) -> PrivateEncoderModel:
    """The plan's model.

    Raises:
        UsageError: it is another one.
    """
    if not isinstance(plan.model, PrivateEncoderModel):
        raise UsageError("this plan has no encoder", where="model.family", remedy="write private-encoder")
    return plan.model


def encoder_step(plan: Plan, silo: str | None = None) -> EncoderStep:
    """Return what one step of the training sums and costs; its event is the same in all feature silos.

    Where a person's place in others' lists is protected, each of these counts as two more people, in every
    step. Such plans sample nobody: a sample hides several changed rows less than it hides one.

    Args:
        plan: of a private encoder.
        silo: a feature silo; left out: one with a row to each person.

    Raises:
        PlanImpossibleError: the grid is too coarse, or the noise too large to be drawn.
    """
    private_encoder(plan)
    privacy, coarsest = plan.privacy, coarsest_grid(plan)
    noise_std = privacy.noise_multiplier * privacy.grid
    if privacy.grid < coarsest or noise_std > MAX_SHARE_STD:
        raise PlanImpossibleError(
            f"grid {privacy.grid} with noise of {noise_std:.3g} units is too coarse, or too fine to be drawn",
            where="privacy.grid",
            remedy=f"write {coarsest} or more, and below {MAX_SHARE_STD / privacy.noise_multiplier:.3g}",
        )
    sensitivity = sensitivity_in_one_silo(plan)
    event = release_event(noise_std / sensitivity, sample_rate=plan.training.sample_rate)
    terms = plan.roles.features.get(silo) if plan.roles and silo else None
    rows = 1 if terms is None else terms.rows_per_unit
    return EncoderStep(privacy.grid, num_values(plan), rows * sensitivity, rows * noise_std, event)


def encoder_training_event(plan: Plan) -> SelfComposedEvent:
    """Return the event of a feature silo's whole training: every step, and the average before them."""
    return SelfComposedEvent(event=encoder_step(plan).event, count=plan.training.rounds)


@lru_cache(64)
def encoder_release_event(plan: Plan) -> GaussianEvent:
    """Return the event of the one release of everybody's numbers: unsampled, whatever the training samples.

    Raises:
        PlanImpossibleError: no noise keeps ``release_epsilon``.
    """
    model, privacy = private_encoder(plan), plan.privacy
    try:
        multiplier = calibrate_noise_multiplier(
            model.release_epsilon, privacy.target_delta, privacy.filter_spec, releases=1
        )
    except CalibrationError as error:
        raise PlanImpossibleError(
            error.message, where="model.release_epsilon", remedy=error.remedy
        ) from error
    return GaussianEvent(noise_multiplier=multiplier, sampler=SAMPLER)
