"""``archipel coordinator`` and ``archipel job``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

if TYPE_CHECKING:
    from federation.client import Board
    from federation.identity import Party
    from federation.rounds import JobState
    from federation.transport.base import Connection
    from policies.charters.charter import Charter

coordinator_app = typer.Typer(
    no_args_is_help=True, help="Run the hub that relays signed posts and adds ciphertexts."
)
job_app = typer.Typer(no_args_is_help=True, help="Propose plans to the federation and follow them.")

T = TypeVar("T")
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, or its first characters.")]


@coordinator_app.command()
@command
def init(
    *,
    name: Annotated[str, typer.Option(help="The coordinator's name in the charter.")] = "hub",
    host: Annotated[str, typer.Option(help="Where silos reach it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Likewise.")] = 8443,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make the coordinator's keys and its card."""
    from federation.identity import make_party
    from federation.listening import save_listen_address

    party = make_party(directory, name, "coordinator", host=host, port=port)
    save_listen_address(directory, host, port)
    say(f"made coordinator {name} in {directory}")
    say(f"Next: give {directory / 'card.json'} to whoever drafts the charter (archipel charter new);")
    say(f"put the signed charter.yaml and charter.sig.json into {directory}, then")
    say(f"  archipel coordinator run --dir {directory}")
    emit_json({"name": party.name, "role": party.role, "card": str(directory / "card.json")}, json_file)


