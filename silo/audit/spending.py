"""What was spent on what: by population, by purpose, by partner, and over time. From the entries alone.

Purpose and partners stand in the plans kept beside the ledger; a job without its plan counts under
``unknown``. Epsilon does not add up: each figure is that of its own events composed alone, so the shares of
an account sum to more than the account has spent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from policies.decisions.selections import is_selection
from policies.plans.plan import Plan
from privacy.accounting import Spending
from privacy.errors import DeniedError
from privacy.events import EventCount
from privacy.ledger.chain import Entry
from privacy.ledger.fold import Fold
from privacy.ledger.state import AccountStatus, JobStatus
from silo.audit.evidence import CARD, Evidence
from silo.audit.jobs import plan_of

UNIT = "user"
NEIGHBORING_RELATION = "add_or_remove_one"
SCOPE = "one person's whole history, over all silos that each plan says a person may be in"
UNKNOWN = "unknown"
SELECTION = "private selection"

MAX_POINTS = 200


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Point(_Value):
    """An account at one moment.

    Attributes:
        at: the entry's time, UTC.
        spent: epsilon of what was committed; None where nothing bounds it.
        counted: epsilon of committed and reserved together.
        budget: what it might spend.
    """

    at: str
    spent: float | None
    counted: float | None
    budget: float


class Account(_Value):
    """One population's account.

    Attributes:
        account: the population.
        epsilon: its budget.
        delta: likewise.
        spent: epsilon of what was committed, None where nothing bounds it.
        reserved: what open jobs' reservations add to it.
        remaining: budget minus both, at least 0.
        filter: what decides, with its orders.
        policy: version of the policy that the budget comes from.
        policy_sha256: its digest.
        frozen: whether a lowered budget no longer covers what is counted.
        events_committed: every event and how often.
        events_reserved: likewise of open jobs.
        burn_down: at most so many moments that a plot stays readable, oldest first; the last is now.
    """

    account: str
    epsilon: float
    delta: float
    spent: float | None
    reserved: float | None
    remaining: float
    filter: str
    policy: int
    policy_sha256: str
    frozen: bool
    events_committed: tuple[dict[str, Any], ...]
    events_reserved: tuple[dict[str, Any], ...]
    burn_down: tuple[Point, ...]


class Share(_Value):
    """What one purpose, or one partner, has cost an account.

    Attributes:
        account: the population.
        name: purpose or partner; ``unknown`` where the plans were not kept.
        jobs: how many jobs.
        releases: their charged contributions.
        spent: epsilon of these composed alone.
        counted: with what their open jobs have reserved.
    """

    account: str
    name: str
    jobs: int
    releases: int
    spent: float | None
    counted: float | None


class JobLine(_Value):
    """One job as the ledger knows it."""

    job: str
    account: str
    dataset: str
    purpose: str
    partners: tuple[str, ...]
    requested_by: str
    plan_sha256: str
    reserved_at: str
    releases: int
    spent: float | None
    open: bool
    seq: int


class Overview(_Value):
    """Everything that was spent.

    Attributes:
        unit: what epsilon protects.
        neighboring_relation: against which change.
        scope: of whom.
        accounts: by population.
        purposes: by account and purpose.
        partners: by account and partner.
        jobs: in the order of their reservations.
        problems: entries that are not as a ledger writes them.
    """

    unit: str = UNIT
    neighboring_relation: str = NEIGHBORING_RELATION
    scope: str = SCOPE
    accounts: tuple[Account, ...]
    purposes: tuple[Share, ...]
    partners: tuple[Share, ...]
    jobs: tuple[JobLine, ...]
    problems: int


def overview(evidence: Evidence) -> Overview:
    """Read a record and add it up.

    Raises:
        DataError: there is no ledger.
        LogCorruptError: an entry cannot be read.
    """
    fold, problems, series = Fold(), 0, defaultdict[str, _Series](_Series)
    with evidence.open_ledger() as ledger:
        for entry in ledger.entries():
            problems += sum(1 for _ in fold.apply(entry))
            _note(series, fold, entry)
    state = fold.state()
    lines = tuple(_job_lines(evidence, fold, state.jobs.values()))
    accounts = tuple(
        _account(status, series[status.account].points(status.budget.delta))
        for status in state.accounts.values()
    )
    return Overview(
        accounts=accounts,
        purposes=tuple(_shares(state.accounts, state.jobs, ((line, (line.purpose,)) for line in lines))),
        partners=tuple(_shares(state.accounts, state.jobs, ((line, line.partners) for line in lines))),
        jobs=lines,
        problems=problems,
    )


class _Moment(NamedTuple):
    at: str
    spent: Spending | None
    counted: Spending | None
    budget: float


class _Series:
    """Moments of one account: every one until there are too many, then every second one, and so on."""

    def __init__(self) -> None:
        self._kept: list[_Moment] = []
        self._last: _Moment | None = None
        self._stride = 1
        self._seen = 0

    def add(self, moment: _Moment) -> None:
        if self._seen % self._stride == 0:
            self._kept.append(moment)
        if len(self._kept) > MAX_POINTS:
            self._kept = self._kept[::2]
            self._stride *= 2
        self._seen += 1
        self._last = moment

    def points(self, delta: float) -> tuple[Point, ...]:
        """The kept moments and the newest one."""
        kept = self._kept
        if self._last is not None and kept[-1] is not self._last:
            kept = [*kept, self._last]
        return tuple(
            Point(at=at, spent=_epsilon(spent, delta), counted=_epsilon(counted, delta), budget=budget)
            for at, spent, counted, budget in kept
        )


def _note(series: dict[str, _Series], fold: Fold, entry: Entry) -> None:
    name = entry.payload.get("account")
    budget = fold.budget_of(name) if isinstance(name, str) else None
    if not isinstance(name, str) or budget is None:
        return
    try:
        moment = _Moment(entry.at, fold.spent(name), fold.counted(name), budget.epsilon)
    except DeniedError:
        moment = _Moment(entry.at, None, None, budget.epsilon)
    series[name].add(moment)


def _account(status: AccountStatus, points: tuple[Point, ...]) -> Account:
    filter_ = status.budget.filter
    orders = getattr(filter_, "orders", None)
    spent, counted = (
        _alone(status.committed, status),
        _alone((*status.committed, *status.outstanding), status),
    )
    return Account(
        account=status.account,
        epsilon=status.budget.epsilon,
        delta=status.budget.delta,
        spent=spent,
        reserved=None if spent is None or counted is None else counted - spent,
        remaining=0.0 if counted is None else max(0.0, status.budget.epsilon - counted),
        filter=filter_.kind if orders is None else f"{filter_.kind} {list(orders)}",
        policy=status.policy_version,
        policy_sha256=status.policy_sha256,
        frozen=status.frozen,
        events_committed=tuple(_events_json(status.committed)),
        events_reserved=tuple(_events_json(status.outstanding)),
        burn_down=points,
    )


def _job_lines(evidence: Evidence, fold: Fold, jobs: Iterable[JobStatus]) -> Iterator[JobLine]:
    me = evidence.silo() if evidence.has(CARD) else ""
    times = {item.record.job: item.at for item in fold.reservations}
    accounts = fold.state().accounts
    for job in jobs:
        plan = plan_of(evidence, job.job, job.plan_sha256)
        committed = tuple(EventCount(item.event, item.committed) for item in job.allowances)
        yield JobLine(
            job=job.job,
            account=job.account,
            dataset=job.dataset,
            purpose=_purpose(job.job, plan),
            partners=_partners(job.job, plan, me),
            requested_by=job.requested_by,
            plan_sha256=job.plan_sha256,
            reserved_at=times[job.job],
            releases=sum(item.count for item in committed),
            spent=_alone(committed, accounts[job.account]),
            open=job.open,
            seq=job.seq,
        )


def _purpose(job: str, plan: Plan | None) -> str:
    if is_selection(job):
        return SELECTION
    return plan.purpose if plan else UNKNOWN


def _partners(job: str, plan: Plan | None, me: str) -> tuple[str, ...]:
    if is_selection(job):
        return ()
    return tuple(name for name in plan.silos if name != me) if plan else (UNKNOWN,)


def _shares(
    accounts: Mapping[str, AccountStatus],
    jobs: Mapping[str, JobStatus],
    named: Iterable[tuple[JobLine, tuple[str, ...]]],
) -> Iterator[Share]:
    groups: dict[tuple[str, str], list[JobStatus]] = defaultdict(list)
    for line, names in named:
        for name in names:
            groups[line.account, name].append(jobs[line.job])
    for (account, name), members in sorted(groups.items()):
        committed = [EventCount(item.event, item.committed) for job in members for item in job.allowances]
        outstanding = [item for job in members for item in job.outstanding]
        yield Share(
            account=account,
            name=name,
            jobs=len(members),
            releases=sum(item.count for item in committed),
            spent=_alone(committed, accounts[account]),
            counted=_alone([*committed, *outstanding], accounts[account]),
        )


def _alone(events: Iterable[EventCount], status: AccountStatus) -> float | None:
    try:
        return _epsilon(Spending.of(events, status.budget.filter), status.budget.delta)
    except DeniedError:
        return None


def _epsilon(spending: Spending | None, delta: float) -> float | None:
    """JSON has no infinity: None stands for an epsilon that nothing bounds."""
    epsilon = float("inf") if spending is None else spending.epsilon(delta)
    return epsilon if epsilon < float("inf") else None


def _events_json(events: Iterable[EventCount]) -> Iterator[dict[str, Any]]:
    for event, count in events:
        yield {"event": event.model_dump(mode="json"), "count": count}
