"""Who of a plan's roster would refuse it, and what all of them together would accept. Pure.

The meet of the members' demands: the smallest of their ceilings, the largest of their floors, what stands
in all of their lists. Budgets are nobody's to see: an account can still refuse a plan that meets them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from policies.charter import Charter
from policies.history import under
from policies.plan import NoisedMetrics, Plan
from policies.price import PlanImpossibleError, plan_epsilon
from policies.reasons import BUDGET_EXCEEDED, Reason, reasons_against
from policies.requirements import PublishedRequirements, PurposeTerms
from privacy.accounting import UnsupportedEventError
from privacy.ledger.state import LedgerState


@dataclass(frozen=True)
class Demand:
    """One field of a plan under the demands of all members that published theirs.

    Attributes:
        field: of the plan.
        found: what the plan says.
        accepted: what all of them would accept, in words.
        by: the silos that ask for the most.
        met: whether the plan is within it.
        possible: whether any plan of this roster could be.
    """

    field: str
    found: str
    accepted: str
    by: tuple[str, ...]
    met: bool
    possible: bool = True


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
    yield Demand("purpose", plan.purpose, _words(shared), without, not without, bool(shared))
    refused = {
        name: [one.silo for one in members if name not in (one.silo, *one.with_members)]
        for name in plan.silos
    }
    by = tuple(dict.fromkeys(silo for silos in refused.values() for silo in silos))
    welcome = [name for name, silos in refused.items() if not silos]
    yield Demand("silos", ", ".join(plan.silos), _words(welcome), by, not by, len(welcome) > 1)
    fewest = min(plan.num_silos, plan.protection.min_silos)
    yield _floor("protection.min_silos", fewest, {one.silo: one.min_silos for one in members}, plan.num_silos)


def _promises(plan: Plan, members: Sequence[PublishedRequirements]) -> Iterator[Demand]:
    privacy, num_silos = plan.privacy, plan.num_silos
    yield _ceiling(
        "privacy.target_epsilon",
        privacy.target_epsilon,
        {one.silo: one.max_epsilon_per_plan for one in members},
    )
    floors = {one.silo: one.min_colluding_silos for one in members}
    yield _floor("privacy.colluding_silos", privacy.colluding_silos, floors, num_silos - 1)
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
        yield _ceiling("training.rounds", rounds, limits)
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
    yield _ceiling(
        "privacy.target_delta",
        plan.privacy.target_delta,
        {silo: one.max_delta for silo, one in terms.items()},
    )
    declared = {silo: min(one.max_silos_per_user, plan.num_silos) for silo, one in terms.items()}
    yield _floor("privacy.max_silos_per_user", plan.privacy.max_silos_per_user, declared, plan.num_silos)
    units = {one.unit for one in terms.values()}
    others = tuple(silo for silo, one in terms.items() if one.unit != plan.privacy.unit)
    yield Demand("privacy.unit", plan.privacy.unit, _words(units), others, not others, len(units) == 1)
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
            costs[silo] = plan_epsilon(plan, one.filter_spec)
    if not costs:
        return
    dearest = max(costs.values())
    by = tuple(silo for silo, cost in costs.items() if cost > plan.privacy.target_epsilon)
    at = next(silo for silo, cost in costs.items() if cost == dearest)
    orders = terms[at].orders
    named = terms[at].filter + (f" {', '.join(f'{order:g}' for order in orders)}" if orders else "")
    yield Demand("privacy.filter", plan.privacy.filter, f"calibrated with {named}", by, not by)


def _ceiling(field: str, found: float, limits: Mapping[str, float]) -> Demand:
    lowest = min(limits.values())
    by = tuple(silo for silo, limit in limits.items() if limit == lowest)
    return Demand(field, f"{found:g}", f"at most {lowest:g}", by, found <= lowest)


def _floor(field: str, found: int, limits: Mapping[str, int], most: int) -> Demand:
    highest = max(limits.values())
    by = tuple(silo for silo, limit in limits.items() if limit == highest)
    return Demand(field, str(found), f"at least {highest}", by, found >= highest, highest <= most)


def _listed(field: str, found: str, lists: Mapping[str, Sequence[str]]) -> Demand:
    first, *others = lists.values()
    shared = set(first).intersection(*others)
    by = tuple(silo for silo, accepted in lists.items() if found not in accepted)
    return Demand(field, found, _words(shared), by, not by, bool(shared))


def _words(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
