"""Who of a plan's roster would refuse it, and what all of them together would accept. Pure.

The meet of the members' demands: the smallest of their ceilings, the largest of their floors, what stands
in all of their lists. Budgets are nobody's to see: an account can still refuse a plan that meets them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from policies.charters.charter import Charter
from policies.decisions.demand import Demand, ceiling, floor, words
from policies.decisions.history import under
from policies.decisions.reason import Reason
from policies.decisions.reasons import BUDGET_EXCEEDED, reasons_against
from policies.decisions.vertical_meet import alignment_demands, unit_demands
from policies.plans.plan import NoisedMetrics, Plan
from policies.plans.price import PlanImpossibleError, plan_epsilon
from policies.requirements import PublishedRequirements, PurposeTerms
from privacy.accounting import UnsupportedEventError
from privacy.ledger.state import LedgerState


def refusals(
    plan: Plan,
    published: Mapping[str, PublishedRequirements],
    *,
    charter: Charter,
    now: datetime,
    proposer: str,
) -> dict[str, tuple[Reason, ...]]:
    """Return the reasons of each member of the roster that published its demands; none where it would accept.

    Args:
        plan: as it would be proposed.
        published: trusted extracts by silo.
        charter: the trusted charter.
        now: reference time, aware.
        proposer: who would propose it.
    """
    return {
        silo: tuple(_reasons(plan, published[silo], charter, now, proposer))
        for silo in plan.silos
        if silo in published
    }


def meet(plan: Plan, published: Mapping[str, PublishedRequirements]) -> tuple[Demand, ...]:
    """Return what all members of the roster would accept, field by field.

    Args:
        plan: whose roster and purpose are meant.
        published: trusted extracts by silo.
    """
    members = [published[silo] for silo in plan.silos if silo in published]
    if not members:
        return ()
    return (
        *_who_and_what_for(plan, members),
        *_promises(plan, members),
        *_trainings(plan, members),
        *_per_purpose(plan, members),
        *alignment_demands(plan, members),
    )


def _reasons(
    plan: Plan, one: PublishedRequirements, charter: Charter, now: datetime, proposer: str
) -> Iterator[Reason]:
    policy = one.as_policy()
    state = under(LedgerState({}, {}), policy)
    for reason in reasons_against(plan, policy, state, now, charter=charter, proposer=proposer):
        if reason.code != BUDGET_EXCEEDED:
            yield reason


def _who_and_what_for(plan: Plan, members: Sequence[PublishedRequirements]) -> Iterator[Demand]:
    shared = set(members[0].purposes).intersection(*(one.purposes for one in members))
    without = tuple(one.silo for one in members if plan.purpose not in one.purposes)
    yield Demand("purpose", plan.purpose, words(shared), without, not without, bool(shared))
    refused = {
        name: [one.silo for one in members if name not in (one.silo, *one.with_members)]
        for name in plan.silos
    }
    by = tuple(dict.fromkeys(silo for silos in refused.values() for silo in silos))
    welcome = [name for name, silos in refused.items() if not silos]
    yield Demand("silos", ", ".join(plan.silos), words(welcome), by, not by, len(welcome) > 1)
    fewest = min(plan.num_silos, plan.protection.min_silos)
    yield floor("protection.min_silos", fewest, {one.silo: one.min_silos for one in members}, plan.num_silos)


def _promises(plan: Plan, members: Sequence[PublishedRequirements]) -> Iterator[Demand]:
    privacy, num_silos = plan.privacy, plan.num_silos
    yield ceiling(
        "privacy.target_epsilon",
        privacy.target_epsilon,
        {one.silo: one.max_epsilon_per_plan for one in members},
    )
    floors = {one.silo: one.min_colluding_silos for one in members}
    yield floor("privacy.colluding_silos", privacy.colluding_silos, floors, num_silos - 1)
    against = tuple(one.silo for one in members if one.metrics == "none")
    has_metrics = isinstance(plan.releases.metrics, NoisedMetrics)
    found = "noised" if has_metrics else "none"
    yield Demand(
        "releases.metrics", found, "none" if against else "noised", against, not (has_metrics and against)
    )


def _trainings(plan: Plan, members: Sequence[PublishedRequirements]) -> Iterator[Demand]:
    limits = {one.silo: one.max_rounds for one in members if one.max_rounds is not None}
    if limits:
        rounds = plan.training.rounds + plan.training.max_burned_rounds
        yield ceiling("training.rounds", rounds, limits)
    families = {one.silo: one.families for one in members if one.families is not None}
    if families:
        yield _listed("model.family", plan.model.family, families)
    catalogues = {one.silo: one.catalogues for one in members if one.catalogues is not None}
    if catalogues:
        yield _listed("catalogue.sha256", plan.catalogue.sha256, catalogues)


def _per_purpose(plan: Plan, members: Sequence[PublishedRequirements]) -> Iterator[Demand]:
    terms = {one.silo: one.purposes[plan.purpose] for one in members if plan.purpose in one.purposes}
    if not terms:
        return
    yield ceiling(
        "privacy.target_delta",
        plan.privacy.target_delta,
        {silo: one.max_delta for silo, one in terms.items()},
    )
    declared = {silo: min(one.max_silos_per_user, plan.num_silos) for silo, one in terms.items()}
    yield floor("privacy.max_silos_per_user", plan.privacy.max_silos_per_user, declared, plan.num_silos)
    if plan.is_vertical:
        yield from unit_demands(plan, {silo: one.unit for silo, one in terms.items()})
    else:
        units = {one.unit for one in terms.values()}
        others = tuple(silo for silo, one in terms.items() if one.unit != plan.privacy.unit)
        yield Demand("privacy.unit", plan.privacy.unit, words(units), others, not others, len(units) == 1)
    zcdp = tuple(silo for silo, one in terms.items() if one.filter == "zcdp")
    is_sampled = plan.training.sample_rate < 1
    yield Demand(
        "training.sample_rate",
        f"{plan.training.sample_rate:g}",
        "1" if zcdp else "any",
        zcdp if is_sampled else (),
        not (is_sampled and zcdp),
    )
    yield from _filters(plan, terms)


def _filters(plan: Plan, terms: Mapping[str, PurposeTerms]) -> Iterator[Demand]:
    """Whether the plan keeps its promise as every member counts it."""
    costs = {}
    for silo, one in terms.items():
        with suppress(UnsupportedEventError, PlanImpossibleError):
            costs[silo] = plan_epsilon(plan, one.filter_spec, silo)
    if not costs:
        return
    dearest = max(costs.values())
    by = tuple(silo for silo, cost in costs.items() if cost > plan.privacy.target_epsilon)
    at = next(silo for silo, cost in costs.items() if cost == dearest)
    orders = terms[at].orders
    named = terms[at].filter + (f" {', '.join(f'{order:g}' for order in orders)}" if orders else "")
    yield Demand("privacy.filter", plan.privacy.filter, f"calibrated with {named}", by, not by)


def _listed(field: str, found: str, lists: Mapping[str, Sequence[str]]) -> Demand:
    first, *others = lists.values()
    shared = set(first).intersection(*others)
    by = tuple(silo for silo, accepted in lists.items() if found not in accepted)
    return Demand(field, found, words(shared), by, not by, bool(shared))
