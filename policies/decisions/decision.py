"""May this job run here? Pure: plan, policy, ledger and time in, an authorization or every reason out.

Guarantees:
    * Whatever is not allowed is denied, and a refusal lists *every* reason at once (:mod:`.reasons`).
    * Only :func:`authorize` and :func:`reauthorize` make an :class:`Authorization`.
    * No weakening of a plan that keeps its own promise (fewer colluders covered, less noise, a wider release,
      a larger epsilon or delta, no masks …) turns a refusal into an acceptance.
    * An authorisation names the digest of one plan and of one policy; it fits no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from datetime import date, datetime
from typing import ClassVar, Final, Self

from policies.canonical import digest
from policies.charters.charter import Charter
from policies.decisions.reason import Reason
from policies.decisions.reasons import BUDGET_EXCEEDED, Rosters, reasons_against, unaffordable
from policies.freezing import Hold
from policies.plans.plan import Plan
from policies.plans.price import reserved_events, schedule
from policies.silo_policy import SiloPolicy
from privacy.errors import BudgetExceededError, DeniedError, TrustError
from privacy.events import Event, EventCount
from privacy.ledger.state import JobStatus, LedgerState

__all__ = [
    "Authorization",
    "AuthorizationMismatchError",
    "PolicyDeniedError",
    "Reason",
    "authorize",
    "reauthorize",
]

_MADE_HERE: Final = object()


class PolicyDeniedError(DeniedError):
    """This silo does not take part; carries every reason.

    Attributes:
        reasons: at least one; for this silo's own people.
    """

    code: ClassVar[str] = "policy_denied"

    def __init__(self, reasons: Iterable[Reason]) -> None:
        self.reasons = tuple(reasons)
        lines = [f"  [{reason.code}] {reason}" for reason in self.reasons]
        count = "1 reason" if len(lines) == 1 else f"{len(lines)} reasons"
        super().__init__("\n".join([f"the policy denies this plan, {count}:", *lines]))

    @property
    def outbound(self) -> tuple[Reason, ...]:
        """The reasons whose code and field may leave the silo, at least one.

        What the account has left is told by accepting or refusing a plan that everything else allows. Beside
        another reason it would be told for nothing, as often as the proposer likes.
        """
        return tuple(item for item in self.reasons if item.code != BUDGET_EXCEEDED) or self.reasons

    @classmethod
    def from_budget(cls, error: BudgetExceededError) -> Self:
        """The refusal of a ledger that another job was quicker to draw on."""
        return cls((unaffordable(error),))


class AuthorizationMismatchError(TrustError):
    """An acceptance on record is not one of this plan under this policy."""

    code: ClassVar[str] = "authorization_mismatch"


@dataclass(frozen=True)
class Authorization:
    """Proof that one policy allows one plan. Made by this module only.

    Attributes:
        silo: who allows it.
        plan_sha256: digest of the plan, unchanged.
        policy_sha256: digest of the policy.
        policy_version: its version.
        policy_expires: its last day in force.
        dataset: the policy's name of the only rows that may be used.
        account: the population that pays.
        events: everything that may be released; what the ledger has to reserve.
        max_interactions_per_user: the smaller cap of plan and policy.
        verify_sums: share of sums this silo recomputes; 1.0 where the job has only one.
    """

    silo: str
    plan_sha256: str
    policy_sha256: str
    policy_version: int
    policy_expires: date
    dataset: str
    account: str
    events: tuple[EventCount, ...]
    max_interactions_per_user: int
    verify_sums: float
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        """Refuse every other maker."""
        if token is not _MADE_HERE:
            raise TypeError("an authorization is made by policies.decisions.decision only")


def authorize(
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
) -> Authorization:
    """Allow a plan as proposed, or deny it.

    Args:
        plan: as proposed; never narrowed.
        policy: the trusted policy in force.
        ledger_state: this silo's accounts, without a reservation for this very job.
        now: one frozen reference time, aware.
        charter: the trusted charter.
        proposer: the party that signed the proposal; left out: this silo's own forecast.
        hold: what stops all new jobs, if anything does.
        rosters: the silos of each job of the ledger; one that is missing counts for every partner's cap.
        recent_alignments: vertical jobs that this silo has reserved for in the last 30 days.

    Returns:
        What a release and the ledger demand to see.

    Raises:
        PolicyDeniedError: with every reason.
    """
    reasons = tuple(
        reasons_against(
            plan,
            policy,
            ledger_state,
            now,
            charter=charter,
            proposer=proposer,
            hold=hold,
            rosters=rosters,
            recent_alignments=recent_alignments,
        )
    )
    if reasons:
        raise PolicyDeniedError(reasons)
    return _authorization(plan, policy)


def reauthorize(plan: Plan, policy: SiloPolicy, reserved: JobStatus) -> Authorization:
    """Return the authorization that an earlier decision gave, from what the ledger reserved for it.

    Nothing is decided again: an accepted job keeps its law whatever is signed, spent or expired later.

    Args:
        plan: the job's plan.
        policy: the policy the job was accepted under.
        reserved: the ledger's record of the job.

    Raises:
        AuthorizationMismatchError: the record is of another plan, policy, dataset or cost: the plan was
            altered after it was accepted, or the acceptance of another plan is replayed.
    """
    if digest(plan) != reserved.plan_sha256:
        raise _mismatch("plan")
    if digest(policy) != reserved.policy_sha256 or policy.dataset_for(plan.purpose) is None:
        raise _mismatch("policy")
    known = _authorization(plan, policy)
    pairs = {
        "dataset": (known.dataset, reserved.dataset),
        "account": (known.account, reserved.account),
        "cost": (_counted(known.events), {item.event: item.reserved for item in reserved.allowances}),
    }
    for name, (found, recorded) in pairs.items():
        if found != recorded:
            raise _mismatch(name)
    return known


def _authorization(plan: Plan, policy: SiloPolicy) -> Authorization:
    name = policy.accepts.purposes[plan.purpose]
    dataset = policy.datasets[name]
    return Authorization(
        silo=policy.silo,
        plan_sha256=digest(plan),
        policy_sha256=digest(policy),
        policy_version=policy.version,
        policy_expires=policy.expires,
        dataset=name,
        account=dataset.population,
        events=reserved_events(plan, policy.silo),
        max_interactions_per_user=min(plan.max_interactions_per_user, dataset.max_interactions_per_user),
        verify_sums=1.0 if len(schedule(plan)) <= 1 else policy.accepts.verify_sums,
        token=_MADE_HERE,
    )


def _mismatch(what: str) -> AuthorizationMismatchError:
    return AuthorizationMismatchError(
        f"the {what} is not the one this silo accepted for the job",
        remedy="propose the changed plan as a new job; an acceptance is of one plan only",
    )


def _counted(events: Iterable[EventCount]) -> dict[Event, int]:
    counts: dict[Event, int] = {}
    for event, count in events:
        counts[event] = counts.get(event, 0) + count
    return counts
