"""``archipel recommend``: one person's list, or everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say
from privacy.errors import UsageError

JobOption = Annotated[str | None, typer.Option("--job", help="Use this job's model; default: the newest.")]


@command
def recommend(
    user: Annotated[str | None, typer.Option("--user", help="User id, as in this silo's own data.")] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Write the lists of everybody with a history here into --out.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="With --all: new file, .parquet or .csv. Never replaced.", metavar="FILE"),
    ] = None,
    directory: Dir = HERE,
    k: Annotated[int, typer.Option("-k", help="Length of the list.")] = 20,
    job: JobOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="blend, federated, tuned or local:NAME; default: the blend where one is kept."),
    ] = None,
    explain: Annotated[
        int,
        typer.Option(
            help="Say in words why, for so many items of the list: written here by a small text model "
            "(archipel silo encoder convert), from item texts and this person's history.",
            min=0,
            max=20,
        ),
    ] = 0,
    consent: Annotated[
        list[str] | None,
        typer.Option(help="File with a feature silo's token of this person; - is standard input."),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(help="The token itself, or SILO=TOKEN; others on this machine may see it."),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Recommend items to one of this silo's users; someone unknown gets the popularity list, marked so.

    With --all: a table of user_id, item_id, score, rank and is_new, readable by its owner only.
    """
    from silo.recommending import describe, warnings

    if everybody:
        if user is not None or out is None or consent or token or explain:
            raise UsageError(
                "everybody's lists go into a file, ask no partner and are not explained",
                where="--all",
                remedy="write --all --out FILE.parquet, without --user, --consent, --token and --explain",
            )
        _recommend_all(directory, job, k, model, out, json_file)
        return
    if user is None or out is not None:
        raise UsageError(
            "say for whom", where="--user, --all", remedy="--user ID, or --all --out FILE.parquet"
        )
    found = _recommend_one(directory, job, user, k, model, explain, consent or [], token or [])
    for part in describe(found):
        say(part)
    for warning in warnings(found):
        say.warn(warning)
    emit_json(found, json_file)


def _explained(
    directory: Path, job: str | None, user: str, k: int, model: str | None, explain: int
) -> dict[str, Any]:
    from silo.recommending import recommend_alone

    if not explain:
        return recommend_alone(directory, job, user, k, model)
    with progress("reading the text model") as advance:

        def notice(done: int, items: int) -> None:
            advance.total(items)
            advance(description=f"explaining: {done} of {items} items")

        return recommend_alone(directory, job, user, k, model, explained=explain, notice=notice)


def _recommend_one(
    directory: Path,
    job: str | None,
    user: str,
    k: int,
    model: str | None,
    explain: int,
    files: list[str],
    words: list[str],
) -> dict[str, Any]:
    """One person's list, with what partners say where the job is vertical."""
    import asyncio

    from silo.vertical.serving.desk import find_vertical_job, serve

    vertical = None if model is not None else find_vertical_job(directory, job)
    if vertical is not None and explain:
        raise UsageError(
            "lists of a vertical job are not explained: features of others are in them",
            where="--explain",
            remedy="leave it out, or name a horizontal job with --job",
        )
    if vertical is not None:
        served = asyncio.run(serve(directory, vertical, user, k, files=files, words=words))
        return served.to_json(user)
    if files or words:
        raise UsageError(
            "tokens are for the model of a vertical job, and this is none",
            where="--consent, --token",
            remedy="leave them out, or name the job with --job and no --model",
        )
    return _explained(directory, job, user, k, model, explain)


def _recommend_all(
    directory: Path, job: str | None, k: int, model: str | None, out: Path, json_file: str | None
) -> None:
    from silo.recommending_all import recommend_all

    with progress("making lists") as advance:

        def notice(done: int, people: int) -> None:
            advance.total(people)
            advance(0, description=f"making lists: {done:,} of {people:,} people")

        written = recommend_all(directory, job, k, model, out, notice=notice)
    served = written.served
    say(f"{out}: {written.rows:,} rows for {written.users:,} people, by {served.name}; for its owner only")
    if served.private_parts:
        say(f"  private to this silo, made of its rows without noise: {', '.join(served.private_parts)}")
    emit_json(
        {
            "path": out,
            "model": served.name,
            "jobs": list(served.jobs),
            "private_parts": list(served.private_parts),
            "users": written.users,
            "rows": written.rows,
        },
        json_file,
    )
