"""One set of disks, keys and stages for all simulations of a test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.simulator import Simulator, simulator


@pytest.fixture(scope="session")
def made() -> Iterator[Simulator]:
    with simulator() as made:
        yield made


@pytest.fixture(scope="session")
def made_vertical() -> Iterator[Simulator]:
    with simulator(vertical=True) as made:
        yield made


@pytest.fixture
def vertical_simulator(made_vertical: Simulator) -> Iterator[Simulator]:
    with made_vertical.shortcuts.taken():
        yield made_vertical


@pytest.fixture(name="simulator")
def _simulator(made: Simulator) -> Iterator[Simulator]:
    with made.shortcuts.taken():
        yield made
