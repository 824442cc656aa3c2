"""A job's state for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from federation.messages import Acceptance, Denial, PostKind, Proposal, Stream, Sum
from federation.rounds import JobState, Phase
from privacy.errors import ArchipelError, DeniedError, PeerError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

IN_WORDS: dict[Phase, str] = {
    Phase.PROPOSED: "waiting for every silo to accept or deny the plan",
    Phase.STARTING: "silos make the keys of this job",
    Phase.KEYING: "the leader hands out the job's key, wrapped",
    Phase.FINGERPRINTING: "silos compare the key's fingerprint",
    Phase.EXCHANGING: "silos make the mask keys of this round",
    Phase.COLLECTING: "silos contribute, the coordinator adds ciphertexts",
    Phase.RECEIVING: "silos fetch the sum and compare what they got",
    Phase.OPENING: "silos open the sum",
    Phase.CLOSING: "silos make the model and close their ledgers",
    Phase.WITNESSING: "silos countersign each other's ledgers",
    Phase.ENDED: "ended",
}


class JobDeniedError(DeniedError):
    """At least one silo's policy or budget refused the plan."""

    code: ClassVar[str] = "job_denied"


class JobFailedError(PeerError):
    """The job ended without a model."""

    code: ClassVar[str] = "job_failed"


def describe(state: JobState) -> dict[str, Any]:
    """A job as JSON values; everything in it is public among its parties."""
    proposal = next(iter(state.posts.values())).content(Proposal)
    sums = [envelope.content(Sum) for place, envelope in state.posts.items() if place.kind is PostKind.SUM]
    return {
        "job": state.job,
        "proposer": state.proposer,
        "submitted_at": proposal.submitted_at,
        "purpose": state.plan.purpose,
        "family": state.plan.model.family,
        "plan_sha256": state.plan_sha256,
        "phase": state.phase.value,
        "round": state.round,
        "num_rounds": state.num_rounds,
        "attempt": state.attempt,
        "burned": state.burned,
        "outcome": state.outcome,
        "reason": state.reason,
        "silos": {silo: _describe_silo(state, silo) for silo in state.roster},
        "catalogue_bytes": proposal.catalogue_bytes,
        "sum_bytes": sum(item.num_bytes for item in sums),
    }


def outcome_error(state: JobState) -> ArchipelError | None:
    """What an ended job means for a command: None when it completed."""
    if state.outcome in (None, "completed"):
        return None
    if state.outcome == "denied":
        return JobDeniedError(
            "\n  ".join(("not every silo accepts this plan:", *denials(state))),
            where=state.job,
            remedy="change the plan, or ask the administrators of those silos; plan forecast says more",
        )
    return JobFailedError(
        f"the job ended as {state.outcome}: {state.reason}", where=state.job, remedy="submit the plan again"
    )


def denials(state: JobState) -> Iterator[str]:
    """One sentence for each silo that said no."""
    for envelope in state.roster_posts(PostKind.DENIAL):
        reasons = (f"{reason.code} ({reason.field})" for reason in envelope.content(Denial).reasons)
        yield f"{envelope.sender} refuses: {', '.join(reasons)}"


def progress_line(state: JobState) -> str:
    """A job in one line."""
    if state.phase is Phase.ENDED:
        return f"{state.outcome}: {state.reason}"
    place = f"round {state.round} of {state.num_rounds}, attempt {state.attempt}: " if state.round else ""
    return place + IN_WORDS[state.phase]


def table(state: JobState) -> Group:
    """A job as a table of its silos, with its name above and its state below."""
    from rich.console import Group
    from rich.table import Table

    view = Table()
    for heading in ("silo", "answer", "contributed", "said last"):
        view.add_column(heading, justify="right" if heading == "contributed" else "left")
    for silo, about in describe(state)["silos"].items():
        answer = about["answer"] or "…"
        if about["reasons"]:
            answer += ": " + ", ".join(f"{r['code']} ({r['field']})" for r in about["reasons"])
        view.add_row(silo, answer, f"{about['stream_bytes']:,} B", about["last_post"] or "…")
    return Group(f"job {state.job}", view, progress_line(state))


def list_table(states: list[JobState]) -> Table:
    """Many jobs, one line each."""
    from rich.table import Table

    view = Table()
    for heading in ("job", "submitted (UTC)", "by", "family", "silos", "state"):
        view.add_column(heading)
    for state in states:
        about = describe(state)
        submitted = about["submitted_at"][:16].replace("T", " ")
        silos = ", ".join(state.roster)
        outcome = state.outcome or progress_line(state)
        view.add_row(state.job[:12], submitted, state.proposer, about["family"], silos, outcome)
    return view


def _describe_silo(state: JobState, silo: str) -> dict[str, Any]:
    acceptance = state.post(PostKind.ACCEPTANCE, silo)
    denial = state.post(PostKind.DENIAL, silo)
    mine = [(place, envelope) for place, envelope in state.posts.items() if place.sender == silo]
    streams = [envelope.content(Stream) for place, envelope in mine if place.kind is PostKind.STREAM]
    last = [place.kind.value for place, _ in mine if place.kind is not PostKind.PROPOSAL][-1:]
    return {
        "answer": "accepted" if acceptance else "denied" if denial else None,
        "policy_version": acceptance.content(Acceptance).policy_version if acceptance else None,
        "reasons": [r.model_dump() for r in denial.content(Denial).reasons] if denial else [],
        "stream_bytes": sum(item.num_bytes for item in streams),
        "last_post": last[0] if last else None,
    }
