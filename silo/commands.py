"""``archipel silo …``, ``recommend``, ``evaluate`` and ``plan forecast``: what an institution types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say

POLICY_DAYS = 365

silo_app = typer.Typer(no_args_is_help=True, help="Run this organisation's silo agent.")
checkpoint_app = typer.Typer(no_args_is_help=True, help="Weights that a later job can start from.")
silo_app.add_typer(checkpoint_app, name="checkpoint")

Name = Annotated[str, typer.Option(help="The organisation's name in the federation, such as shop-a.")]
JobOption = Annotated[str | None, typer.Option("--job", help="Use this job's model; default: the newest.")]


@silo_app.command()
@command
def init(
    name: Name,
    directory: Dir = HERE,
    template: Annotated[str, typer.Option(help="Policy to start from.")] = "retailer",
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make this organisation's keys, a commented policy.yaml and a public card.json."""
    from federation.identity import make_party
    from policies.catalog import render_template
    from policies.files import write_atomically
    from policies.schema import write_schema
    from silo.config import DEFAULT_AGENT_TOML

    expires = datetime.now(UTC).date() + timedelta(days=POLICY_DAYS)
    policy = render_template(template, silo=name, expires=expires)
    directory.mkdir(parents=True, exist_ok=True)
    party = make_party(directory, name, "silo")
    for path, text in ((directory / "policy.yaml", policy), (directory / "agent.toml", DEFAULT_AGENT_TOML)):
        if not path.exists():
            write_atomically(path, text.encode())
    write_schema("policy", directory / "policy.schema.json")
    say(f"{name}: keys are in {directory / 'keys'} and never leave it.")
    say(f"Next: edit {directory / 'policy.yaml'}; send {directory / 'card.json'} to the charter's drafter;")
    say(f"when the charter comes back: archipel charter sign charter.yaml --dir {directory}")
    say(f"and when all members have signed: archipel silo join charter.yaml --dir {directory}")
    emit_json(
        {"name": name, "identity_key": str(party.identity.public_key), "directory": directory}, json_file
    )


