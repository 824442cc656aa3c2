"""Plans that a silo answered, and how other policies would have answered them. Reads; never writes.

A plan is judged on the account as it stood when it was answered, under the other policy's budgets: what later
jobs spent does not count against it. Whether a policy was, or is, in force is left out: that is a date, not
a difference of the law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.decisions.reason import Reason
from policies.decisions.reasons import Rosters, reasons_against
from policies.decisions.selections import is_selection
from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.errors import ArchipelError
from privacy.events import PureEvent
from privacy.ledger.chain import LogReader
from privacy.ledger.fold import Fold
from privacy.ledger.records import RESERVED, Reserved
from privacy.ledger.state import AccountStatus, JobStatus, LedgerState

_NOTHING = LedgerState({}, {})
_EXPIRIES = ("policy_expired", "charter_expired")


@dataclass(frozen=True)
class PastPlan:
    """One plan and what this silo's ledger was when it was answered.

    Attributes:
        name: the job, or the file.
        plan: the plan.
        state: accounts and jobs before it.
        proposer: who asked; None where that was not kept.
    """

    name: str
    plan: Plan
    state: LedgerState
    proposer: str | None = None


@dataclass(frozen=True)
class Past:
    """What a directory remembers.

    Attributes:
        plans: plans answered since the day asked for, oldest first.
        unreadable: jobs whose plan cannot be read.
        now: the ledger as it stands.
        rosters: the silos of its jobs.
    """

    plans: tuple[PastPlan, ...]
    unreadable: tuple[str, ...]
    now: LedgerState
    rosters: Rosters


@dataclass(frozen=True)
class Flip:
    """A plan that two policies answer differently; no reasons = accepted."""

    name: str
    before: tuple[Reason, ...]
    after: tuple[Reason, ...]


def read_past(directory: Path, since: datetime) -> Past:
    """Return the plans of a silo's directory that were answered since ``since``, and its ledger.

    Args:
        directory: the silo's; its agent may be running.
        since: aware.

    Raises:
        LogStorageError, LogCorruptError: there is a ledger and it cannot be read.
    """
    plans: dict[str, tuple[datetime, Plan]] = {}
    unreadable = []
    for path in sorted((directory / "jobs").glob("*/plan.yaml")):
        answered = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        try:
            if answered >= since:
                plans[path.parent.name] = (answered, load_yaml(path, Plan))
        except ArchipelError:
            unreadable.append(path.parent.name)
    ledger = directory / "ledger.db"
    known, now = _states(ledger, plans) if ledger.exists() else ({}, _NOTHING)
    found = [
        known.get(job) or PastPlan(job, plan, now)
        for job, (_, plan) in sorted(plans.items(), key=lambda item: item[1][0])
    ]
    return Past(tuple(found), tuple(unreadable), now, read_rosters(directory, now.jobs))


def flips(
    plans: Sequence[PastPlan],
    old: SiloPolicy,
    new: SiloPolicy,
    *,
    charter: Charter,
    now: datetime,
    rosters: Rosters | None = None,
) -> tuple[Flip, ...]:
    """Return the plans that the two policies answer differently, in the order given.

    Args:
        plans: what was, or might be, proposed.
        old: the one policy.
        new: the other.
        charter: who is a member.
        now: reference time, aware.
        rosters: the silos of the ledger's jobs.
    """
    answers = (
        Flip(
            item.name,
            *(answer(item, policy, charter=charter, now=now, rosters=rosters) for policy in (old, new)),
        )
        for item in plans
    )
    return tuple(flip for flip in answers if bool(flip.before) != bool(flip.after))


def answer(
    item: PastPlan, policy: SiloPolicy, *, charter: Charter, now: datetime, rosters: Rosters | None = None
) -> tuple[Reason, ...]:
    """Return the reasons that ``policy`` would have had against a plan; none if it would have accepted.

    Args:
        item: the plan and the ledger before it.
        policy: a policy, in force or not.
        charter: who is a member.
        now: reference time, aware.
        rosters: the silos of the ledger's jobs.
    """
    state = under(item.state, policy)
    found = reasons_against(
        item.plan, policy, state, now, charter=charter, proposer=item.proposer, rosters=rosters
    )
    return tuple(reason for reason in found if reason.code not in _EXPIRIES)


def under(state: LedgerState, policy: SiloPolicy) -> LedgerState:
    """Return the accounts as they would be if the ledger took ``policy``'s terms.

    A ledger takes no other filter for an account that it has; what was spent is counted by the new one here.

    Args:
        state: the accounts.
        policy: whose budgets they get.
    """
    accounts = {}
    for population, terms in policy.budgets.items():
        blank = AccountStatus(population, terms.to_budget(), digest(policy), policy.version)
        found = state.accounts.get(population, blank)
        accounts[population] = replace(
            found, budget=blank.budget, policy_sha256=blank.policy_sha256, policy_version=blank.policy_version
        )
    return replace(state, accounts=accounts)


def read_rosters(directory: Path, jobs: Mapping[str, JobStatus]) -> dict[str, tuple[str, ...]]:
    """Return the silos of a ledger's jobs from the plans kept beside it; without its plan a job is left out.

    Args:
        directory: the silo's.
        jobs: of its ledger.
    """
    rosters = {}
    for job, status in jobs.items():
        with suppress(ArchipelError):
            plan = load_yaml(directory / "jobs" / job / "plan.yaml", Plan)
            if digest(plan) == status.plan_sha256:
                rosters[job] = plan.silos
    return rosters


def count_alignments(ledger: Path, since: datetime) -> int:
    """Return for how many alignments a ledger has reserved since ``since``; each has a noised number.

    Args:
        ledger: the file; its agent may be running.
        since: aware.

    Raises:
        LogStorageError, LogCorruptError: it cannot be read.
    """
    with LogReader.open(ledger) as reader:
        reserved = [entry for entry in reader.entries() if entry.kind == RESERVED]
    recent = (
        Reserved.model_validate(entry.payload)
        for entry in reserved
        if datetime.fromisoformat(entry.at) >= since
    )
    return sum(
        any(isinstance(item.event, PureEvent) for item in record.events)
        for record in recent
        if not is_selection(record.job)
    )


def _states(
    ledger: Path, plans: Mapping[str, tuple[datetime, Plan]]
) -> tuple[dict[str, PastPlan], LedgerState]:
    """Each plan with the accounts before its reservation or, refused, before its file was written."""
    fold, found = Fold(), dict[str, PastPlan]()
    waiting = sorted((answered, job) for job, (answered, _) in plans.items())
    with LogReader.open(ledger) as reader:
        for entry in reader.entries():
            while waiting and waiting[0][0] < datetime.fromisoformat(entry.at):
                job = waiting.pop(0)[1]
                found[job] = PastPlan(job, plans[job][1], fold.state())
            name = str(entry.payload.get("job"))
            if entry.kind == RESERVED and name in plans:
                proposer = str(entry.payload.get("requested_by"))
                found[name] = PastPlan(name, plans[name][1], fold.state(), proposer)
            for _ in fold.apply(entry):
                pass  # what is wrong with a ledger is for an audit to say
    return found, fold.state()
