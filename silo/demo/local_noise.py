"""The plan of federated averaging beside a federation's own: noise that suffices in every silo alone."""

from __future__ import annotations

from math import ceil
from typing import Final

from policies.drafting import recalibrate
from policies.plan import Plan
from policies.recipes import RECIPES

LOCAL_STEPS: Final = 5
"""Noised steps of a silo between two sums."""


def local_noise_plan(plan: Plan) -> Plan:
    """The same promise kept by local DP-SGD and averaging, with as many noised steps in all.

    Each silo takes ``LOCAL_STEPS`` steps of plain SGD between two sums, each with noise that suffices alone,
    so nobody has to trust anybody's share. A plan that does so already is returned as it is.

    Args:
        plan: of a gradient family.

    Raises:
        PlanImpossibleError: no noise or grid can do it.
    """
    if plan.training.local_steps > 1:
        return plan
    document = plan.model_dump(mode="json", exclude_unset=True)
    document["training"] |= {
        "rounds": ceil(plan.training.rounds / LOCAL_STEPS),
        "local_steps": LOCAL_STEPS,
        "local_learning_rate": RECIPES[plan.model.family].local_learning_rate,
    }
    document["privacy"] |= {"noise_placement": "silo", "colluding_silos": plan.num_silos - 1}
    return recalibrate(Plan.model_validate(document), plan.privacy.target_epsilon)
