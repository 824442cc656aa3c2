"""A private choice among released models inside one silo: its statement, and whether the policy allows it.

A selection is no job: nobody else takes part, and nothing but the winner's name leaves. It is paid for like
one, from the account of the people whose rows judge, under a name that no job has.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from policies.canonical import digest
from policies.decisions.reason import Reason
from policies.freezing import Hold
from policies.sections import PartyName, Real, Section, Slug
from policies.silo_policy import SiloPolicy
from privacy.errors import DeniedError

PREFIX: Final = "selection-"
"""How the ledger calls selections; the handles of jobs are hexadecimal."""


class SelectionDeniedError(DeniedError):
    """This silo's policy does not allow the private choice; nothing was charged or read."""

    code: ClassVar[str] = "selection_denied"


class Selection(Section):
    """What is asked, before anybody's rows are looked at; its digest stands in the ledger.

    Attributes:
        silo: who chooses.
        purpose: of the plans whose models are compared.
        dataset: the rows that judge.
        metric: of one person, between 0 and 1.
        epsilon: price of the choice, pure.
        candidates: jobs whose released models are compared.
        nonce: makes two equal questions two.
    """

    kind: Literal["Selection"]
    schema_version: Literal[1]
    silo: PartyName
    purpose: Slug
    dataset: Slug
    metric: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+@[0-9]+$")]
    epsilon: Annotated[Real, Field(gt=0, le=10)]
    candidates: Annotated[tuple[str, ...], Field(min_length=2, max_length=100)]
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return PREFIX + digest(self)[:32]


def is_selection(job: str) -> bool:
    """Whether an entry of the ledger is a selection's, not a job's."""
    return job.startswith(PREFIX)


def require_selection(selection: Selection, policy: SiloPolicy, hold: Hold | None, now: datetime) -> str:
    """Return the account that pays, where ``policy`` allows the choice.

    Args:
        selection: what is asked.
        policy: in force.
        hold: what stops new jobs, which stops this too.
        now: reference time, aware.

    Raises:
        SelectionDeniedError: with every reason.
    """
    reasons = list(_reasons(selection, policy, hold, now))
    if reasons:
        lines = "\n".join(f"  [{reason.code}] {reason}" for reason in reasons)
        raise SelectionDeniedError(f"the policy denies this selection:\n{lines}")
    return policy.datasets[selection.dataset].population


def _reasons(selection: Selection, policy: SiloPolicy, hold: Hold | None, now: datetime) -> Iterator[Reason]:
    if hold is not None:
        yield Reason("policy_frozen", "policy", hold.why, "no freeze", hold.remedy)
    ceiling = policy.accepts.max_epsilon_per_selection
    if ceiling is None or selection.epsilon > ceiling:
        yield Reason(
            "selection_epsilon",
            "accepts.max_epsilon_per_selection",
            f"{selection.epsilon:g}",
            "none" if ceiling is None else f"at most {ceiling:g}",
            "ask for less, or sign a policy with accepts.max_epsilon_per_selection",
        )
    named = policy.dataset_for(selection.purpose)
    if named is None or named[0] != selection.dataset:
        yield Reason(
            "purpose_not_accepted",
            "accepts.purposes",
            f"{selection.purpose}: {selection.dataset}",
            f"{selection.purpose}: {named[0]}" if named else "none of this purpose",
            "compare jobs whose purpose the policy still maps to their dataset",
        )
        return
    expires = policy.budgets[named[1].population].expires
    if expires is not None and now.astimezone(UTC).date() > expires:
        yield Reason(
            "account_expired",
            f"budgets.{named[1].population}.expires",
            expires.isoformat(),
            "a day that has not passed",
            "sign a policy with a later day",
        )
