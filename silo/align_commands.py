"""``archipel align``: who was found in common with whom, how often more, and the word of our own people."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from silo.alignments import Alignment, Runs

align_app = typer.Typer(
    no_args_is_help=True, help="Finding people in common: what was found, how often more, and approval."
)
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or its first characters.")]


@align_app.callback()
def _group() -> None:
    """Finding people in common: what was found, how often more, and approval."""


@align_app.command("list")
@command
def list_command(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """List this silo's alignments, oldest first, and how many more its policy allows now."""
    from silo.alignments import alignments, runs
    from silo.site import Site

    with Site(directory) as site:
        found, left = alignments(site), runs(site)
    if found:
        say(_table(found))
    else:
        say("nobody has been aligned here yet")
    say(_runs_in_words(left))
    for one in found:
        if one.approval == "waits":
            say.warn(
                f"{one.job[:12]} waits for a decision: archipel align show {one.job[:8]} --dir {directory}"
            )
    emit_json({"alignments": [asdict(one) for one in found], "runs": _runs_json(left)}, json_file)


@align_app.command("show")
@command
def show_command(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Show one alignment: its terms, who learns what of it, and whether somebody here is asked."""
    from policies.explain_alignment import LIMITS
    from policies.files import load_yaml
    from policies.plans.plan import Plan
    from policies.plans.vertical.reveals import describe_disclosures, disclosures
    from silo.alignments import find
    from silo.site import Site

    with Site(directory) as site:
        one = find(site, job)
        plan = load_yaml(site.directory / "jobs" / one.job / "plan.yaml", Plan)
        remarks = site.remarks(one.job)
    for line in (*_in_words(one), *remarks, *describe_disclosures(plan), *LIMITS):
        say(line)
    if one.approval == "waits":
        say(f"Next: archipel align approve {one.job[:8]} --dir {directory}, or refuse")
    shown = [asdict(item) for item in disclosures(plan)]
    emit_json({**asdict(one), "rows": remarks, "disclosures": shown, "limits": list(LIMITS)}, json_file)


@align_app.command()
@command
def approve(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Let this silo take its slots, once all others do too; for policies with alignment.approval: ask."""
    _decide(job, directory, json_file, is_approved=True)


@align_app.command()
@command
def refuse(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """End the job before anybody has slots; what the alignment cost stays spent."""
    _decide(job, directory, json_file, is_approved=False)


def _decide(job: str, directory: Path, json_file: str | None, *, is_approved: bool) -> None:
    from silo.alignments import find, require_undecided
    from silo.jobs.approval import write_decision
    from silo.site import Site

    with Site(directory) as site:
        one = require_undecided(find(site, job))
        write_decision(site, one.job, is_approved=is_approved)
    when = "the agent says so now" if one.approval == "waits" else "the agent says so when it is asked"
    what = "approved" if is_approved else "refused"
    say(f"{what} the alignment of job {one.job}; {when}")
    if one.approval == "asked later" and not is_approved:
        say(f"To stop it now, before more is spent: archipel job cancel {one.job[:8]} --dir {directory}")
    emit_json({"job": one.job, "decision": what, "was": one.approval}, json_file)


def _table(found: tuple[Alignment, ...]) -> Table:
    from rich.table import Table

    view = Table()
    for heading in ("job", "accepted (UTC)", "role", "slots", "with"):
        view.add_column(heading, no_wrap=heading != "with")
    view.add_column("approval, state")
    for one in found:
        slots = "…" if one.slots is None else f"{one.slots:,}"
        view.add_row(
            one.job[:8], one.reserved_at[:16].replace("T", " "), one.role, slots, "\n".join(one.partners),
            f"{one.approval}\n{_state(one)}",
        )  # fmt: skip
    return view


def _state(one: Alignment) -> str:
    return one.outcome or one.leg or one.phase or "accepted"


def _runs_in_words(left: Runs) -> str:
    if left.allowed is None:
        return "the policy in force aligns nobody"
    return f"{left.left} more in {left.days} days: {left.used} of {left.allowed} are used"


def _runs_json(left: Runs) -> dict[str, Any]:
    return {**asdict(left), "left": left.left}


def _in_words(one: Alignment) -> list[str]:
    sizes = ", ".join(f"{silo} {size:,}" for silo, size in one.capacities.items())
    slots = "not known yet" if one.slots is None else f"{one.slots:,} slots"
    left = f"this silo's list left at {one.charged_at}" if one.charged_at else "this silo's list never left"
    ended = f" ({one.reason})" if one.outcome and one.reason else ""
    return [
        f"job {one.job}: {_state(one)}{ended}",
        f"this silo is a {one.role} silo, with {', '.join(one.partners)}",
        f"accepted at {one.reserved_at}; {left}, for epsilon {one.epsilon:g}",
        f"lists are filled up to: {sizes}; the spine has {slots}; reveal: {one.reveal}",
        f"it goes on with about {one.min_intersection:,} people in common; approval here: {one.approval}",
    ]
