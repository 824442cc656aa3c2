"""A job's state for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from federation.duties import Duty, duty
from federation.job_state import IN_LEG, IN_ROUND, JobState, Phase
from federation.legs.legs import LegPurpose, leg_at, spine_of
from federation.messages import Absence, Acceptance, Approval, Denial, PostKind
from federation.progress import epsilon_spent, stream_bytes, sum_bytes
from policies.plans.summary import byte_size
from privacy.errors import ArchipelError, DeniedError, PeerError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

IN_WORDS: dict[Phase, str] = {
    Phase.PROPOSED: "waiting for every silo to accept or deny the plan",
    Phase.STARTING: "silos make the keys of this job",
    Phase.KEYING: "the leader hands out the job's key, wrapped",
    Phase.FINGERPRINTING: "silos compare the key's fingerprint",
    Phase.PAUSED: "paused; archipel job resume lets it go on",
    Phase.EXCHANGING: "silos make the mask keys of this round",
    Phase.COLLECTING: "silos contribute, the coordinator adds ciphertexts",
    Phase.RECEIVING: "silos fetch the sum and compare what they got",
    Phase.OPENING: "silos open the sum",
    Phase.SENDING: "silos send",
    Phase.APPROVING: "enough people are in common; every silo approves, or ends the job",
    Phase.FETCHING: "silos fetch what is for them",
    Phase.CLOSING: "silos make the model and close their ledgers",
    Phase.WITNESSING: "silos countersign each other's ledgers",
    Phase.ENDED: "ended",
}

DUTIES_IN_WORDS: dict[Duty, str] = {
    Duty.ANSWER: "accepts or denies the plan",
    Duty.START: "makes its keys",
    Duty.WRAP: "hands out the job's key",
    Duty.FINGERPRINT: "compares the key's fingerprint",
    Duty.CONTRIBUTE: "makes its contribution",
    Duty.PROTECT: "masks and encrypts",
    Duty.UPLOAD: "uploads",
    Duty.RECEIVE: "fetches the sum",
    Duty.OPEN: "opens the sum",
    Duty.REPAIR: "opens the sum again: it differs from all others",
    Duty.RETURN: "catches up",
    Duty.SEND: "makes what it sends",
    Duty.APPROVE: "approves the alignment (archipel align)",
    Duty.FETCH: "fetches what is for it",
    Duty.HEAD: "makes the model",
    Duty.RECEIPTS: "countersigns the ledgers",
    Duty.FINISH: "clears up",
}


class JobDeniedError(DeniedError):
    """At least one silo's policy or budget refused the plan."""

    code: ClassVar[str] = "job_denied"


class JobFailedError(PeerError):
    """The job ended before its last round."""

    code: ClassVar[str] = "job_failed"


def describe(state: JobState, *, seconds_left: float | None = None) -> dict[str, Any]:
    """A job as JSON values; everything in it is public among its parties.

    Args:
        state: the job.
        seconds_left: until the rounds are over, where somebody has guessed
            (:class:`~federation.progress.Pace`).
    """
    privacy = state.plan.privacy
    return {
        "job": state.job,
        "proposer": state.proposer,
        "submitted_at": state.proposal.submitted_at,
        "purpose": state.plan.purpose,
        "family": state.plan.model.family,
        "plan_sha256": state.plan_sha256,
        "phase": state.phase.value,
        "round": state.round,
        "num_rounds": state.num_rounds,
        "attempt": state.attempt,
        "leg": state.leg.in_words if state.phase in IN_LEG else None,
        "rounds_opened": len(state.opened),
        "burned": state.burned,
        "max_burned_rounds": state.plan.training.max_burned_rounds,
        "given_up_by": state.given_up_by,
        "paused": state.is_paused,
        "absent": [silo for silo in state.roster if silo in state.absent],
        "absences": list(absences(state)),
        "repairs": list(repairs(state)),
        "epsilon_spent": epsilon_spent(state),
        "target_epsilon": privacy.target_epsilon,
        "target_delta": privacy.target_delta,
        "seconds_left": seconds_left,
        "outcome": state.outcome,
        "reason": state.reason,
        "silos": {silo: _describe_silo(state, silo) for silo in state.roster},
        "catalogue_bytes": state.proposal.catalogue_bytes,
        "stream_bytes": sum(stream_bytes(state, silo) for silo in state.roster),
        "sum_bytes": sum_bytes(state),
    }