@coordinator_app.command()
@command
def rekey(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Make the coordinator's next TLS key; the present one serves until an amendment pins the other."""
    make_next_key(directory, "--coordinator", "archipel charter install", json_file)


def make_next_key(directory: Path, option: str, install: str, json_file: str | None) -> None:
    """What both ``rekey`` commands do and say.

    Args:
        directory: the party's.
        option: of ``charter amend``, for its card.
        install: the command that puts the amendment, and the key, into place.
        json_file: see ``--json``.
    """
    from federation.rekeying import rekey as make
    from policies.files import NEXT_CARD, NEXT_TLS

    card = make(directory)
    say(
        f"{card.name}: the next TLS key is {directory / NEXT_TLS}, its certificate {card.certificate_sha256}."
    )
    say("The present one serves until an amendment of the charter pins the next. Next:")
    say(f"  archipel charter amend {option} {directory / NEXT_CARD}, signed by the members as any amendment,")
    say(f"  then {install} charter.yaml --dir {directory}, which puts the key into place")
    found = {"name": card.name, "card": str(directory / NEXT_CARD), "sha256": card.certificate_sha256}
    emit_json(found, json_file)


@coordinator_app.command()
@command
def run(
    host: Annotated[str | None, typer.Option(help="Listen there instead of as in agent.toml.")] = None,
    port: Annotated[int | None, typer.Option(help="Likewise.", min=0, max=65_535)] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Serve until SIGTERM (exit 0) or Ctrl-C (exit 130)."""
    import asyncio

    from federation.listening import serve

    def announce(name: str, where: str, bound: int) -> None:
        say(f"coordinator {name} listens at {where}:{bound}")
        emit_json({"name": name, "host": where, "port": bound}, json_file)

    if asyncio.run(serve(directory, host=host, port=port, announce=announce)):
        raise KeyboardInterrupt


@job_app.command()
@command
def submit(
    *,
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.yaml")],
    catalogue: Annotated[
        Path | None, typer.Option(help="The plan's catalogue; by default DIR/catalogues/<sha256>.jsonl.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job has ended.")] = False,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Propose a plan to its silos; each accepts it unchanged or denies it."""
    from federation import client
    from policies.files import load_yaml
    from policies.plans.plan import Plan

    plan = load_yaml(plan_file, Plan)
    items = catalogue or directory / "catalogues" / f"{plan.catalogue.sha256}.jsonl"

    async def work(connection: Connection, party: Party, charter: Charter) -> str:
        job = await client.submit(connection, party, charter, plan, items, now=datetime.now(UTC))
        say(f"submitted job {job}")
        return job

    job = _with_coordinator(directory, work)
    if wait:
        _follow(directory, job, json_file)
        return
    say(f"Next: archipel job watch {job[:8]} --dir {directory}")
    emit_json({"job": job}, json_file)


@job_app.command()
@command
def watch(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Follow a job round by round until it has ended; exit 0 completed, 3 denied, 5 otherwise."""
    _follow(directory, job, json_file)


@job_app.command(name="list")
@command
def list_jobs(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """List this party's jobs, oldest first."""
    from federation.job_view import describe, list_table

    states = list(_read_board(directory).jobs.values())
    if states:
        say(list_table(states))
    else:
        say("no jobs yet; propose one: archipel job submit plan.yaml")
    emit_json([describe(state) for state in states], json_file)


@job_app.command()
@command
def show(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Show one job as it is now: rounds, epsilon spent, bytes, who is absent, about how long it takes."""
    from federation.job_view import describe, table
    from federation.progress import Pace

    state = _read_board(directory).find(job)
    seconds_left = Pace(_now).see(state)
    say(table(state, seconds_left))
    emit_json(describe(state, seconds_left=seconds_left), json_file)


@job_app.command()
@command
def cancel(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Stop a job for everybody; silos keep the model so far, what was released stays charged."""
    from federation import client

    async def work(connection: Connection, party: Party, state: JobState) -> str:
        await client.cancel(connection, party, state.job)
        return state.job

    cancelled = _with_job(directory, job, work)
    say(f"cancelled job {cancelled}")
    emit_json({"job": cancelled, "cancelled": True}, json_file)


@job_app.command()
@command
def pause(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Let no further round of a job begin; exit 0 also if it is paused already."""
    from federation import client

    async def work(connection: Connection, party: Party, state: JobState) -> tuple[str, bool]:
        return state.job, await client.pause(connection, party, state)

    paused, is_new = _with_job(directory, job, work)
    say(f"job {paused} pauses before its next round" if is_new else f"job {paused} is paused already")
    say(f"Next: archipel job resume {paused[:8]} --dir {directory}")
    emit_json({"job": paused, "paused": True}, json_file)


@job_app.command()
@command
def resume(job: JobId, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Let a paused job go on; exit 0 also if it is not paused."""
    from federation import client

    async def work(connection: Connection, party: Party, state: JobState) -> tuple[str, bool]:
        return state.job, await client.resume(connection, party, state)

    resumed, is_new = _with_job(directory, job, work)
    say(f"job {resumed} goes on" if is_new else f"job {resumed} is not paused")
    emit_json({"job": resumed, "paused": False}, json_file)


def _with_coordinator(directory: Path, work: Callable[[Connection, Party, Charter], Awaitable[T]]) -> T:
    """Run ``work`` as the party of ``directory``, connected to its charter's coordinator."""
    import asyncio

    from federation.client import dial
    from federation.identity import Party
    from policies.files import load_charter

    async def connected() -> T:
        party = Party.load(directory)
        charter = load_charter(directory, datetime.now(UTC))
        connection = dial(party, charter)
        try:
            return await work(connection, party, charter)
        finally:
            await connection.close()

    return asyncio.run(connected())


def _with_job(directory: Path, job: str, work: Callable[[Connection, Party, JobState], Awaitable[T]]) -> T:
    """Run ``work`` on a job of the party of ``directory``."""
    from federation.client import Board

    async def found(connection: Connection, party: Party, charter: Charter) -> T:
        board = Board(charter)
        await board.refresh(connection)
        return await work(connection, party, board.find(job))

    return _with_coordinator(directory, found)


def _read_board(directory: Path) -> Board:
    from federation.client import Board

    async def work(connection: Connection, _party: Party, charter: Charter) -> Board:
        board = Board(charter)
        await board.refresh(connection)
        return board

    board = _with_coordinator(directory, work)
    _warn(board)
    return board


def _follow(directory: Path, job: str, json_file: str | None) -> None:
    """Show a job live until it has ended; its outcome is the command's."""
    from rich.live import Live

    from federation.client import Board
    from federation.client import watch as states_of
    from federation.job_view import describe, milestone, milestone_line, outcome_error, table
    from federation.progress import Pace

    async def work(connection: Connection, _party: Party, charter: Charter) -> JobState:
        board, pace, said = Board(charter), Pace(_now), None
        with Live(console=say.console, auto_refresh=False) as live:
            async for state in states_of(connection, board, job):
                seconds_left = pace.see(state)
                if live.console.is_terminal:
                    live.update(table(state, seconds_left), refresh=True)
                elif said != milestone(state):
                    said = milestone(state)
                    say(milestone_line(state, seconds_left))
        _warn(board)
        return state

    state = _with_coordinator(directory, work)
    emit_json(describe(state), json_file)
    error = outcome_error(state)
    if error is not None:
        raise error


def _now() -> datetime:
    return datetime.now(UTC)


def _warn(board: Board) -> None:
    for problem in board.problems:
        say.warn(f"a post was refused and changed nothing: {problem}")
