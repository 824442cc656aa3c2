"""One set of disks, keys and stages for all simulations of a test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.simulator import Simulator, simulator


@pytest.fixture(scope="session", name="simulator")
def _simulator() -> Iterator[Simulator]:
    with simulator() as made:
        yield made
