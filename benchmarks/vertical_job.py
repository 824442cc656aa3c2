"""What a vertical job costs from end to end: real processes, TLS, alignment, encrypted moments, model.

A shop and one partner with the same number of people, made up. Each silo's list is padded to its declared
capacity, so the spine has a slot for every place of both. Wall time is taken from outside, by the leg that
the job is in; memory is the kernel's high-water mark of each process.

    python benchmarks/vertical_job.py
    python benchmarks/vertical_job.py --people 300 --items 200 --json -
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from demo_resources import role_of
from process_tree import ProcessTree
from reporting import MEGA, Page, Terminal, add_json_option, header, write

from federation.job_state import IN_LEG, JobState
from federation.legs.legs import LegPurpose
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.demo.processes import Processes
from silo.demo.vertical.dataset import Partner, VerticalData
from silo.demo.vertical.settings import CONTENT_SILO, VerticalSettings
from silo.demo.vertical.staging import VerticalStaging
from silo.demo.world import World, follow_job, found, propose_plan, start_parties, submit_plan
from silo.vertical.joint.selection import LabelUsers, random_halves

PEOPLE, ITEMS, COLUMNS = 2_700, 1_500, 600
ROW_ITEMS, PARTNER_ITEMS = 5, 20
GOAL_SECONDS, GOAL_BYTES, GOAL_SLOT_BYTES = 120.0, 2e9, 45_000
ALIGNING = (LegPurpose.HOP, LegPurpose.BLINDED, LegPurpose.SLOTS)
SAMPLE_SECONDS = 0.2


def made_up(num_people: int, num_items: int) -> VerticalData:
    """Everybody is at both silos; what they have there is by chance."""
    people = tuple(f"person-{number:06d}" for number in range(num_people))
    items = tuple(f"item-{number:05d}" for number in range(num_items))
    contents = tuple(f"content-{number:05d}" for number in range(COLUMNS))
    rows = _random_rows(1, num_people, num_items, ROW_ITEMS)
    views = _random_rows(2, num_people, COLUMNS, PARTNER_ITEMS)
    partner = Partner(CONTENT_SILO, "views", "content_id", views, contents, has_public_list=True, unit="user")
    return VerticalData(
        "made up",
        people,
        Catalogue(tuple(CatalogueItem(item_id=item) for item in items)),
        LabelUsers(rows, _random_rows(3, num_people, num_items, 1), random_halves(num_people, 0)),
        (partner,),
        1.0,
        (),
    )


def _random_rows(seed: int, num_people: int, num_columns: int, count: int) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    columns = np.concatenate([rng.choice(num_columns, count, replace=False) for _ in range(num_people)])
    people = np.repeat(np.arange(num_people), count)
    return sp.csr_matrix((np.ones(columns.size), (people, columns)), shape=(num_people, num_columns))


class Clock:
    """When the job was first seen in each part of it."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}

    def notice(self, state: JobState) -> None:
        """Called with every state that is seen."""
        part = state.phase.value
        if state.phase in IN_LEG:
            part = "aligning" if state.leg.purpose in ALIGNING else state.leg.purpose.value
        self.first.setdefault(part, time.perf_counter())

    def seconds(self, start: str, end: str) -> float:
        """Between two parts."""
        return self.first[end] - self.first[start]


@contextmanager
def sampled(tree: ProcessTree) -> Iterator[None]:
    """Look at all processes until the block ends."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE_SECONDS):
            tree.sample()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(num_people: int, num_items: int, root: Path, page: Page) -> dict[str, Any]:
    """One job; its parts, its processes, and what the label silo sent."""
    settings = VerticalSettings(
        data=root, format=None, min_rating=None, epsilon=8.0, delta=1e-5, seed=0, num_seeds=1, out=root
    )
    staging = VerticalStaging(settings, made_up(num_people, num_items))
    world, clock, tree = World(root, settings), Clock(), ProcessTree(os.getpid(), role_of)
    with Processes() as processes:
        found(world, staging, processes, page.say)
        propose_plan(world, staging, processes, page.say)
        start_parties(world, processes)
        job = submit_plan(world, processes)
        with sampled(tree):
            state = follow_job(world, job, processes, clock.notice)
    slots = state.spine_slots or 0
    label = world.names[0]
    sent = sum(
        int(post.body["num_bytes"])
        for post in state.posts.values()
        if post.sender == label and "num_frames" in post.body
    )
    roles: dict[str, dict[str, float]] = {}
    for usage in tree.usages:
        of_role = roles.setdefault(usage.role, {"peak_rss_bytes": 0.0, "cpu_seconds": 0.0})
        of_role["peak_rss_bytes"] = max(of_role["peak_rss_bytes"], usage.peak_rss_bytes)
        of_role["cpu_seconds"] += usage.cpu_seconds
    return {
        "slots": slots,
        "items": num_items,
        "features": 16,
        "seconds": {
            "alignment": clock.seconds("aligning", "key"),
            "moments": clock.seconds("key", "closing"),
            "model": clock.seconds("closing", "ended"),
        },
        "bytes_per_slot": sent / slots,
        "roles": {
            role: of_role for role, of_role in sorted(roles.items()) if role.startswith(("agent", "coord"))
        },
    }


def goals(measured: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(what, measured, asked)."""
    peak = max(of_role["peak_rss_bytes"] for of_role in measured["roles"].values())
    return [
        ("seconds from key to moments", measured["seconds"]["moments"], GOAL_SECONDS),
        ("bytes of the largest process", peak, GOAL_BYTES),
        ("bytes sent per slot", measured["bytes_per_slot"], GOAL_SLOT_BYTES),
    ]


def show(result: dict[str, Any], page: Page) -> None:
    """Print the tables."""
    measured = result["measured"]
    seconds = measured["seconds"]
    page.say(
        f"{measured['slots']:,} slots x {measured['items']:,} items x {measured['features']} features: "
        f"alignment {seconds['alignment']:.1f} s, moments {seconds['moments']:.1f} s, model "
        f"{seconds['model']:.1f} s; the label silo sent {measured['bytes_per_slot']:,.0f} bytes per slot."
    )
    rows = [
        (role, f"{of_role['cpu_seconds']:.1f}", f"{of_role['peak_rss_bytes'] / MEGA:.0f}")
        for role, of_role in measured["roles"].items()
    ]
    page.table("processes", ("process", "CPU s", "peak MB"), rows)
    asked = [
        (what, f"{goal:g}", "yes" if value <= goal else f"no: {value:.4g}")
        for what, value, goal in goals(measured)
    ]
    page.table("goals", ("of", "asked", "met"), asked)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=PEOPLE, help="at each of the two silos")
    parser.add_argument("--items", type=int, default=ITEMS)
    add_json_option(parser, "vertical_job")
    options = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    page = Terminal(options.json)
    result = header("vertical_job", " ".join(["python benchmarks/vertical_job.py", *given]))
    with tempfile.TemporaryDirectory() as scratch:
        result["measured"] = run(options.people, options.items, Path(scratch), page)
    show(result, page)
    write(result, options.json)
    return int(any(value > goal for _, value, goal in goals(result["measured"])))


if __name__ == "__main__":
    sys.exit(main())
