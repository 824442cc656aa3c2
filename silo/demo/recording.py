"""A demo whose job is recorded: the same commands, processes and wires, and canaries among the people."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from silo.demo.canaries import Cast, cast
from silo.demo.dataset import load_set, prepare
from silo.demo.processes import Processes
from silo.demo.recorder import Recorder
from silo.demo.settings import DemoSettings
from silo.demo.staging import HorizontalStaging
from silo.demo.world import World, clear, found, propose_plan, run_job

Report = Callable[[str], None]


def run_recording(settings: DemoSettings, report: Report) -> tuple[dict[str, Any], list[object]]:
    """Run one federation and record its job; returns what was recorded, for machines and for people.

    Raises:
        ArchipelError: what stopped it; nothing is left running.
    """
    world, seed = World(settings.directory_of(settings.seed), settings), secrets.randbits(128)
    colluders = settings.silo_names[-settings.num_colluding :]
    honest = settings.silo_names[: -settings.num_colluding]
    report("loading the data, tossing the coins of canaries and people")
    data = prepare(settings, load_set(settings, settings.seed), settings.seed)
    played = cast(data, settings, honest, seed)
    world.root.mkdir(parents=True, exist_ok=True)
    clear(world)
    with Processes() as processes:
        staging = HorizontalStaging(settings, played.data)
        found(world, staging, processes, report)
        propose_plan(world, staging, processes, report)
        recorder = Recorder(world, played, seed, colluders)
        state = run_job(world, processes, report, recorder.watching)
    report("copying what is left of every party")
    path = recorder.complete(state)
    result = {
        "kind": "DemoRecording",
        "recording": str(path),
        "job": state.job,
        "rounds": state.num_rounds,
        "colluders": list(colluders),
        **_counts(played),
    }
    return result, _for_people(result)


def _counts(played: Cast) -> dict[str, int]:
    return {
        "canaries": len(played.canaries),
        "canaries_in": sum(coin.is_in for coin in played.canaries),
        "people": len(played.people),
        "people_in": sum(coin.is_in for coin in played.people),
    }


def _for_people(result: dict[str, Any]) -> list[object]:
    return [
        f"job {result['job'][:8]}: {result['rounds']} sums recorded with {result['canaries']:,} canaries "
        f"({result['canaries_in']:,} in) and {result['people']:,} real people, half of them kept out by coin",
        f"helping the coordinator: {', '.join(result['colluders'])}",
        "It holds rows and secrets that no single party has. Attack it:",
        f"  archipel audit attack --recording {result['recording']}",
    ]
