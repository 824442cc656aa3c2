"""What a plan would cost this silo and whether its policy would accept it, before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from policies.decisions.decision import PolicyDeniedError, authorize
from policies.decisions.meet import meet, refusals
from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.plans.price import forecast_bytes, training_shape
from policies.plans.prospects import milestones, need_of, noise_for, rounds_affordable, rounds_for
from policies.plans.summary import summarise, sums_in_words
from policies.requirements import read_requirements
from policies.silo_policy import SiloPolicy
from privacy.accounting import UnsupportedEventError
from privacy.errors import ArchipelError, BudgetExceededError
from privacy.events import EventCount
from privacy.ledger.state import AccountStatus
from silo.forecasts.vertical import forecast_vertical
from silo.law import Law
from silo.site import Site


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What else is asked of a forecast.

    Attributes:
        for_epsilon: which noise would the plan need to cost this?
        rounds_for_epsilon: how many training rounds would cost this, with the noise it has?
        is_timed: how long does a trained or vertical plan take this machine? Takes seconds to find out.
        requirements: what other members published, as files or directories of them.
    """

    for_epsilon: float | None = None
    rounds_for_epsilon: float | None = None
    is_timed: bool = True
    requirements: tuple[Path, ...] = ()


def forecast_plan(directory: Path, path: Path, questions: Questions = Questions()) -> dict[str, Any]:
    """Return epsilon, bytes, time and this silo's own verdict on a plan; nothing is reserved, nothing leaves.

    Args:
        directory: the silo's.
        path: of the plan.
        questions: what else to find out.

    Raises:
        PolicyFileError: everything wrong with the plan.
        PlanImpossibleError: no sum can carry it.
        OneSumError: rounds were asked of a plan that has none to choose.
    """
    plan = load_yaml(path, Plan)
    found = (summarise(plan) if plan.is_vertical else _of_plan(plan)) | _answers(plan, questions)
    with Site(directory) as site:
        law = site.law()
        policy = law.policy
        state = site.ledger_state(policy)
        found["verdict"] = _verdict(site, plan, law, state)
        found["members"] = _members(site, plan, questions.requirements)
        if plan.is_vertical:
            return found | forecast_vertical(plan, is_timed=questions.is_timed)
        found["rounds_affordable"] = _rounds_left(plan, _account(plan, policy, state.accounts))
    verified = 1.0 if found["rounds"] == 1 else policy.accepts.verify_sums
    found["traffic"] = asdict(forecast_bytes(plan, verify_sums=verified))
    is_timed = questions.is_timed and not plan.is_statistics
    found["time"] = _time(directory, plan) if is_timed else None
    found["warnings"] = _warnings(found)
    return found


def _of_plan(plan: Plan) -> dict[str, Any]:
    need = need_of(plan)
    return summarise(plan) | {
        "milestones": [asdict(milestone) for milestone in milestones(plan)],
        "sums": sums_in_words(plan),
        "training_rounds": plan.training.rounds,
        "values_per_round": training_shape(plan).values,
        "people_needed": need.people,
        "people_planned": need.planned,
    }


def _answers(plan: Plan, questions: Questions) -> dict[str, Any]:
    answers: dict[str, Any] = {"for_epsilon": None, "rounds_for_epsilon": None}
    if questions.for_epsilon is not None:
        epsilon = questions.for_epsilon
        answers["for_epsilon"] = {"epsilon": epsilon, "noise_multiplier": noise_for(plan, epsilon)}
    if questions.rounds_for_epsilon is not None:
        epsilon = questions.rounds_for_epsilon
        answers["rounds_for_epsilon"] = {"epsilon": epsilon, "rounds": rounds_for(plan, epsilon)}
    return answers


def _verdict(site: Site, plan: Plan, law: Law, state: Any) -> dict[str, Any]:
    try:
        authorize(
            plan, law.policy, state, site.now(), charter=site.charter, hold=law.hold,
            rosters=site.rosters(law.policy, state), recent_alignments=site.recent_alignments(plan),
        )  # fmt: skip
    except PolicyDeniedError as denied:
        reasons = [asdict(reason) for reason in denied.reasons]
        return {"silo": site.name, "accepted": False, "reasons": reasons}
    return {"silo": site.name, "accepted": True, "reasons": []}


def _members(site: Site, plan: Plan, paths: Sequence[Path]) -> dict[str, Any] | None:
    """Who of the roster would refuse by what it published, and what all of them would accept."""
    if not paths:
        return None
    published = read_requirements(paths, charter=site.charter, now=site.now())
    reasons = refusals(plan, published, charter=site.charter, now=site.now(), proposer=site.name)
    return {
        "published": {
            silo: {"policy_version": one.policy_version, "on": one.published.isoformat()}
            for silo, one in published.items()
            if silo in reasons
        },
        "silent": [silo for silo in plan.silos if silo not in published],
        "refusals": {silo: [asdict(item) for item in found] for silo, found in reasons.items() if found},
        "meet": [asdict(demand) for demand in meet(plan, published)],
    }


def _account(plan: Plan, policy: SiloPolicy, accounts: Mapping[str, AccountStatus]) -> AccountStatus | None:
    named = policy.dataset_for(plan.purpose)
    return None if named is None else accounts.get(named[1].population)


def _rounds_left(plan: Plan, account: AccountStatus | None) -> int | None:
    """Return how many training rounds the rest of this silo's account pays for, beside all else.

    None where there is nothing to count: one sum, no account, or one that cannot price such a plan.
    """
    if account is None or plan.is_statistics:
        return None

    def fits(events: Sequence[EventCount]) -> bool:
        try:
            account.admit(events)
        except BudgetExceededError:
            return False
        return True

    try:
        return rounds_affordable(plan, fits)
    except UnsupportedEventError:
        return None


def _time(directory: Path, plan: Plan) -> dict[str, Any]:
    """Return what a probe found, or why there is none: a forecast needs no catalogue, a probe does."""
    from silo.forecasts.probe import items_to_probe, probe

    try:
        taken = probe(plan, items_to_probe(directory, plan))
    except (ArchipelError, OSError) as error:
        return {"minutes": None, "why": str(error)}
    return asdict(taken) | {"minutes": taken.minutes, "round_seconds": taken.round_seconds, "why": None}


def _warnings(found: dict[str, Any]) -> list[str]:
    warnings = []
    needed, planned = found["people_needed"], found["people_planned"]
    if needed > planned:
        warnings.append(
            f"this plan is pointless: its noise drowns fewer than about {needed:,} people, and it counts on "
            f"{planned:,} at most; raise epsilon, find more people, or choose a smaller model or popularity"
        )
    return warnings
