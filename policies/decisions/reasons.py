"""Everything that can stand against a plan in one silo.

A reason's code and field may leave the silo, save what ``PolicyDeniedError.outbound`` keeps back. What was
found and what would be allowed stay with its own people: they tell of its policy and its account. What a
plan says of its own cost is never believed: its events are composed again under the account's filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.decisions.reason import Reason
from policies.decisions.vertical_reasons import alignment_reasons
from policies.freezing import Hold
from policies.plans.plan import NoisedMetrics, Plan
from policies.plans.price import PlanImpossibleError, plan_epsilon, reserved_events
from policies.silo_policy import AccountBudget, Dataset, SiloPolicy
from policies.trust import days_left
from privacy.accounting import Spending, UnsupportedEventError, admit
from privacy.budget import Budget
from privacy.errors import BudgetExceededError
from privacy.events import EventCount
from privacy.ledger.state import AccountStatus, LedgerState

BUDGET_EXCEEDED = "budget_exceeded"

Rosters = Mapping[str, tuple[str, ...]]
"""The silos of jobs, by job."""


def reasons_against(
    plan: Plan,
    policy: SiloPolicy,
    ledger_state: LedgerState,
    now: datetime,
    *,
    charter: Charter,
    proposer: str | None = None,
    hold: Hold | None = None,
    rosters: Rosters | None = None,
    recent_alignments: int = 0,
) -> Iterator[Reason]:
    """Yield every reason to deny a plan; none if it is allowed.

    Args:
        plan: as proposed.
        policy: the trusted policy in force.
        ledger_state: this silo's accounts.
        now: one frozen reference time, aware.
        charter: the trusted charter.
        proposer: who asks, where known.
        hold: what stops all new jobs, if anything does.
        rosters: the silos of each job of the ledger; one that is missing counts for every partner's cap.
        recent_alignments: vertical jobs that this silo has reserved for in the last 30 days.
    """
    if hold is not None:
        yield Reason("policy_frozen", "policy", hold.why, "no new job at present", hold.remedy)
    yield from _time_reasons(policy, charter, now)
    yield from _proposer_reasons(policy, charter, proposer)
    yield from _roster_reasons(plan, policy, charter)
    yield from _promise_reasons(plan, policy)
    yield from _training_reasons(plan, policy)
    yield from _protection_reasons(plan, policy)
    yield from alignment_reasons(plan, policy, recent_alignments)
    yield from _dataset_reasons(plan, policy, ledger_state, now, rosters or {})


def _time_reasons(policy: SiloPolicy, charter: Charter, now: datetime) -> Iterator[Reason]:
    for code, what, expires in (
        ("policy_expired", "policy", policy.expires),
        ("charter_expired", "charter", charter.expires),
    ):
        if days_left(expires, now) < 0:
            yield Reason(
                code,
                f"{what}.expires",
                expires.isoformat(),
                f"{now.date().isoformat()} or later",
                f"sign a {what} with a later date",
            )


def _proposer_reasons(policy: SiloPolicy, charter: Charter, proposer: str | None) -> Iterator[Reason]:
    """Every proposal asks the account a question, so only those may ask with whom this silo would work."""
    accepted = {policy.silo, *policy.accepts.with_members} & {member.silo for member in charter.members}
    if proposer is not None and proposer not in accepted:
        yield Reason(
            "proposer_not_accepted",
            "accepts.with_members",
            proposer,
            ", ".join(sorted(accepted)),
            "let an accepted member propose the plan, or add the proposer to accepts.with_members",
        )


def _roster_reasons(plan: Plan, policy: SiloPolicy, charter: Charter) -> Iterator[Reason]:
    if policy.silo not in plan.silos:
        yield Reason(
            "not_in_roster",
            "silos",
            ", ".join(plan.silos),
            f"a roster with {policy.silo}",
            "propose a plan that names this silo",
        )
    strangers = [silo for silo in plan.silos if charter.member(silo) is None]
    if strangers:
        yield Reason(
            "unknown_member",
            "silos",
            ", ".join(strangers),
            "members of the charter",
            "leave them out, or amend the charter",
        )
    accepted = {policy.silo, *policy.accepts.with_members}
    refused = [silo for silo in plan.silos if silo not in accepted]
    if refused:
        yield Reason(
            "member_not_accepted",
            "silos",
            ", ".join(refused),
            ", ".join(sorted(accepted)),
            "leave them out, or add them to accepts.with_members",
        )
    fewest = min(plan.num_silos, plan.protection.min_silos)
    if fewest < policy.accepts.min_silos:
        yield Reason(
            "too_few_silos",
            "protection.min_silos",
            str(fewest),
            f"at least {policy.accepts.min_silos}",
            "propose a larger roster, all of it needed for a sum",
        )


def _promise_reasons(plan: Plan, policy: SiloPolicy) -> Iterator[Reason]:
    privacy, accepts = plan.privacy, policy.accepts
    if privacy.target_epsilon > accepts.max_epsilon_per_plan:
        yield Reason(
            "epsilon_too_high",
            "privacy.target_epsilon",
            f"{privacy.target_epsilon:g}",
            f"at most {accepts.max_epsilon_per_plan:g}",
            "propose a smaller target_epsilon",
        )
    if privacy.colluding_silos < accepts.min_colluding_silos:
        yield Reason(
            "collusion_not_covered",
            "privacy.colluding_silos",
            str(privacy.colluding_silos),
            f"at least {accepts.min_colluding_silos}",
            "propose a larger colluding_silos",
        )
    if isinstance(plan.releases.metrics, NoisedMetrics) and accepts.metrics == "none":
        yield Reason(
            "metrics_not_accepted", "releases.metrics", "noised", "none", "propose a plan without metrics"
        )
    catalogue = plan.catalogue.sha256
    if accepts.catalogues is not None and catalogue not in accepts.catalogues:
        yield Reason(
            "catalogue_not_accepted",
            "catalogue.sha256",
            catalogue,
            ", ".join(accepts.catalogues) or "none yet",
            "use an accepted catalogue, or add its digest to accepts.catalogues",
        )


def _training_reasons(plan: Plan, policy: SiloPolicy) -> Iterator[Reason]:
    accepts, training = policy.accepts, plan.training
    if accepts.families is not None and plan.model.family not in accepts.families:
        yield Reason(
            "family_not_accepted",
            "model.family",
            plan.model.family,
            ", ".join(accepts.families) or "none yet",
            "propose an accepted family, or add this one to accepts.families",
        )
    rounds = training.rounds + training.max_burned_rounds
    if accepts.max_rounds is not None and rounds > accepts.max_rounds:
        yield Reason(
            "too_many_rounds",
            "training.rounds",
            f"{training.rounds} and up to {training.max_burned_rounds} burned",
            f"at most {accepts.max_rounds} together",
            "propose fewer rounds, or raise accepts.max_rounds",
        )


def _protection_reasons(plan: Plan, policy: SiloPolicy) -> Iterator[Reason]:
    require = policy.accepts.require
    if require.encryption and plan.protection.encryption == "none":
        yield Reason("encryption_required", "protection.encryption", "none", "bfv", "write encryption: bfv")
    if require.masks and plan.protection.masks == "none":
        yield Reason("masks_required", "protection.masks", "none", "pairwise", "write masks: pairwise")


def _dataset_reasons(
    plan: Plan, policy: SiloPolicy, ledger_state: LedgerState, now: datetime, rosters: Rosters
) -> Iterator[Reason]:
    """What stands against the use of rows, and whether their people's account can pay."""
    named = policy.dataset_for(plan.purpose)
    if named is None:
        yield Reason(
            "purpose_not_accepted",
            "purpose",
            plan.purpose,
            ", ".join(sorted(policy.accepts.purposes)) or "none yet",
            "propose an accepted purpose, or map this one to a dataset in accepts.purposes",
        )
        return
    name, dataset = named
    if plan.catalogue.kind == "per_silo" and dataset.item_list is None:
        yield Reason(
            "item_list_missing",
            "catalogue.kind",
            f"{name} has no item_list",
            "a public list of this silo's own items",
            "name one in the dataset (archipel data catalogue), or propose a plan with a shared catalogue",
        )
    if plan.reads_order and dataset.columns.timestamp is None:
        yield Reason(
            "times_missing",
            "model.architecture",
            f"{name} has no column of times",
            "columns.timestamp, since the model reads histories in their order",
            "name the column in the dataset, or propose a model that reads no order",
        )
    budget = policy.budgets[dataset.population]
    yield from _unit_reasons(plan, policy, dataset)
    if plan.privacy.target_delta > budget.delta:
        yield Reason(
            "delta_too_high",
            "privacy.target_delta",
            f"{plan.privacy.target_delta:g}",
            f"at most {budget.delta:g}",
            "propose a smaller target_delta",
        )
    yield from _cost_reasons(plan, budget, policy.silo)
    yield from _home_reasons(ledger_state.home_of(name), dataset.population)
    if budget.expires is not None and days_left(budget.expires, now) < 0:
        yield Reason(
            "budget_expired",
            "purpose",
            f"the account {dataset.population} ended on {budget.expires.isoformat()}",
            "an account that has not ended",
            f"sign a policy with a later budgets.{dataset.population}.expires",
        )
    yield from _account_reasons(plan, policy, dataset.population, ledger_state)
    yield from _partner_reasons(plan, policy, dataset.population, ledger_state, rosters)


