"""What a silo's law says about finding the people that it has in common with others.

Limits of every alignment, whatever a policy says (``policies.explain`` tells administrators): the coordinator
learns how many people are in common; the coordinator and one silo together learn which of that silo's people
are known elsewhere; a malicious silo can put anybody's id into its own list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from policies.plans.models import VERTICAL_FAMILIES
from policies.sections import Real, Section, Whole

if TYPE_CHECKING:
    from policies.silo_policy import SiloPolicy

Role = Literal["label", "feature"]


class Alignment(Section):
    """Limits on finding common people; a policy without it aligns nobody.

    Attributes:
        capacity: declared size that hides how many people there are; a plan's must be the same.
        min_intersection: fewest common people; a plan must ask for at least so many.
        reveal: who learns membership: ``none``, or ``both``, which allows either.
        max_runs_per_30_days: how often, with whomever: each run is a look at who is where.
        max_epsilon: ceiling of the noised numbers of its people and of those in common; left out = what the
            plan may cost.
        identifiers: how this silo's ids are written alike; left out = as a plan says.
        roles: what this silo may be in a plan; left out = either.
        approval: ``ask``: before slots are handed out, somebody here approves each run; ``automatic``: the
            policy's decision on the plan is enough.
    """

    capacity: Annotated[Whole, Field(ge=1, le=10_000_000)]
    min_intersection: Annotated[Whole, Field(ge=1, le=10_000_000)]
    reveal: Literal["none", "both"] = "none"
    max_runs_per_30_days: Annotated[Whole, Field(ge=1, le=1_000)]
    max_epsilon: Annotated[Real, Field(ge=0.001, le=10)] | None = None
    identifiers: Literal["exact", "email", "phone"] | None = None
    roles: Annotated[tuple[Role, ...], Field(max_length=2)] | None = None
    approval: Literal["automatic", "ask"] = "automatic"


def alignment_problems(policy: SiloPolicy) -> Iterator[str]:
    """Yield what contradicts itself in a policy's limits on alignments."""
    limits = policy.alignment
    if limits is None:
        return
    if limits.min_intersection > limits.capacity:
        yield (
            f"alignment.min_intersection: a list of {limits.capacity} people never has so many in common; "
            "write less, or a larger capacity"
        )
    if len(set(limits.roles or ())) != len(limits.roles or ()):
        yield "alignment.roles: a role stands here twice; write each once"


def alignment_warnings(policy: SiloPolicy) -> Iterator[str]:
    """Yield what an administrator should look at twice in a policy's limits on alignments."""
    limits, accepts = policy.alignment, policy.accepts
    if limits is None:
        return
    if limits.reveal == "both":
        yield (
            "alignment.reveal: both tells every silo of a plan which of its people the others know; "
            "write none unless people agreed to that"
        )
    if limits.roles == ():
        yield "alignment.roles: empty, so every vertical plan is denied; name a role, or leave the field out"
    if accepts.families is not None and not VERTICAL_FAMILIES & set(accepts.families):
        yield (
            f"accepts.families: no vertical family, so nothing is ever aligned; add one of "
            f"{', '.join(sorted(VERTICAL_FAMILIES))}, or leave alignment out"
        )
