"""A federation in a directory, made and run with the commands that institutions use."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from federation.client import Board, dial, watch
from federation.identity import Party
from federation.job_state import IN_ROUND, JobState
from federation.job_view import milestone, outcome_error, progress_line
from federation.legs.legs import LegPurpose, leg_at
from federation.progress import Pace, epsilon_spent
from policies.files import load_charter, load_yaml, write_atomically
from policies.plans.plan import Plan
from silo.demo.common_settings import CommonSettings
from silo.demo.processes import Processes, free_port, wait_until_listening
from silo.demo.staging import Staging

HOST = "127.0.0.1"
BLOCKS_TO_A_LINE = 10

Report = Callable[[str], None]


@dataclass(frozen=True)
class World:
    """One federation on this machine.

    Attributes:
        root: its directory.
        settings: of the demo.
    """

    root: Path
    settings: CommonSettings

    @property
    def names(self) -> tuple[str, ...]:
        """The silos."""
        return self.settings.silo_names

    @property
    def hub(self) -> Path:
        """The coordinator's directory."""
        return self.root / "coordinator"

    def silo(self, name: str) -> Path:
        """A silo's directory."""
        return self.root / "silos" / name

    @property
    def plan_path(self) -> Path:
        """The plan they agree on."""
        return self.root / "plan.yaml"

    def plan(self) -> Plan:
        """The plan, read back from its file."""
        return load_yaml(self.plan_path, Plan)


def found(world: World, staging: Staging, processes: Processes, report: Report) -> None:
    """Make all parties, their data, policies and charter; everybody joins."""
    names = world.names
    report("making keys and cards")
    port = free_port()
    processes.command(
        "coordinator", "init", "--name", "hub", "--host", HOST, "--port", str(port), "--dir", world.hub
    )
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(lambda n: processes.command("silo", "init", "--name", n, "--dir", world.silo(n)), names)
        )
        report("writing training rows into each silo's directory, editing each policy")
        for name in names:
            staging.fill(name, world.silo(name))
            (world.silo(name) / "policy.yaml").write_text(staging.policy(name))
        staging.catalogue.save(world.silo(names[0]) / "catalogues")
        report("signing the charter and the policies")
        sign_charter(world, processes, pool)
        charter = world.root / "charter.yaml"
        list(pool.map(lambda n: processes.command("silo", "join", charter, "--dir", world.silo(n)), names))


def sign_charter(world: World, processes: Processes, pool: ThreadPoolExecutor) -> None:
    """Draft, sign in every silo on its own copy, merge; the coordinator gets the result."""
    cards: list[str | Path] = []
    for name in world.names:
        cards += ["--member", world.silo(name) / "card.json"]
    draft = world.root / "charter-draft.yaml"
    processes.command(
        "charter", "new", *cards, "--coordinator", world.hub / "card.json", "--name", "demo", "--out", draft
    )
    copies = [world.silo(name) / "charter-draft.yaml" for name in world.names]
    for copy in copies:
        shutil.copy(draft, copy)
    list(pool.map(lambda copy: processes.command("charter", "sign", copy, "--dir", copy.parent), copies))
    charter = world.root / "charter.yaml"
    processes.command("charter", "merge", *copies, "--out", charter)
    for path in (charter, charter.with_name("charter.sig.json")):
        shutil.copy(path, world.hub / path.name)


def propose_plan(world: World, staging: Staging, processes: Processes, report: Report) -> str:
    """Write the plan with its noise, and let the first silo forecast it; returns the forecast's text."""
    first = world.silo(world.names[0])
    report("calibrating the plan's noise")
    processes.command(
        "plan", "new", "--catalogue", staging.catalogue.sha256, *staging.plan_options(),
        "--out", world.plan_path, "--dir", first,
    )  # fmt: skip
    return processes.command("plan", "forecast", world.plan_path, "--dir", first)


Watching = Callable[[str, Processes], AbstractContextManager[None]]


def run_job(world: World, processes: Processes, report: Report, watching: Watching | None = None) -> JobState:
    """Start coordinator and agents, submit the plan, follow the job to its end; returns its state.

    Args:
        world: the federation.
        processes: where it runs.
        report: told of the progress.
        watching: what looks on while the job, whose id it is given, runs.

    Raises:
        ArchipelError: the job did not complete, or a process ended.
    """
    report("starting the coordinator and the silo agents")
    start_parties(world, processes)
    job = submit_plan(world, processes)
    with watching(job, processes) if watching else nullcontext():
        state = follow_job(world, job, processes, progress_of_job(report))
    wait_for_models(world, job, processes)
    return state