@silo_app.command()
@command
def join(
    charter: Annotated[Path, typer.Argument(help="The charter that every member signed.")],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check the charter and this silo's policy, then sign the policy: afterwards `silo run` works."""
    from silo.joining import join as join_federation

    joined = join_federation(directory, charter)
    say(f"{joined.silo} has joined {joined.charter.name}: {len(joined.charter.members)} members, "
        f"in force until {joined.charter.expires}.")  # fmt: skip
    say(f"policy.yaml version {joined.policy.version} is signed. Next: archipel silo run --dir {directory}")
    for warning in joined.policy.warnings():
        say.warn(warning)
    emit_json(
        {"silo": joined.silo, "charter": joined.charter.name, "policy_version": joined.policy.version},
        json_file,
    )


@silo_app.command()
@command
def run(directory: Dir = HERE, debug: Debug = False) -> None:
    """Run the agent until it is stopped (SIGTERM, Ctrl-C); it dials out only and survives everything."""
    import asyncio

    from silo.running import run_agent

    asyncio.run(run_agent(directory))


@silo_app.command()
@command
def status(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Say how things stand: policy, days to expiry, budgets, jobs, and whether the coordinator answers."""
    import asyncio

    from silo.status import describe, gather

    found = asyncio.run(gather(directory))
    for part in describe(found):
        say(part)
    emit_json(found, json_file)


@silo_app.command()
@command
def pause(directory: Dir = HERE, debug: Debug = False) -> None:
    """Take no new steps in any job until `silo resume`; the agent keeps running."""
    from federation.identity import Party

    Party.load(directory)
    (directory / "paused").touch()
    say("Paused: running steps finish, no new ones begin. `archipel silo resume` goes on.")


@silo_app.command()
@command
def resume(directory: Dir = HERE, debug: Debug = False) -> None:
    """Go on after `silo pause`."""
    from federation.identity import Party

    Party.load(directory)
    (directory / "paused").unlink(missing_ok=True)
    say("Resumed.")


@checkpoint_app.command("add")
@command
def add_checkpoint(
    file: Annotated[Path, typer.Argument(help="A checkpoint.safetensors of an earlier job.")],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check a checkpoint and keep it here, for plans whose model.start_from names its SHA-256."""
    from federation.identity import Party
    from silo.checkpoints import add_checkpoint as keep

    Party.load(directory)
    sha256, path = keep(directory, file)
    say(f"{path} is ready for plans that say `start_from: {sha256}`.")
    say("Each silo of such a plan needs the same file; a job's own checkpoint is found without adding it.")
    emit_json({"sha256": sha256, "path": path}, json_file)


@command
def recommend(
    user: Annotated[str, typer.Option("--user", help="User id, as in this silo's own data.")],
    directory: Dir = HERE,
    k: Annotated[int, typer.Option("-k", help="Length of the list.")] = 20,
    job: JobOption = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Recommend items to one of this silo's users; someone unknown gets the popularity list, marked so."""
    from dataclasses import asdict

    from rich.table import Table

    from silo.finished import load_finished
    from silo.rows import all_rows
    from silo.serving import recommend as rank

    finished = load_finished(directory, job)
    ranked = rank(
        finished.recommender,
        finished.catalogue,
        all_rows(directory, finished.plan, finished.dataset),
        user,
        k,
    )
    notes = {
        "unknown-user": "no history of this user here: the popularity list",
        "model": "the model found popularity no worse: the popularity list",
    }
    table = Table("rank", "item_id", "title", "score")
    for row in ranked.rows:
        table.add_row(str(row.rank), row.item_id, row.title, f"{row.score:.4g}")
    say(f"for {user}, by job {finished.job}")
    if finished.note is not None:
        say.warn(f"this model is of a job that did not run to its end: {finished.note}")
    say(table)
    if ranked.fallback is not None:
        say.warn(notes[ranked.fallback])
    emit_json(
        {
            "job": finished.job,
            "user_id": user,
            "fallback": ranked.fallback,
            "items": [asdict(row) for row in ranked.rows],
        },
        json_file,
    )


@command
def evaluate(
    directory: Dir = HERE, job: JobOption = None, json_file: Json = None, debug: Debug = False
) -> None:
    """Measure a model on this silo's own held-out rows. The figures stay here: nothing is released."""
    from rich.table import Table

    from privacy.errors import DataError
    from silo.evaluation import evaluate as measure
    from silo.finished import load_finished
    from silo.rows import load_rows

    finished = load_finished(directory, job)
    if finished.plan.holdout.kind == "none":
        raise DataError(
            "this job's plan held no rows out, so there is nothing to measure on",
            where=f"job {finished.job}: holdout.kind",
            remedy="propose a plan with holdout: {kind: random, fraction: 0.2, seed: 7}",
        )
    with progress("ranking"):
        rows = load_rows(directory, finished.plan, finished.dataset)
        metrics = measure(finished.recommender, rows.train, rows.held_out)
    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    say(f"job {finished.job}, this silo's own users")
    say(table)
    say("Measured on private rows without noise: for this organisation only.")
    emit_json({"job": finished.job, "metrics": metrics}, json_file)


@command
def forecast(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    for_epsilon: Annotated[
        float | None, typer.Option(help="Which noise would the plan need to cost this epsilon?")
    ] = None,
    rounds_for_epsilon: Annotated[
        float | None, typer.Option(help="How many training rounds would cost this epsilon, at its noise?")
    ] = None,
    requirements: Annotated[
        list[Path] | None,
        typer.Option(help="What members published (policy publish): files, directories.", metavar="PATH"),
    ] = None,
    probe: Annotated[bool, typer.Option(help="Time some steps of a trained plan on this machine.")] = True,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Show what a plan would cost and whether this silo would accept it, before anything is touched."""
    from silo.forecast import Questions, forecast_plan
    from silo.forecast_text import describe

    questions = Questions(
        for_epsilon=for_epsilon,
        rounds_for_epsilon=rounds_for_epsilon,
        is_timed=probe,
        requirements=tuple(requirements or ()),
    )
    found: dict[str, Any] = forecast_plan(directory, plan, questions)
    for part in describe(found):
        say(part)
    emit_json(found, json_file)
