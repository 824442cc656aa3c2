"""Hundreds of schedules of everything that may go wrong while a job runs, and what must hold after each."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from federation.messages import PostKind
from federation.steps import COORDINATOR_STEPS, LEADER_STEPS, SILO_STEPS, Step
from tests.simulation.schedules import (
    AtStep,
    Beginning,
    Command,
    Crash,
    Cut,
    Miscalculation,
    Request,
    Restore,
    Schedule,
    When,
)
from tests.simulation.simulator import Outcome, Simulator
from tests.simulation.world import HUB, SILOS

ROOT = Path(__file__).parents[2]
NUM_SEEDS = int(os.environ.get("ARCHIPEL_SEEDS", "500"))
"""``make simulate`` plays more of them."""
BLOCK = 20
DIRECTED = 1_000_000
"""Schedules that a test composes itself are numbered from here, so that none has the randomness of a seed."""


def held(outcome: Outcome) -> Outcome:
    assert not outcome.wrongs, outcome.report()
    return outcome


@pytest.mark.parametrize("first", range(0, NUM_SEEDS, BLOCK))
def test_every_invariant_holds(simulator: Simulator, first: int) -> None:
    for seed in range(first, min(first + BLOCK, NUM_SEEDS)):
        held(simulator.run(seed))


@pytest.mark.parametrize(
    ("step", "when"),
    list(product((*COORDINATOR_STEPS, *SILO_STEPS, Step.COIN_TOSSED, Step.STATE_STORED), When)),
    ids=str,
)
def test_a_kill_at_a_durable_step_costs_nothing_but_time(
    simulator: Simulator, step: Step, when: When
) -> None:
    """Every step that a job in calm weather comes to, by whoever comes there."""
    party = HUB if step in COORDINATOR_STEPS else SILOS[0] if step in LEADER_STEPS else SILOS[1]
    crash = Crash(party, AtStep(when, step, 1), down_seconds=1.0)
    outcome = held(simulator.run(Schedule(DIRECTED, "steps", crashes=(crash,))))
    assert f"KILLED {crash.at}" in outcome.trace.said_by(party)
    assert outcome.state is not None
    assert (outcome.state.outcome, outcome.state.burned) == ("completed", 0)


def test_a_silo_that_was_away_comes_back(simulator: Simulator) -> None:
    cut = Cut(SILOS[3], begin=0.0, end=16.0)
    schedule = Schedule(DIRECTED, "absences", Beginning.FIRST_ROUND, cuts=(cut,), slowness={SILOS[0]: 30.0})
    outcome = held(simulator.run(schedule))
    assert outcome.state is not None
    said = {(place.kind, envelope.sender) for place, envelope in outcome.state.posts.items()}
    assert {(PostKind.ABSENCE, HUB), (PostKind.RETURN, SILOS[3])} <= said
    assert outcome.state.outcome == "completed"
    assert {len(silos) for silos in outcome.state.attempts.values()} == {3, 4}


@pytest.mark.parametrize("scenario", ["steps", "absences"])
def test_a_silo_that_opens_a_sum_wrongly_repairs_itself(simulator: Simulator, scenario: str) -> None:
    wrong = Miscalculation(SILOS[1], occurrence=1)
    outcome = held(simulator.run(Schedule(DIRECTED, scenario, miscalculations=(wrong,))))
    assert outcome.state is not None
    assert PostKind.REPAIRED in {place.kind for place in outcome.state.posts}
    assert (outcome.state.outcome, outcome.state.burned) == ("completed", 0)


def test_a_paused_job_goes_on_when_somebody_says_so(simulator: Simulator) -> None:
    asked = (Request(3.0, SILOS[1], Command.PAUSE), Request(200.0, SILOS[2], Command.RESUME))
    outcome = held(simulator.run(Schedule(DIRECTED, "steps", requests=asked)))
    assert outcome.state is not None
    assert (outcome.state.outcome, outcome.state.pauses) == ("completed", 2)
    assert outcome.seconds > 200


def test_a_cancelled_job_leaves_the_rounds_it_has(simulator: Simulator) -> None:
    asked = (Request(6.0, SILOS[1], Command.CANCEL),)
    schedule = Schedule(DIRECTED, "local-steps", Beginning.LAST_ROUND, slowness={HUB: 100.0}, requests=asked)
    outcome = held(simulator.run(schedule))
    assert outcome.state is not None
    assert (outcome.state.outcome, len(outcome.state.opened)) == ("cancelled", 2)


def test_a_lost_outbox_burns_an_attempt_and_no_more(simulator: Simulator) -> None:
    restore = Restore(SILOS[1], saved_at=0.1, restored_at=1.0, outbox_only=True)
    schedule = Schedule(DIRECTED, "steps", Beginning.FIRST_ROUND, restores=(restore,))
    outcome = held(simulator.run(schedule))
    assert outcome.state is not None
    assert (outcome.state.outcome, outcome.state.burned) == ("completed", 1)


@pytest.mark.parametrize("seed", [3, 9, 14, 21])
def test_a_seed_is_one_schedule(simulator: Simulator, seed: int) -> None:
    assert simulator.run(seed).trace.digest() == simulator.run(seed).trace.digest()


def test_another_process_replays_the_same_trace(simulator: Simulator) -> None:
    """Keys, noise, nonces, addresses and the order of sets are others; nothing that happens is."""
    seeds = [2, 3]
    command = [sys.executable, "-m", "tests.simulation", *map(str, seeds), "--digest"]
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert printed.stdout.split() == [simulator.run(seed).trace.digest() for seed in seeds]


def test_a_report_says_how_to_replay_it(simulator: Simulator) -> None:
    report = simulator.run(3).report()
    assert report.endswith("replay: python -m tests.simulation 3")
    assert "duty duty=contribute round=1 attempt=1" in report
