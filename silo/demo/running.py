"""One demo from its settings to its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from policies.console import say
from silo.demo.dataset import DemoData, load_set, prepare
from silo.demo.harness import measure
from silo.demo.processes import Processes
from silo.demo.report import Outcome, as_json, for_people
from silo.demo.settings import DemoSettings
from silo.demo.world import World, clear, found, propose_plan, run_job

Report = Callable[[str], None]


def run_demo(settings: DemoSettings, report: Report) -> tuple[dict[str, Any], list[object]]:
    """Run every seed; returns the figures for machines and for people.

    Raises:
        ArchipelError: what stopped it; nothing is left running.
    """
    outcomes: list[Outcome] = []
    first: DemoData | None = None
    for seed in range(settings.seed, settings.seed + settings.num_seeds):
        report(f"seed {seed}: loading the data")
        data = prepare(settings, load_set(settings, seed), seed)
        first = first or data
        _say_data(settings, data, seed)
        outcomes.append(_run_seed(settings, data, seed, report))
    if first is None:
        raise RuntimeError("a demo has at least one seed")
    result = as_json(settings, first, outcomes)
    return result, for_people(result, outcomes)


def _run_seed(settings: DemoSettings, data: DemoData, seed: int, report: Report) -> Outcome:
    world = World(settings.directory_of(seed), settings)
    world.root.mkdir(parents=True, exist_ok=True)
    clear(world)
    seconds: dict[str, float] = {}
    with Processes() as processes:
        try:
            with _timed(seconds, "preparation"):
                found(world, data, processes, report)
                forecast = propose_plan(world, data, processes, report)
            with _timed(seconds, "job"):
                state = run_job(world, processes, report)
        finally:
            (world.root / "commands.txt").write_text("\n".join(processes.shown) + "\n")
    if seed == settings.seed:
        _say_commands(world, processes, forecast)
    with _timed(seconds, "evaluation"):
        columns = measure(world, data, state.job, report)
    seconds["total"] = sum(seconds.values())
    return Outcome(seed, world, state, columns, seconds)


def _say_data(settings: DemoSettings, data: DemoData, seed: int) -> None:
    sizes = ", ".join(
        f"{name} {data.users_of(number).size:,}" for number, name in enumerate(settings.silo_names)
    )
    say(
        f"{data.name}, seed {seed}: {data.train.num_users:,} users, {len(data.catalogue):,} items, "
        f"{data.train.num_interactions:,} training rows in the silos, "
        f"{data.held_out.num_interactions:,} held out. "
        f"Users by silo (disjoint, by taste): {sizes}"
    )


def _say_commands(world: World, processes: Processes, forecast: str) -> None:
    say("The demo ran these commands; institutions type the same, each in its own directory:")
    for line in processes.shown:
        say("  " + line)
    say("  … then, at any time:")
    first = world.silo(world.names[0])
    say(f"  archipel recommend --user ID -k 20 --dir {first}")
    say(f"  archipel audit verify --dir {first} --charter {world.root / 'charter.yaml'}")
    say(forecast.rstrip())


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
