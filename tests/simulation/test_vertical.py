"""Vertical jobs under kills, cuts and echoes: every leg arrives once, whole, at its reader, and is paid."""

from __future__ import annotations

from itertools import product

import pytest

from federation.steps import LEG_STEPS, Step
from tests.simulation.schedules import (
    HUB_LEG_STEPS,
    WEATHERS,
    AtStep,
    Crash,
    Cut,
    Schedule,
    Weather,
    When,
    vertical_schedule_of,
)
from tests.simulation.simulator import Outcome, Simulator
from tests.simulation.world import HUB, SILOS

NUM_SEEDS, BLOCK = 8, 4
DIRECTED = 2_000_000


def held(outcome: Outcome) -> Outcome:
    assert not outcome.wrongs, outcome.report()
    return outcome


@pytest.mark.parametrize("first", range(0, NUM_SEEDS, BLOCK))
def test_every_invariant_holds(vertical_simulator: Simulator, first: int) -> None:
    for seed in range(first, first + BLOCK):
        held(vertical_simulator.run(vertical_schedule_of(seed)))


@pytest.mark.parametrize("weather", WEATHERS[-2:], ids=lambda weather: weather.name)
def test_weather_costs_nothing_but_time(vertical_simulator: Simulator, weather: Weather) -> None:
    cut = Cut(SILOS[2], begin=2.0, end=20.0)
    outcome = held(vertical_simulator.run(Schedule(DIRECTED, "alignment", weather=weather, cuts=(cut,))))
    assert outcome.state is not None
    assert outcome.state.outcome == "completed"


@pytest.mark.parametrize(("step", "when"), list(product(LEG_STEPS, When)), ids=str)
def test_a_kill_at_a_step_of_a_leg_costs_nothing_but_time(
    vertical_simulator: Simulator, step: Step, when: When
) -> None:
    party = HUB if step in HUB_LEG_STEPS else SILOS[1]
    crash = Crash(party, AtStep(when, step, 1), down_seconds=1.0)
    outcome = held(vertical_simulator.run(Schedule(DIRECTED, "alignment", crashes=(crash,))))
    assert f"KILLED {crash.at}" in outcome.trace.said_by(party)
    assert outcome.state is not None
    assert outcome.state.outcome == "completed"


def test_a_seed_is_one_schedule(vertical_simulator: Simulator) -> None:
    first, again = (vertical_simulator.run(vertical_schedule_of(2)) for _ in range(2))
    assert first.trace.digest() == again.trace.digest()
