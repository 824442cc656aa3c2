"""The plan of federated averaging beside a federation's own: noise that suffices in every silo alone."""

from __future__ import annotations

from math import ceil
from typing import Final

from policies.plans.drafting import recalibrate
from policies.plans.plan import Plan

# Chosen on the marketplace, at epsilon 4, for the autoencoder's defaults.
LOCAL_STEPS: Final = 5
LOCAL_LEARNING_RATE: Final = 3.0
STEP_GROWTH: Final = 10 / 3
"""How much longer the common step is, of which there are so many fewer."""


def local_noise_plan(plan: Plan) -> Plan:
    """The same promise kept by local DP-SGD and averaging, with as many noised steps in all.

    Each silo takes ``LOCAL_STEPS`` steps of plain SGD between two sums, each with noise that suffices alone,
    so nobody has to trust anybody's share. A plan that does so already is returned as it is.

    Args:
        plan: of a gradient family.

    Raises:
        PlanImpossibleError: no noise or grid can do it.
    """
    training = plan.training
    if training.local_steps > 1 or training.learning_rate is None:
        return plan
    document = plan.model_dump(mode="json", exclude_unset=True)
    document["training"] |= {
        "rounds": ceil(training.rounds / LOCAL_STEPS),
        "learning_rate": STEP_GROWTH * training.learning_rate,
        "local_steps": LOCAL_STEPS,
        "local_learning_rate": LOCAL_LEARNING_RATE,
    }
    document["privacy"] |= {"noise_placement": "silo", "colluding_silos": plan.num_silos - 1}
    return recalibrate(Plan.model_validate(document), plan.privacy.target_epsilon)