def absences(state: JobState) -> Iterator[dict[str, Any]]:
    """Who was declared absent and where, oldest first; round 0 stands for the closing of the job."""
    for place, envelope in state.posts.items():
        if place.kind is PostKind.ABSENCE:
            silos = list(envelope.content(Absence).silos)
            yield {"round": place.round, "attempt": place.attempt, "silos": silos}


def repairs(state: JobState) -> Iterator[dict[str, Any]]:
    """Which silo opened other integers than all others, and then the same."""
    for place in state.posts:
        if place.kind is PostKind.REPAIRED:
            yield {"round": place.round, "attempt": place.attempt, "silo": place.sender}


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
    rounds = 0 if state.plan.is_vertical else len(state.opened)
    kept = f"silos keep the model after {rounds} of {state.num_rounds} rounds; " if rounds else ""
    return JobFailedError(
        f"the job ended as {state.outcome}: {state.reason}",
        where=state.job,
        remedy=f"{kept}submit the plan again",
    )


def denials(state: JobState) -> Iterator[str]:
    """One sentence for each silo that said no."""
    for envelope in state.roster_posts(PostKind.DENIAL):
        reasons = (f"{reason.code} ({reason.field})" for reason in envelope.content(Denial).reasons)
        yield f"{envelope.sender} refuses: {', '.join(reasons)}"
    for place, envelope in state.posts.items():
        if place.kind is PostKind.APPROVAL and not envelope.content(Approval).approved:
            yield f"{place.sender} does not approve that people are aligned"


def progress_line(state: JobState) -> str:
    """A job in one line."""
    if state.phase is Phase.ENDED:
        return f"{state.outcome}: {state.reason}"
    words = IN_WORDS[state.phase]
    if state.phase is Phase.PAUSED:
        return f"before {_here(state)}: {words}"
    if state.phase is Phase.SENDING and state.leg.purpose is LegPurpose.BLINDED:
        words = f"{words}, the coordinator finds whom they have in common"
    if state.phase not in IN_ROUND:
        return words
    attempt = "" if state.plan.is_vertical else f", attempt {state.attempt}"
    return f"{_here(state)}{attempt}: {words}"


def _here(state: JobState) -> str:
    """The round, or the leg, in words."""
    if not state.plan.is_vertical:
        return f"round {state.round} of {state.num_rounds}"
    leg = leg_at(state.plan, state.round, state.spine_slots)
    of = f"{state.num_rounds}" if spine_of(state.plan, state.spine_slots) else "as yet unknown"
    return f"{leg.in_words} (leg {state.round} of {of})"


def milestone_line(state: JobState, seconds_left: float | None) -> str:
    """The same for a log, one line for each :func:`milestone`: what it has cost so far, not each step."""
    if state.phase not in IN_ROUND:
        return "; ".join((progress_line(state), *_facts(state, seconds_left)))
    attempt = f", attempt {state.attempt}" if state.attempt > 1 else ""
    return "; ".join((f"{_here(state)}{attempt}", *_facts(state, seconds_left)))


def milestone(state: JobState) -> tuple[object, ...]:
    """What has to change before a log gets a further line: not every post of a round."""
    phase = Phase.EXCHANGING if state.phase in IN_ROUND else state.phase
    return phase, state.round, state.attempt, state.absent, state.is_paused