def _home_reasons(home: str | None, population: str) -> Iterator[Reason]:
    if home is not None and home != population:
        yield Reason(
            "dataset_moved",
            "budgets",
            f"population {population}",
            f"population {home}, to which the dataset was charged before",
            "give the dataset its former population; another one would forget what was spent",
        )


def _unit_reasons(plan: Plan, policy: SiloPolicy, dataset: Dataset) -> Iterator[Reason]:
    unit, found = dataset.unit or policy.accepts.require.unit, plan.unit_of(policy.silo)
    if found != unit:
        field = f"roles.features.{policy.silo}.unit" if plan.is_vertical else "privacy.unit"
        yield Reason("unit_required", field, found, unit, "propose a plan with that unit")
    assumed, declared = plan.privacy.max_silos_per_user, min(dataset.max_silos_per_user, plan.num_silos)
    if assumed < declared:
        yield Reason(
            "max_silos_per_user_too_small",
            "privacy.max_silos_per_user",
            str(assumed),
            f"at least {declared}",
            "propose a plan for people who are in that many silos",
        )


def _cost_reasons(plan: Plan, budget: AccountBudget, silo: str) -> Iterator[Reason]:
    """Compose the plan's events under this account's filter: does it keep its own promise?"""
    try:
        epsilon = plan_epsilon(plan, budget.filter_spec, silo)
    except PlanImpossibleError as error:
        yield Reason(
            "plan_impossible",
            error.where or "plan",
            error.message,
            "a plan that a sum can carry",
            error.remedy or "make the plan with plan new",
        )
        return
    except UnsupportedEventError:
        yield Reason(
            "filter_mismatch",
            "training.sample_rate",
            f"{plan.training.sample_rate:g}",
            "1 on a zcdp account",
            "propose training.sample_rate: 1.0; an account keeps its filter for life",
        )
        return
    if epsilon > plan.privacy.target_epsilon:
        yield Reason(
            "promise_not_kept",
            "privacy.noise_multiplier",
            f"epsilon {epsilon:.6g} under filter {budget.filter}",
            f"target_epsilon {plan.privacy.target_epsilon:g}",
            "calibrate the plan with this account's filter",
        )


