"""What a round costs besides learning: a federation on loopback whose model has hardly any values.

Runs a coordinator and agents as separate processes over mutual TLS, with the smallest autoencoder there is
(three values) on a few people, for many rounds. What is measured between the second round and the last is
therefore protocol: keys, posts, streams, sums, ledgers and fixed leaving times. CPU time is that of every
process of a party, its workers included, as the operating system counts it; seconds by phase are those a
member sees who watches the board.

    python benchmarks/round_overhead.py
    python benchmarks/round_overhead.py --silos 4 --rounds 10
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import psutil
from process_tree import family_cpu_seconds
from reporting import Page, Terminal, add_json_option, header, write

from federation.job_state import JobState, Phase
from policies.files import write_atomically
from policies.plans.drafting import Draft, complete_plan
from policies.plans.text import render_plan
from silo.data.synthetic import marketplace
from silo.demo.dataset import DemoData, prepare
from silo.demo.processes import Processes
from silo.demo.settings import DemoSettings
from silo.demo.staging import HorizontalStaging, rounded_up
from silo.demo.world import World, follow_job, found, start_parties, submit_plan, wait_for_models
from silo.jobs.contribute import LEAVING_SECONDS

ITEMS, USERS_PER_SILO = 50, 16
EPSILON, DELTA = 8.0, 1e-5
FIRST_MEASURED_ROUND = 2
PHASES = (Phase.EXCHANGING, Phase.COLLECTING, Phase.RECEIVING, Phase.OPENING)


@dataclass(frozen=True)
class Mark:
    """What was seen when a state of the job came.

    Attributes:
        seconds: on a clock of our own.
        round: 1-based.
        phase: of the job.
        posts: on the board by then, by sender.
        cpu_seconds: of every party's processes by then; empty where the phase was seen before.
    """

    seconds: float
    round: int
    phase: Phase
    posts: dict[str, int]
    cpu_seconds: dict[str, float]


@dataclass
class Observer:
    """Notes when the job comes to each phase of each round."""

    processes: Processes
    marks: list[Mark] = field(default_factory=list)

    def notice(self, state: JobState) -> None:
        """One state of the watched job."""
        is_new = not self.marks or (state.round, state.phase) != (self.marks[-1].round, self.marks[-1].phase)
        cpu = {}
        if is_new:
            running = self.processes.running.items()
            cpu = {name: family_cpu_seconds(psutil.Process(process.pid)) for name, process in running}
        posts: dict[str, int] = {}
        for place in state.posts:
            posts[place.sender] = posts.get(place.sender, 0) + 1
        self.marks.append(Mark(time.perf_counter(), state.round, state.phase, posts, cpu))


def little_data(silos: int) -> tuple[DemoSettings, DemoData]:
    """A marketplace with hardly any people in it."""
    settings = DemoSettings(
        data=None, format=None, min_rating=None, num_silos=silos, epsilon=EPSILON, delta=DELTA,
        colluding_silos=1, family="autoencoder", split="random", seed=0, num_seeds=1, out=Path(),
    )  # fmt: skip
    return settings, prepare(settings, marketplace(0, silos * USERS_PER_SILO, ITEMS), 0)


def write_plan(world: World, data: DemoData, rounds: int) -> None:
    """Write the smallest plan that has rounds: one feature, one hidden value, no counts."""
    largest = max(data.users_of(number).size for number in range(len(world.names)))
    draft = Draft(
        silos=world.names, catalogue_sha256=data.catalogue.sha256, catalogue_items=len(data.catalogue),
        family="autoencoder", target_epsilon=EPSILON, target_delta=DELTA,
        max_users_per_silo=rounded_up(largest), max_silos_per_user=1, features=1, hidden=1,
        bias_epsilon=0.0, rounds=rounds,
    )  # fmt: skip
    write_atomically(world.plan_path, render_plan(complete_plan(draft)).encode())


def watch_rounds(silos: int, rounds: int, out: Path) -> list[Mark]:
    """Run one federation to its end; returns what was seen of its job."""
    settings, data = little_data(silos)
    world = World(out, settings)
    world.root.mkdir(parents=True, exist_ok=True)
    with Processes() as processes:
        found(world, HorizontalStaging(settings, data), processes, lambda _: None)
        write_plan(world, data, rounds)
        start_parties(world, processes)
        job = submit_plan(world, processes)
        observer = Observer(processes)
        follow_job(world, job, processes, observer.notice)
        wait_for_models(world, job, processes)
    return observer.marks


def measure(marks: Sequence[Mark], silos: Sequence[str], hub: str) -> dict[str, Any]:
    """Means over the rounds between the second and the end of the last; phases by their medians."""
    first = next(mark for mark in marks if mark.round == FIRST_MEASURED_ROUND)
    last = next(mark for mark in marks if mark.phase is Phase.CLOSING)
    rounds = last.round - first.round + 1
    cpu = {name: (last.cpu_seconds[name] - first.cpu_seconds[name]) / rounds for name in first.cpu_seconds}
    posts = {name: (last.posts.get(name, 0) - first.posts.get(name, 0)) / rounds for name in (*silos, hub)}
    return {
        "silos": len(silos),
        "rounds": rounds,
        "seconds_per_round": (last.seconds - first.seconds) / rounds,
        "cpu_seconds_per_round": {
            "silo": fmean(cpu[name] for name in silos),
            "coordinator": cpu["coordinator"],
        },
        "posts_per_round": {"silo": fmean(posts[name] for name in silos), "coordinator": posts[hub]},
        "phase_seconds": phase_seconds(mark for mark in marks if mark.round >= FIRST_MEASURED_ROUND),
        "leaving_seconds": LEAVING_SECONDS,
    }


def phase_seconds(marks: Iterable[Mark]) -> dict[str, float]:
    """Median time from the first sight of a phase to the first sight of the next."""
    found: dict[str, list[float]] = {phase.value: [] for phase in PHASES}
    begun: Mark | None = None
    for mark in marks:
        if begun is None or (mark.round, mark.phase) != (begun.round, begun.phase):
            if begun is not None and begun.phase in PHASES:
                found[begun.phase.value].append(mark.seconds - begun.seconds)
            begun = mark
    return {phase: median(seconds) if seconds else 0.0 for phase, seconds in found.items()}


def show(result: dict[str, Any], page: Page) -> None:
    """Print rounds, then where their time goes."""
    measured = result["federations"]
    page.table(
        "one round with an empty model",
        ("silos", "rounds", "seconds", "CPU s, each silo", "CPU s, coordinator", "posts, each silo"),
        [
            (
                one["silos"],
                one["rounds"],
                f"{one['seconds_per_round']:.2f}",
                f"{one['cpu_seconds_per_round']['silo']:.3f}",
                f"{one['cpu_seconds_per_round']['coordinator']:.3f}",
                f"{one['posts_per_round']['silo']:.1f}",
            )
            for one in measured
        ],
    )
    page.table(
        "seconds of a round by phase, medians",
        ("silos", *(phase.value for phase in PHASES)),
        [
            (one["silos"], *(f"{one['phase_seconds'][phase.value]:.2f}" for phase in PHASES))
            for one in measured
        ],
    )
    page.say(
        "A contribution leaves at a fixed time after it was begun, "
        f"{measured[0]['leaving_seconds']:g} s or twice, four times … as long, whatever drawing it took."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--silos", type=int, nargs="+", default=[2, 4, 8], help="sizes of the roster")
    parser.add_argument("--rounds", type=int, default=30, help="of each job; the first is not measured")
    parser.add_argument("--out", type=Path, help="folder for the federations; default: a temporary one")
    add_json_option(parser, "round_overhead")
    asked = parser.parse_args(arguments)
    if asked.rounds <= FIRST_MEASURED_ROUND:
        parser.error(f"--rounds must be more than {FIRST_MEASURED_ROUND}")
    page = Terminal(asked.json)
    federations = []
    for silos in asked.silos:
        page.say(f"{silos} silos …")
        with tempfile.TemporaryDirectory(dir=asked.out) as folder:
            settings, _ = little_data(silos)
            marks = watch_rounds(silos, asked.rounds, Path(folder) / "run")
            federations.append(measure(marks, settings.silo_names, "hub"))
    sizes = " ".join(map(str, asked.silos))
    command = f"python benchmarks/round_overhead.py --silos {sizes} --rounds {asked.rounds}"
    result = header("round_overhead", command) | {"federations": federations}
    show(result, page)
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
