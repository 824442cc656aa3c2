"""The files beside a ledger that its digests name: the signed policy, and each job's plan and policy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path

from pydantic import ValidationError

from policies.canonical import digest, sha256_hex
from policies.charter import Charter
from policies.files import load_policy, load_yaml, read_limited
from policies.plan import Plan
from policies.price import reserved_events
from policies.silo_policy import SiloPolicy
from privacy.errors import ArchipelError
from privacy.events import EventCount
from privacy.ledger.fold import Fold
from privacy.ledger.records import count_events
from privacy.ledger.state import JobStatus
from silo.audit.findings import Finding, finding


def check_policy(
    directory: Path, fold: Fold, *, silo: str, charter: Charter, now: datetime
) -> Iterator[Finding]:
    """Hold the signed policy against the terms in the ledger.

    Args:
        directory: the silo's.
        fold: its ledger's entries.
        silo: its name.
        charter: the auditor's; lists the administrators.
        now: reference time; a policy that has expired since is still what was in force.
    """
    where = "policy.yaml"
    try:
        expires = load_yaml(directory / where, SiloPolicy).expires
        at = min(now, last_moment(expires))
        policy = load_policy(directory, charter=charter, silo=silo, previous_version=None, now=at)
    except ArchipelError as error:
        yield finding("policy_untrusted", where, error.message)
        return
    for terms in fold.terms:
        text = f"account {terms.account} was given terms by"
        if terms.policy_version > policy.version:
            text += f" version {terms.policy_version}; the file is version {policy.version}"
            yield finding("policy_rolled_back", where, text)
        elif terms.policy_version == policy.version and terms.policy_sha256 != digest(policy):
            text += f" version {terms.policy_version} with other content ({terms.policy_sha256[:12]}…)"
            yield finding("policy_digest", where, text)
        elif terms.policy_version == policy.version:
            signed = policy.budgets.get(terms.account)
            if signed is None or signed.to_budget() != terms.budget:
                text = f"the ledger's budget of account {terms.account} is not the policy's"
                yield finding("budget_differs", where, text)


def check_jobs(directory: Path, fold: Fold) -> Iterator[Finding]:
    """Hold the plan and the policy kept with each job against its reservation; absent files prove nothing."""
    jobs = fold.state().jobs
    for kept in sorted((directory / "jobs").glob("*")):
        job = jobs.get(kept.name)
        if job is None:
            continue
        try:
            if (kept / "plan.yaml").is_file():
                yield from _check_plan(kept / "plan.yaml", job)
            if (kept / "policy.json").is_file():
                yield from _check_job_policy(kept / "policy.json", job, fold)
        except ArchipelError as error:
            yield finding("job_file_unreadable", error.where or str(kept), error.message)
        except ValidationError:
            yield finding("job_file_unreadable", f"jobs/{job.job}/policy.json", "it is no policy")


def last_moment(expires: date) -> datetime:
    """The last moment of the last day in force."""
    return datetime.combine(expires, time.max, tzinfo=UTC)


def _check_plan(path: Path, job: JobStatus) -> Iterator[Finding]:
    plan = load_yaml(path, Plan)
    where = f"jobs/{job.job}/plan.yaml"
    if digest(plan) != job.plan_sha256:
        yield finding("plan_digest", where, f"entry {job.seq} names another plan ({job.plan_sha256[:12]}…)")
        return
    reserved = count_events(EventCount(item.event, item.reserved) for item in job.allowances)
    if count_events(reserved_events(plan)) != reserved:
        yield finding("plan_cost", where, f"entry {job.seq} reserved something else than this plan costs")


def _check_job_policy(path: Path, job: JobStatus, fold: Fold) -> Iterator[Finding]:
    content = read_limited(path)
    where = f"jobs/{job.job}/policy.json"
    if sha256_hex(content) != job.policy_sha256:
        yield finding("policy_digest", where, f"entry {job.seq} was reserved under another policy")
        return
    policy = SiloPolicy.model_validate_json(content)
    for terms in fold.terms:
        signed = policy.budgets.get(terms.account)
        budget = signed.to_budget() if signed else None
        if terms.policy_sha256 == job.policy_sha256 and terms.budget != budget:
            text = f"the ledger's budget of account {terms.account} is not this policy's"
            yield finding("budget_differs", where, text)