def _account_reasons(
    plan: Plan, policy: SiloPolicy, population: str, ledger_state: LedgerState
) -> Iterator[Reason]:
    account = ledger_state.accounts.get(population)
    if account is None:
        yield Reason(
            "account_unknown",
            "budgets",
            "no account",
            "an open account",
            "open the policy's accounts in the ledger first",
        )
        return
    if account.policy_sha256 != digest(policy) or account.budget != policy.budgets[population].to_budget():
        yield Reason(
            "account_of_other_policy",
            "budgets",
            f"terms of policy version {account.policy_version}",
            f"terms of version {policy.version}",
            "restart the agent, so that the ledger takes the policy in force",
        )
    yield from _payment_reasons(plan, policy.silo, account)


def _payment_reasons(plan: Plan, silo: str, account: AccountStatus) -> Iterator[Reason]:
    try:
        account.admit(reserved_events(plan, silo))
    except BudgetExceededError as error:
        yield unaffordable(error)
    except (PlanImpossibleError, UnsupportedEventError):
        return  # said already by _cost_reasons


def _partner_reasons(
    plan: Plan, policy: SiloPolicy, population: str, ledger_state: LedgerState, rosters: Rosters
) -> Iterator[Reason]:
    """Hold each partner's cap against all jobs with it; one of an unknown roster counts for everyone."""
    budget = policy.budgets[population]
    jobs = [job for job in ledger_state.jobs.values() if job.account == population]
    for partner, cap in (budget.max_epsilon_with or {}).items():
        if partner not in plan.silos:
            continue
        shared = [job for job in jobs if partner in rosters.get(job.job, (partner,))]
        events = [EventCount(item.event, item.committed) for job in shared for item in job.allowances]
        events += [item for job in shared for item in job.outstanding]
        try:
            events += reserved_events(plan, policy.silo)
            spending = Spending.of([item for item in events if item.count], budget.filter_spec)
            admit(spending, Budget(epsilon=cap, delta=budget.delta, filter=budget.filter_spec))
        except BudgetExceededError as error:
            yield Reason(
                BUDGET_EXCEEDED,
                "privacy.target_epsilon",
                f"with {partner}: {error.message}",
                f"epsilon {cap:g} for all jobs with {partner}",
                f"propose a cheaper plan, or one without {partner}",
            )
        except (PlanImpossibleError, UnsupportedEventError):
            return  # said already by _cost_reasons


def unaffordable(error: BudgetExceededError) -> Reason:
    """Return the one reason for an overdraft and a frozen account: nobody outside learns which."""
    return Reason(
        BUDGET_EXCEEDED,
        "privacy.target_epsilon",
        error.message,
        "what the account has left",
        error.remedy or "propose a cheaper plan, or sign a policy with a larger budget",
    )