def start_parties(world: World, processes: Processes) -> None:
    """Start the coordinator and every agent, each as a process of its own."""
    processes.start("coordinator", world.hub / "logs" / "run.log", "coordinator", "run", "--dir", world.hub)
    port = json.loads((world.hub / "card.json").read_text())["port"]
    wait_until_listening(HOST, port, processes)
    for name in world.names:
        log = world.silo(name) / "logs" / "run.log"
        processes.start(name, log, "silo", "run", "--dir", world.silo(name))


def submit_plan(world: World, processes: Processes) -> str:
    """Propose the plan as the first silo; returns the job's id."""
    first = world.silo(world.names[0])
    out = world.root / "job.json"
    processes.command("job", "submit", world.plan_path, "--dir", first, "--json", out)
    job = str(json.loads(out.read_text())["job"])
    processes.shown.append(f"archipel job watch {job[:8]} --dir {first}")
    return job


def follow_job(world: World, job: str, processes: Processes, notice: Callable[[JobState], None]) -> JobState:
    """Watch a job as its first silo until it ends; ``notice`` sees every state. Returns the last one.

    Raises:
        ArchipelError: the job did not complete, or a process ended.
    """
    state = asyncio.run(_follow(world.silo(world.names[0]), job, processes, notice))
    error = outcome_error(state)
    if error is not None:
        raise error
    return state


def progress_of_job(report: Report) -> Callable[[JobState], None]:
    """What to report of a watched job: each step of an only sum; of many sums or legs, where each begins."""
    pace = Pace(lambda: datetime.now(UTC))
    said: object = None

    def notice(state: JobState) -> None:
        nonlocal said
        seconds_left = pace.see(state)
        if state.num_rounds == 1:
            report(progress_line(state))
        elif said != milestone(state) and not _is_one_of_many_blocks(state):
            said = milestone(state)
            report(_line_of_rounds(state, seconds_left) if state.phase in IN_ROUND else progress_line(state))

    return notice


def _line_of_rounds(state: JobState, seconds_left: float | None) -> str:
    spent, target = epsilon_spent(state), state.plan.privacy.target_epsilon
    rest = "" if seconds_left is None else f", about {seconds_left:.0f} s left"
    what = f"round {state.round} of {state.num_rounds}"
    if state.plan.is_vertical:
        what = leg_at(state.plan, state.round, state.spine_slots).in_words
    return f"{what}, epsilon {spent:.2f} of {target:g} spent{rest}"


def _is_one_of_many_blocks(state: JobState) -> bool:
    """Encrypted rows go in many blocks, and nobody reads a line about each."""
    if not state.plan.is_vertical or state.phase not in IN_ROUND:
        return False
    leg = leg_at(state.plan, state.round, state.spine_slots)
    return leg.purpose is LegPurpose.BLOCK and leg.index % BLOCKS_TO_A_LINE != 1


async def _follow(
    directory: Path, job: str, processes: Processes, notice: Callable[[JobState], None]
) -> JobState:
    party, charter = Party.load(directory), load_charter(directory, datetime.now(UTC))
    connection = dial(party, charter)
    try:
        state: JobState | None = None
        async for state in watch(connection, Board(charter), job):
            notice(state)
            processes.check()
    finally:
        await connection.close()
    if state is None:
        raise RuntimeError("a watched job has at least one state")
    return state


def wait_for_models(world: World, job: str, processes: Processes) -> None:
    """Agents file receipts and erase secrets after the job has ended for everybody."""
    import time

    while not all(_is_finished(world.silo(name), job) for name in world.names):
        processes.check()
        time.sleep(0.1)


def _is_finished(directory: Path, job: str) -> bool:
    path = directory / "jobs" / job / "state.json"
    return path.exists() and bool(json.loads(path.read_text())["finished"])


def clear(world: World) -> None:
    """Make room for a new federation.

    Raises:
        UsageError: the directory holds something that no demo made.
    """
    from privacy.errors import UsageError

    marker = world.root / "demo.json"
    if world.root.exists() and any(world.root.iterdir()) and not marker.exists():
        raise UsageError(
            "this directory is not empty and was not made by a demo",
            where=str(world.root),
            remedy="name another --out",
        )
    for part in ("coordinator", "silos", "recording"):
        shutil.rmtree(world.root / part, ignore_errors=True)
    for path in world.root.glob("*.*"):
        path.unlink()
    write_atomically(marker, b'{"kind": "Demo"}\n')
