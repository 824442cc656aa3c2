"""The simulator's own test: it finds each of a dozen mistakes, and none in the product as it is."""

from __future__ import annotations

import pytest

from tests.simulation.sabotages import ALL
from tests.simulation.simulator import Sabotage, Simulator

MAX_SEEDS = 60


@pytest.mark.parametrize("sabotage", ALL, ids=lambda sabotage: sabotage.__name__)
def test_every_mistake_is_found(simulator: Simulator, sabotage: Sabotage) -> None:
    """Within the first seeds of the suite, by the invariant that it breaks."""
    for seed in range(MAX_SEEDS):
        outcome = simulator.run(seed, sabotage=sabotage)
        if any(ALL[sabotage] in wrong for wrong in outcome.wrongs):
            assert not simulator.run(seed).wrongs
            return
    pytest.fail(f"not found in {MAX_SEEDS} schedules")
