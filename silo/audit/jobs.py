"""What was kept of each job: its plan, the policy it was answered under, and whether that allowed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from pydantic import ValidationError

from policies.canonical import digest, sha256_hex
from policies.charters.charter import Charter
from policies.decisions.reasons import reasons_against
from policies.plans.plan import Plan
from policies.plans.price import reserved_events
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from privacy.errors import ArchipelError
from privacy.events import EventCount
from privacy.ledger.fold import Fold, ReservedAt
from privacy.ledger.records import CountedEvent, count_events
from privacy.ledger.state import AccountStatus, LedgerState
from silo.audit.charters import CharterChain
from silo.audit.evidence import Evidence
from silo.audit.findings import Finding, finding, untrusted


def check_jobs(
    evidence: Evidence, fold: Fold, policies: Mapping[str, SiloPolicy], chain: CharterChain
) -> Iterator[Finding]:
    """Hold the plan and the policy kept with each job against its reservation, and decide again.

    Absent files prove nothing, and are no finding.

    Args:
        evidence: the record.
        fold: the ledger's entries.
        policies: signed policies by digest.
        chain: the charters; each plan is judged by the one it was reserved under.
    """
    for item in fold.reservations:
        job, sha256 = item.record.job, item.record.policy_sha256
        plan_name, policy_name = f"jobs/{job}/plan.yaml", f"jobs/{job}/policy.json"
        try:
            if evidence.has(policy_name):
                yield from _check_job_policy(evidence, policy_name, item, fold)
            if evidence.has(plan_name):
                plan = parse_yaml(evidence.read(plan_name), Plan, plan_name)
                yield from _check_plan(plan, plan_name, item, evidence.silo())
                charters = chain.in_force_at(fold, item.seq)
                if charters and sha256 in policies and digest(plan) == item.record.plan_sha256:
                    yield from _decide_again(plan, policies[sha256], item, charters[-1])
        except ArchipelError as error:
            yield from untrusted("job_file_unreadable", error.where or f"jobs/{job}", error)
        except ValidationError:
            yield finding("job_file_unreadable", policy_name, "it is no policy")


def plan_of(evidence: Evidence, job: str, plan_sha256: str) -> Plan | None:
    """The plan of a job as it was reserved for; None where no such file was kept."""
    name = f"jobs/{job}/plan.yaml"
    if not evidence.has(name):
        return None
    try:
        plan = parse_yaml(evidence.read(name), Plan, name)
    except ArchipelError:
        return None
    return plan if digest(plan) == plan_sha256 else None


def _check_plan(plan: Plan, name: str, item: ReservedAt, silo: str) -> Iterator[Finding]:
    wanted = item.record.plan_sha256
    if digest(plan) != wanted:
        yield finding("plan_digest", name, f"entry {item.seq} names another plan ({wanted[:12]}…)")
        return
    if count_events(reserved_events(plan, silo)) != _counts(item.record.events):
        yield finding("plan_cost", name, f"entry {item.seq} reserved something else than this plan costs")


def _check_job_policy(evidence: Evidence, name: str, item: ReservedAt, fold: Fold) -> Iterator[Finding]:
    content, wanted = evidence.read(name), item.record.policy_sha256
    if sha256_hex(content) != wanted:
        yield finding("policy_digest", name, f"entry {item.seq} was reserved under another policy")
        return
    policy = SiloPolicy.model_validate_json(content)
    for _, _, terms in fold.terms:
        signed = policy.budgets.get(terms.account)
        budget = signed.to_budget() if signed else None
        if terms.policy_sha256 == wanted and terms.budget != budget:
            text = f"the ledger's budget of account {terms.account} is not this policy's"
            yield finding("budget_differs", name, text)


def _decide_again(plan: Plan, policy: SiloPolicy, item: ReservedAt, charter: Charter) -> Iterator[Finding]:
    """Ask the policy as it was asked then, of an account that nothing was spent of: the fold judges that."""
    record = item.record
    where = f"jobs/{record.job}/plan.yaml"
    named = policy.dataset_for(plan.purpose)
    if named is None or (named[0], named[1].population) != (record.dataset, record.account):
        text = f"entry {item.seq} uses dataset {record.dataset}, which the policy does not give this purpose"
        yield finding("policy_denies", where, text)
        return
    budget = policy.budgets[record.account].to_budget()
    account = AccountStatus(record.account, budget, record.policy_sha256, policy.version)
    untouched = LedgerState({record.account: account}, {})
    try:
        at = datetime.fromisoformat(item.at)
    except ValueError:
        return  # said where the clock is looked at
    reasons = reasons_against(plan, policy, untouched, at, charter=charter, proposer=record.requested_by)
    for reason in reasons:
        if reason.code != "policy_expired":
            yield finding("policy_denies", where, f"entry {item.seq}: {reason.code}: {reason}")


def _counts(events: tuple[CountedEvent, ...]) -> dict[str, int]:
    return count_events(EventCount(item.event, item.count) for item in events)
