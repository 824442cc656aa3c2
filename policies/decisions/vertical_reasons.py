"""What can stand against finding the people that a silo has in common with others."""

from __future__ import annotations

from collections.abc import Iterator

from policies.alignment_policy import Alignment
from policies.decisions.reason import Reason
from policies.plans.plan import Plan
from policies.plans.vertical.terms import AlignmentTerms
from policies.silo_policy import SiloPolicy

ALIGNMENT_DAYS = 30
"""The time within which ``alignment.max_runs_per_30_days`` counts."""


def alignment_reasons(plan: Plan, policy: SiloPolicy, recent_alignments: int) -> Iterator[Reason]:
    """Yield every reason to deny that people are aligned; none for a plan that aligns nobody.

    Args:
        plan: as proposed.
        policy: the trusted policy in force.
        recent_alignments: vertical jobs reserved for in the last ``ALIGNMENT_DAYS`` days.
    """
    terms, limits = plan.alignment, policy.alignment
    if terms is None:
        return
    if limits is None:
        yield Reason(
            "alignment_not_accepted",
            "alignment",
            "a plan that finds common people",
            "plans that do not",
            "propose a horizontal plan, or write alignment into the policy",
        )
        return
    yield from _role_reasons(plan, policy.silo, limits)
    yield from _capacity_reasons(terms, policy.silo, limits)
    yield from _term_reasons(terms, limits)
    if recent_alignments >= limits.max_runs_per_30_days:
        yield Reason(
            "too_many_alignments",
            "alignment",
            f"{recent_alignments} in the last {ALIGNMENT_DAYS} days",
            f"at most {limits.max_runs_per_30_days}",
            "wait, or raise alignment.max_runs_per_30_days",
        )


def _role_reasons(plan: Plan, silo: str, limits: Alignment) -> Iterator[Reason]:
    role = "label" if silo == plan.leader else "feature"
    if limits.roles is not None and role not in limits.roles:
        yield Reason(
            "role_not_accepted",
            "roles",
            f"{silo} as {role} silo",
            ", ".join(limits.roles) or "none yet",
            "propose another role for it, or add this one to alignment.roles",
        )


def _term_reasons(terms: AlignmentTerms, limits: Alignment) -> Iterator[Reason]:
    if terms.min_intersection < limits.min_intersection:
        yield Reason(
            "min_intersection_too_small",
            "alignment.min_intersection",
            str(terms.min_intersection),
            f"at least {limits.min_intersection}",
            "propose a larger min_intersection",
        )
    if limits.max_epsilon is not None and terms.epsilon > limits.max_epsilon:
        yield Reason(
            "alignment_epsilon_too_high",
            "alignment.epsilon",
            f"{terms.epsilon:g}",
            f"at most {limits.max_epsilon:g}",
            "propose a smaller alignment.epsilon",
        )
    if terms.reveal == "both" and limits.reveal == "none":
        yield Reason(
            "reveal_not_accepted",
            "alignment.reveal",
            "both: every silo learns whom it has in common with the others",
            "none",
            "propose reveal: none",
        )
    if limits.identifiers is not None and terms.identifiers != limits.identifiers:
        yield Reason(
            "identifiers_mismatch",
            "alignment.identifiers",
            terms.identifiers,
            limits.identifiers,
            "propose the kind of ids that this silo has",
        )


def _capacity_reasons(terms: AlignmentTerms, silo: str, limits: Alignment) -> Iterator[Reason]:
    """A plan's capacity is the policy's: one that followed the number of people would tell it."""
    capacity = terms.capacities.get(silo)
    if capacity is not None and capacity != limits.capacity:
        yield Reason(
            "capacity_mismatch",
            f"alignment.capacities.{silo}",
            str(capacity),
            str(limits.capacity),
            "propose the capacity that the policy declares",
        )
