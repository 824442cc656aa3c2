"""A federation in a directory, made and run with the commands that institutions use."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from federation.client import Board, dial, watch
from federation.identity import Party
from federation.job_view import outcome_error, progress_line
from federation.rounds import JobState
from policies.catalog import render_template
from policies.files import load_charter, load_yaml, write_atomically
from policies.plan import Plan
from silo.demo.dataset import DemoData
from silo.demo.processes import Processes, free_port, wait_until_listening
from silo.demo.settings import MAX_INTERACTIONS_PER_USER, DemoSettings

HOST = "127.0.0.1"
PURPOSE = "product-recommendation"

Report = Callable[[str], None]


@dataclass(frozen=True)
class World:
    """One federation on this machine.

    Attributes:
        root: its directory.
        settings: of the demo.
        names: of the silos.
    """

    root: Path
    settings: DemoSettings

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


def found(world: World, data: DemoData, processes: Processes, report: Report) -> None:
    """Make all parties, their data, policies and charter; everybody joins."""
    settings, names = world.settings, world.names
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
        for number, name in enumerate(names):
            write_rows(world.silo(name), data, number)
            (world.silo(name) / "policy.yaml").write_text(edited_policy(settings, name))
        data.catalogue.save(world.silo(names[0]) / "catalogues")
        report("signing the charter and the policies")
        sign_charter(world, processes, pool)
        charter = world.root / "charter.yaml"
        list(pool.map(lambda n: processes.command("silo", "join", charter, "--dir", world.silo(n)), names))


def write_rows(directory: Path, data: DemoData, number: int) -> None:
    """Put one silo's training rows where its policy says they are."""
    (directory / "data").mkdir(parents=True, exist_ok=True)
    data.rows_of(number).write_parquet(directory / "data" / "purchases.parquet")


def edited_policy(settings: DemoSettings, name: str) -> str:
    """The template with the lines filled in that an administrator of the demo would edit."""
    return render_template(
        "retailer",
        silo=name,
        expires=datetime.now(UTC).date() + timedelta(days=30),
        with_members=[other for other in settings.silo_names if other != name],
        source={"parquet": "data/*.parquet"},
        columns={"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
        max_interactions_per_user=MAX_INTERACTIONS_PER_USER,
        max_silos_per_user=1,
        epsilon=settings.epsilon,
        delta=settings.delta,
        max_epsilon_per_plan=settings.epsilon,
        min_silos=settings.num_silos,
        min_colluding_silos=settings.colluding_silos,
        verify_sums=1.0,
    )


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


def propose_plan(world: World, data: DemoData, processes: Processes, report: Report) -> str:
    """Write the plan with its noise, and let the first silo forecast it; returns the forecast's text."""
    settings, first = world.settings, world.silo(world.names[0])
    report("calibrating the plan's noise")
    largest = max(data.users_of(number).size for number in range(settings.num_silos))
    processes.command(
        "plan", "new", "--silos", ",".join(world.names), "--catalogue", data.catalogue.sha256,
        "--family", settings.family,
        "--epsilon", repr(settings.epsilon), "--delta", repr(settings.delta),
        "--colluding-silos", str(settings.colluding_silos), "--max-silos-per-user", "1",
        "--max-users-per-silo", str(rounded_up(largest)), "--out", world.plan_path, "--dir", first,
    )  # fmt: skip
    return processes.command("plan", "forecast", world.plan_path, "--dir", first)


def run_job(world: World, processes: Processes, report: Report) -> JobState:
    """Start coordinator and agents, submit the plan, follow the job to its end; returns its state.

    Raises:
        ArchipelError: the job did not complete, or a process ended.
    """
    report("starting the coordinator and the silo agents")
    processes.start("coordinator", world.hub / "logs" / "run.log", "coordinator", "run", "--dir", world.hub)
    port = json.loads((world.hub / "card.json").read_text())["port"]
    wait_until_listening(HOST, port, processes)
    for name in world.names:
        log = world.silo(name) / "logs" / "run.log"
        processes.start(name, log, "silo", "run", "--dir", world.silo(name))
    first = world.silo(world.names[0])
    out = world.root / "job.json"
    processes.command("job", "submit", world.plan_path, "--dir", first, "--json", out)
    job = str(json.loads(out.read_text())["job"])
    processes.shown.append(f"archipel job watch {job[:8]} --dir {first}")
    state = asyncio.run(_follow(first, job, processes, report))
    error = outcome_error(state)
    if error is not None:
        raise error
    _wait_for_models(world, job, processes)
    return state


async def _follow(directory: Path, job: str, processes: Processes, report: Report) -> JobState:
    party, charter = Party.load(directory), load_charter(directory, datetime.now(UTC))
    connection = dial(party, charter)
    try:
        state: JobState | None = None
        async for state in watch(connection, Board(charter), job):
            report(progress_line(state))
            processes.check()
    finally:
        await connection.close()
    if state is None:
        raise RuntimeError("a watched job has at least one state")
    return state


def _wait_for_models(world: World, job: str, processes: Processes) -> None:
    """Agents file receipts and erase secrets after the job has ended for everybody."""
    import time

    while not all(_is_finished(world.silo(name), job) for name in world.names):
        processes.check()
        time.sleep(0.1)


def _is_finished(directory: Path, job: str) -> bool:
    path = directory / "jobs" / job / "state.json"
    return path.exists() and bool(json.loads(path.read_text())["finished"])


def rounded_up(users: int) -> int:
    """A public bound that does not tell how many users there are: the next power of two."""
    return 1 << max(users - 1, 1).bit_length()


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
    for part in ("coordinator", "silos"):
        shutil.rmtree(world.root / part, ignore_errors=True)
    for path in world.root.glob("*.*"):
        path.unlink()
    write_atomically(marker, b'{"kind": "Demo"}\n')
