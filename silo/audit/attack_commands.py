"""``archipel audit attack``: adversaries at work on what a real job left."""

from __future__ import annotations

import enum
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import Debug, Json, command, emit_json, progress, say

if TYPE_CHECKING:
    from silo.audit.attack.results import AttackReport


class AttackName(enum.StrEnum):
    """Attacks that may be run alone."""

    CANARIES = "canaries"
    MEMBERSHIP = "membership"
    COLLUSION = "collusion"
    TAMPERING = "tampering"
    KEYS = "keys"


@command
def attack_command(
    recording: Annotated[
        Path,
        typer.Option(
            "--recording", help="What `archipel demo --record` wrote.", metavar="DIR", file_okay=False
        ),
    ],
    only: Annotated[list[AttackName] | None, typer.Option("--only", help="This attack; repeatable.")] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Attack a recorded job; lower bounds of epsilon beside the claim (exit code 4 where one succeeds)."""
    from silo.audit.attack.run import attack

    with progress("reading the recording") as advance:

        def report(text: str) -> None:
            """A moving bar for whoever watches, lines for a log."""
            advance(description=text)
            if not sys.stderr.isatty():
                say(f"… {text}")

        found = attack(recording, report, tuple(name.value for name in only or ()))
    emit_json(found, json_file)
    say(_table(found))
    say(
        f"job {found.job[:12]}, {found.family}: claimed epsilon {found.claimed_epsilon:.4g} at delta "
        f"{found.delta:.2g} for {found.unit}. Bounds hold with {found.confidence:.1%} confidence, one-sided; "
        f"helping the coordinator: {', '.join(found.colluders)}"
    )
    for item in found.findings:
        say(f"{item.severity}[{item.code}] {item.where}: {item.text}")
    found.accepted()
    say("no attack succeeded; that says nothing about attacks that were not tried")


def _table(found: AttackReport) -> Any:
    """One line a trial, by attack."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("tried", ratio=3)
    drawn.add_column("came to", ratio=3)
    for name in ("epsilon ≥", "claimed", "stands"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for attack, trials in groupby(found.trials, key=lambda trial: trial.attack):
        drawn.add_row(attack, style="bold")
        for trial in trials:
            drawn.add_row(
                f"  {trial.tried}",
                trial.came_to,
                "" if trial.epsilon_lower_bound is None else f"{trial.epsilon_lower_bound:.3g}",
                "" if trial.claimed_epsilon is None else f"{trial.claimed_epsilon:.3g}",
                "yes" if trial.stands else "NO",
            )
    return drawn
