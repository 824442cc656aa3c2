"""``archipel adapt``: follow new interactions without spending, and say when that is no longer enough."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say


@command
def adapt(
    directory: Dir = HERE,
    job: Annotated[
        str | None, typer.Option("--job", help="Look at this job's model; default: the newest.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Rows from here on are new, UTC; default: since the job's last contribution.",
        ),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Learn local parts anew where they have fallen behind.")
    ] = False,
    propose: Annotated[
        Path | None,
        typer.Option(help="Write the next plan here, if the federated part has aged.", metavar="FILE"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Follow new interactions, and measure how far they have moved from the model. Costs no epsilon.

    `archipel adapt` only looks. `archipel adapt --refresh --propose plan-next.yaml` learns local parts anew
    and, if the federated part has aged, writes a plan to train it again.
    """
    from policies.plans.commands import PlanExistsError
    from silo.adapting.showing import describe

    if propose is not None and propose.exists() and not force:
        raise PlanExistsError("it exists already", where=str(propose), remedy="name another, or --force")
    found = _look(directory, job, since, refresh=refresh)
    found["proposal"] = _propose(directory, job, propose) if found["reasons"] else None
    for part in describe(found):
        say(part)
    if found["proposal"]:
        say(f"{propose}: a plan to train again. Submitting it tells the others that you think so.")
        say(f"Ask what it costs each silo: archipel plan forecast {propose}")
    elif found["reasons"]:
        say("`--propose FILE` writes a plan to train again; it costs epsilon as every plan does.")
    emit_json(found, json_file)


def _look(directory: Path, job: str | None, since: datetime | None, *, refresh: bool) -> dict[str, Any]:
    """Measure, and look at local parts or learn them anew."""
    from silo.adapting.drift import measure
    from silo.adapting.refreshing import refresh as refresh_local
    from silo.adapting.windows import load_windows, training_time
    from silo.finished import load_finished
    from silo.site import utc_now

    finished = load_finished(directory, job)
    start = training_time(directory, finished.job) if since is None else since.replace(tzinfo=UTC)
    with progress("reading rows") as advance:

        def notice(what: str) -> None:
            advance(0, description=what)

        windows = load_windows(directory, finished, start)
        notice("measuring")
        found: dict[str, Any] = {
            "job": finished.job,
            "family": finished.plan.model.family,
            "since": start.isoformat(timespec="seconds"),
            "epsilon": 0.0,
            **measure(finished.recommender, windows),
        }
        found["local"] = refresh_local(
            directory, finished.dataset_name, utc_now(), keep=refresh, notice=notice
        )
    return found


def _propose(directory: Path, job: str | None, target: Path | None) -> str | None:
    """Write the next plan where one is wanted."""
    from silo.adapting.refreshing import next_plan
    from silo.finished import load_finished
    from silo.tuning.proposal import write_plan

    if target is None:
        return None
    write_plan(next_plan(directory, load_finished(directory, job)), target)
    return str(target)
