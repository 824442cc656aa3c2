"""Which people in common were looked for, with whom, and what of it no epsilon bounds; not verified here."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from policies.plans.plan import Plan
from silo.audit.evidence import Evidence
from silo.audit.jobs import plan_of
from silo.audit.spending import Overview


class AlignmentLine(BaseModel):
    """One alignment whose number of people in common was paid for.

    Attributes:
        job: whose.
        reserved_at: when the plan was accepted, UTC.
        label: the silo whose items are ranked.
        features: the others.
        capacities: declared size of each list.
        slots: of the spine; None where the plan reveals who is in common, and its length is no record's.
        reveal: ``none`` or ``both``.
        min_intersection: people in common with which the job went on.
        epsilon: of the number that was compared with it.
        releases: charged for the job in all; 1: it ended before anything but that number was released.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    reserved_at: str
    label: str
    features: tuple[str, ...]
    capacities: dict[str, int]
    slots: int | None
    reveal: str
    min_intersection: int
    epsilon: float
    releases: int


def alignment_lines(evidence: Evidence, spending: Overview | None) -> Iterator[AlignmentLine]:
    """Yield the alignments of a record, oldest first.

    Args:
        evidence: the record.
        spending: of it; None where its entries cannot be read.
    """
    for job in spending.jobs if spending else ():
        plan = plan_of(evidence, job.job, job.plan_sha256)
        if plan is None or plan.alignment is None or not job.releases:
            continue
        terms = plan.alignment
        yield AlignmentLine(
            job=job.job,
            reserved_at=job.reserved_at,
            label=plan.leader,
            features=plan.silos[1:],
            capacities=dict(terms.capacities),
            slots=terms.spine_slots if terms.reveal == "none" else None,
            reveal=terms.reveal,
            min_intersection=terms.min_intersection,
            epsilon=terms.epsilon,
            releases=job.releases,
        )


def alignment_assumptions(plans: tuple[Plan, ...]) -> Iterator[str]:
    """Yield what the guarantee of vertical plans rests on, and what it does not cover."""
    if any(plan.is_vertical for plan in plans):
        yield (
            "Finding people in common. The coordinator learned how many people the lists of vertical plans "
            "share, without noise, and no id; together with one silo it can tell which of that silo's people "
            "are elsewhere. The stated epsilon does not cover that; it covers the noised answer that the "
            "silos got."
        )
        yield (
            "Vertical plans. The label silo was taken to follow the protocol: its rows were as short as it "
            "said, its key was well made, and what it opened stayed there."
        )
    if any(plan.alignment is not None and plan.alignment.reveal == "both" for plan in plans):
        yield (
            "Revealed membership. Some plans told every silo which of its people all others have, too. The "
            "stated epsilon does not cover that."
        )
