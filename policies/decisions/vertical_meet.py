"""What all members together would accept of the vertical fields of a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policies.alignment_policy import Alignment
from policies.decisions.demand import Demand, ceiling, floor, words
from policies.plans.plan import Plan
from policies.plans.vertical.terms import AlignmentTerms
from policies.requirements import PublishedRequirements


def alignment_demands(plan: Plan, members: Sequence[PublishedRequirements]) -> Iterator[Demand]:
    """Yield what the members demand of an alignment, field by field; nothing for a plan that aligns nobody.

    Args:
        plan: whose roster is meant.
        members: trusted extracts, at least one.
    """
    terms = plan.alignment
    if terms is None:
        return
    without = tuple(one.silo for one in members if one.alignment is None)
    if without:
        yield Demand("alignment", "a plan that finds common people", "none", without, False, False)
    limits = {one.silo: one.alignment for one in members if one.alignment is not None}
    if not limits:
        return
    yield from _capacities(terms, limits)
    yield from _roles(plan, limits)
    floors = {silo: one.min_intersection for silo, one in limits.items()}
    yield floor("alignment.min_intersection", terms.min_intersection, floors, min(terms.capacities.values()))
    ceilings = {silo: one.max_epsilon for silo, one in limits.items() if one.max_epsilon is not None}
    if ceilings:
        yield ceiling("alignment.epsilon", terms.epsilon, ceilings)
    yield _reveal(terms, limits)
    yield from _identifiers(terms, limits)


def unit_demands(plan: Plan, units: Mapping[str, str]) -> Iterator[Demand]:
    """Yield what each member protects, where the plan protects something else in it.

    Args:
        plan: vertical: each feature silo has a unit of its own.
        units: what each member asks for.
    """
    for silo, unit in units.items():
        if (found := plan.unit_of(silo)) != unit:
            is_feature = silo != plan.leader
            field = f"roles.features.{silo}.unit" if is_feature else "privacy.unit"
            yield Demand(field, found, unit, (silo,), False, is_feature)


def _capacities(terms: AlignmentTerms, limits: Mapping[str, Alignment]) -> Iterator[Demand]:
    for silo, one in limits.items():
        found = terms.capacities[silo]
        field, wanted = f"alignment.capacities.{silo}", one.capacity
        yield Demand(field, str(found), str(wanted), (silo,), found == wanted)


def _roles(plan: Plan, limits: Mapping[str, Alignment]) -> Iterator[Demand]:
    refused = tuple(
        silo
        for silo, one in limits.items()
        if one.roles is not None and ("label" if silo == plan.leader else "feature") not in one.roles
    )
    if refused:
        wanted = "; ".join(f"{silo} as {words(limits[silo].roles or ())}" for silo in refused)
        yield Demand("roles", f"{plan.leader} as label, the others as features", wanted, refused, False)


def _reveal(terms: AlignmentTerms, limits: Mapping[str, Alignment]) -> Demand:
    hidden = tuple(silo for silo, one in limits.items() if one.reveal == "none")
    accepted = "none" if hidden else "either"
    return Demand("alignment.reveal", terms.reveal, accepted, hidden, terms.reveal == "none" or not hidden)


def _identifiers(terms: AlignmentTerms, limits: Mapping[str, Alignment]) -> Iterator[Demand]:
    kinds = {silo: one.identifiers for silo, one in limits.items() if one.identifiers is not None}
    if kinds:
        by = tuple(silo for silo, kind in kinds.items() if kind != terms.identifiers)
        wanted = set(kinds.values())
        yield Demand("alignment.identifiers", terms.identifiers, words(wanted), by, not by, len(wanted) == 1)
