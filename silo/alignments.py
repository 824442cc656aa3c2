"""The alignments of one silo: spines that were found or are being found, and what is left to find.

A spine is frozen with its job: who stands at which slot is never computed again, and goes with the job's
files when it ends. What is shown here rests on the plan, the ledger and the agent's notes, not on rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from federation.legs.legs import spine_of
from policies.decisions.history import count_alignments
from policies.decisions.vertical_reasons import ALIGNMENT_DAYS
from policies.files import load_yaml
from policies.plans.plan import Plan
from privacy.errors import UsageError
from privacy.events import PureEvent
from privacy.ledger.chain import LogReader
from privacy.ledger.records import COMMITTED, RESERVED, Committed
from silo.jobs.approval import asks, read_decision
from silo.site import Site

APPROVING = "approving"


class AlignmentUnknownError(UsageError):
    """No alignment of this silo has that name, or several have."""

    code: ClassVar[str] = "alignment_unknown"


class AlreadyDecidedError(UsageError):
    """An alignment that nobody is asked about, not yet or not any more."""

    code: ClassVar[str] = "approval_not_asked"


@dataclass(frozen=True)
class Alignment:
    """One alignment that this silo has reserved for.

    Attributes:
        job: whose.
        reserved_at: when this silo accepted it, UTC.
        charged_at: when its list left, UTC; None: it never did.
        role: this silo's: ``label`` or ``feature``.
        partners: the other silos.
        capacities: declared size of each list.
        slots: of the spine; None while nobody knows.
        reveal: ``none`` or ``both``.
        min_intersection: people in common with which the job goes on.
        epsilon: of the number that was compared with it.
        phase: of the job, as the agent last noted it.
        leg: in words, if it is in one.
        outcome: of the job, once it has ended.
        reason: why it ended so.
        approval: ``automatic``, or of a policy that asks: ``asked later``, ``waits``, ``approved`` or
            ``refused``; ``never asked`` where the job ended before.
    """

    job: str
    reserved_at: str
    charged_at: str | None
    role: str
    partners: tuple[str, ...]
    capacities: dict[str, int]
    slots: int | None
    reveal: str
    min_intersection: int
    epsilon: float
    phase: str | None
    leg: str | None
    outcome: str | None
    reason: str
    approval: str


@dataclass(frozen=True)
class Runs:
    """How often this silo may still be aligned.

    Attributes:
        allowed: by the policy in force, in so many days; None where it aligns nobody.
        used: accepted in these days.
        days: how many they are.
    """

    allowed: int | None
    used: int
    days: int = ALIGNMENT_DAYS

    @property
    def left(self) -> int:
        """How many more plans may be accepted now."""
        return max(0, (self.allowed or 0) - self.used)


def alignments(site: Site) -> tuple[Alignment, ...]:
    """Return all alignments that a silo has reserved for, oldest first; works while its agent runs."""
    reserved, charged = _times(site.directory / "ledger.db")
    found = []
    for job, at in reserved.items():
        path = site.directory / "jobs" / job / "plan.yaml"
        plan = load_yaml(path, Plan) if path.exists() else None
        if plan is not None and plan.alignment is not None:
            found.append(_alignment(site, job, plan, at, charged.get(job)))
    return tuple(sorted(found, key=lambda one: one.reserved_at))


def find(site: Site, name: str) -> Alignment:
    """Return the one alignment whose job begins with ``name``.

    Raises:
        AlignmentUnknownError: none does, or several do.
    """
    matching = [one for one in alignments(site) if one.job.startswith(name)]
    if len(matching) != 1:
        raise AlignmentUnknownError(
            f"{len(matching) or 'no'} alignments of this silo begin with {name!r}",
            where=str(site.directory),
            remedy="archipel align list shows them",
        )
    return matching[0]


def runs(site: Site) -> Runs:
    """Return how often this silo may still be aligned under the policy in force."""
    limits = site.law().policy.alignment
    since = site.now() - timedelta(days=ALIGNMENT_DAYS)
    used = count_alignments(site.directory / "ledger.db", since)
    return Runs(None if limits is None else limits.max_runs_per_30_days, used)


def require_undecided(one: Alignment) -> Alignment:
    """Accept an alignment about which somebody here may decide now.

    Raises:
        AlreadyDecidedError: nobody is asked: not by the policy, not yet, or not any more.
    """
    if one.approval in ("waits", "asked later"):
        return one
    why = {
        "automatic": "its policy asks nobody: alignment.approval is automatic",
        "approved": "it is approved already",
        "refused": "it is refused already",
        "never asked": "the job has ended",
    }[one.approval]
    raise AlreadyDecidedError(
        why,
        where=one.job,
        remedy=f"archipel job cancel {one.job[:8]} stops a job that runs; archipel align list shows all",
    )


def _alignment(site: Site, job: str, plan: Plan, reserved_at: str, charged_at: str | None) -> Alignment:
    note, terms = site.job_note(job), plan.alignment
    if terms is None:
        raise UsageError("a plan that aligns nobody", where=job, remedy="name a vertical job")
    return Alignment(
        job=job,
        reserved_at=reserved_at,
        charged_at=charged_at,
        role="label" if site.name == plan.leader else "feature",
        partners=tuple(silo for silo in plan.silos if silo != site.name),
        capacities=dict(terms.capacities),
        slots=spine_of(plan, note.get("spine_slots")),
        reveal=terms.reveal,
        min_intersection=terms.min_intersection,
        epsilon=terms.epsilon,
        phase=note.get("phase"),
        leg=note.get("leg"),
        outcome=note.get("outcome"),
        reason=str(note.get("reason") or ""),
        approval=_approval(site, job, note),
    )


def _approval(site: Site, job: str, note: Mapping[str, Any]) -> str:
    if not asks(site, job):
        return "automatic"
    decided = read_decision(site, job)
    if decided is not None:
        return "approved" if decided else "refused"
    if note.get("outcome"):
        return "never asked"
    return "waits" if note.get("phase") == APPROVING else "asked later"


def _times(ledger: Path) -> tuple[dict[str, str], dict[str, str]]:
    """When each job was reserved for, and when its noised number of people in common was charged."""
    reserved: dict[str, str] = {}
    charged: dict[str, str] = {}
    with LogReader.open(ledger) as reader:
        for entry in reader.entries():
            if entry.kind == RESERVED:
                reserved.setdefault(str(entry.payload["job"]), entry.at)
            elif entry.kind == COMMITTED:
                record = Committed.model_validate(entry.payload)
                if isinstance(record.event, PureEvent):
                    charged.setdefault(record.job, entry.at)
    return reserved, charged