def table(state: JobState, seconds_left: float | None = None) -> Group:
    """A job as a table of its silos, with its name above and its state below."""
    from rich.console import Group
    from rich.table import Table

    view = Table()
    for heading in ("silo", "answer", "contributed", "bytes", "does now"):
        view.add_column(heading, justify="right" if heading in ("contributed", "bytes") else "left")
    for silo in state.roster:
        about = _describe_silo(state, silo)
        answer = about["answer"] or "…"
        if about["reasons"]:
            answer += ": " + ", ".join(f"{r['code']} ({r['field']})" for r in about["reasons"])
        times = f"{about['contributions']:,}"
        view.add_row(silo, answer, times, f"{about['stream_bytes']:,}", _now(state, silo))
    return Group(f"job {state.job}", view, progress_line(state), *_facts(state, seconds_left))


def _now(state: JobState, silo: str) -> str:
    """What a silo is doing, in words."""
    due = duty(state, silo)
    said = ["absent"] if silo in state.absent else []
    if due is not None and state.phase is not Phase.ENDED:
        said.append(DUTIES_IN_WORDS[due])
    return ", ".join(said)


def _facts(state: JobState, seconds_left: float | None) -> Iterator[str]:
    """What a job has cost, what happened on the way, and how long it still takes."""
    if state.round:
        spent, privacy = epsilon_spent(state), state.plan.privacy
        yield f"epsilon {spent:.3g} of {privacy.target_epsilon:g} (delta {privacy.target_delta:g})"
        num_bytes = sum(stream_bytes(state, silo) for silo in state.roster)
        sums = "" if state.plan.is_vertical else f", {byte_size(sum_bytes(state))} of sums"
        yield f"{byte_size(num_bytes)} contributed{sums}"
    if state.burned:
        by = ", ".join(f"{silo} {count}" for silo, count in state.given_up_by.items())
        yield f"burned {state.burned} ({by}), {state.plan.training.max_burned_rounds} are paid for"
    if state.absent:
        yield f"absent: {', '.join(silo for silo in state.roster if silo in state.absent)}"
    if state.is_paused and state.phase not in (Phase.PAUSED, Phase.ENDED):
        yield f"will pause before the next {'leg' if state.plan.is_vertical else 'round'}"
    repaired = [f"{about['silo']} in round {about['round']}" for about in repairs(state)]
    if repaired:
        yield f"opened other integers first, then the same: {', '.join(repaired)}"
    if seconds_left is not None:
        yield f"about {_duration(seconds_left)} left"


def _duration(seconds: float) -> str:
    """A time for people, without false precision."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def list_table(states: list[JobState]) -> Table:
    """Many jobs, one line each."""
    from rich.table import Table

    view = Table()
    for heading in ("job", "submitted (UTC)", "by", "family", "silos", "state"):
        view.add_column(heading)
    for state in states:
        submitted = state.proposal.submitted_at[:16].replace("T", " ")
        silos, family = ", ".join(state.roster), state.plan.model.family
        outcome = state.outcome or progress_line(state)
        view.add_row(state.job[:12], submitted, state.proposer, family, silos, outcome)
    return view


def _describe_silo(state: JobState, silo: str) -> dict[str, Any]:
    acceptance = state.post(PostKind.ACCEPTANCE, silo)
    denial = state.post(PostKind.DENIAL, silo)
    mine = [place for place in state.posts if place.sender == silo]
    last = [place.kind.value for place in mine if place.kind is not PostKind.PROPOSAL][-1:]
    due = duty(state, silo)
    return {
        "answer": "accepted" if acceptance else "denied" if denial else None,
        "policy_version": acceptance.content(Acceptance).policy_version if acceptance else None,
        "reasons": [r.model_dump() for r in denial.content(Denial).reasons] if denial else [],
        "contributions": sum(place.kind is PostKind.STREAM for place in mine),
        "stream_bytes": stream_bytes(state, silo),
        "absent": silo in state.absent,
        "duty": due.value if due else None,
        "last_post": last[0] if last else None,
    }
