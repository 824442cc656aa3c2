"""Simulated processes: production objects over a directory, that may be killed at any of their steps.

Killing takes a copy of the directory at that very moment and starts the next process over the copy. Whatever
the killed process' code still does while its tasks unwind, it does to the abandoned directory and to nobody
else: messages of the dead are not delivered. So the disk that survives is exactly what ``kill -9`` leaves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from tests.simulation.clock import OWNER

T = TypeVar("T")

HEAL_SECONDS = 900.0
"""From then on the network is calm, everybody is up and quick, and nothing is broken any more."""

MIN_THREAD_SECONDS, MAX_THREAD_SECONDS = 0.001, 0.05


class Killed(BaseException):
    """Raised where a process is killed in the middle of its own code; nothing may catch it."""


class Process:
    """One life of a party: from its start until it stops or is killed.

    Args:
        party: whose.
        number: counted from 1; each life has its own randomness.
        directory: its disk.
        seed: of the schedule.
        slowness: how many times longer everything takes that a thread or a worker does.

    Attributes:
        is_alive: whether its code may still have any effect.
        bugs: exceptions that no task of a process may end with.
    """

    def __init__(self, party: str, number: int, directory: Path, *, seed: str, slowness: float = 1.0) -> None:
        self.party = party
        self.number = number
        self.directory = directory
        self.is_alive = True
        self.bugs: list[str] = []
        self.rng = random.Random(f"{seed}/{party}/{number}")
        self._slowness = slowness
        self._tasks: list[asyncio.Task[Any]] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task of this process."""
        context = copy_context()
        context.run(OWNER.set, self)
        return asyncio.get_running_loop().create_task(coroutine, context=context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Remember a task, so that it ends with its process."""
        self._tasks.append(task)
        task.add_done_callback(self._see_end)
        if not self.is_alive:
            task.cancel()

    def thread_seconds(self) -> tuple[float, float]:
        """Time until a thread has done its work, and until its result is seen."""
        slowness = self._slowness if asyncio.get_running_loop().time() < HEAL_SECONDS else 1.0
        scale = max(slowness, 20.0 if self.rng.random() < 0.05 else 1.0)  # any machine stalls now and then
        before, after = (self.rng.uniform(MIN_THREAD_SECONDS, MAX_THREAD_SECONDS) for _ in range(2))
        return before * scale, after * scale

    def die(self) -> None:
        """End every task but the one that runs this, wherever it is."""
        self.is_alive = False
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def wait_for_end(self) -> None:
        """Wait until no task of a dead process is left."""
        while rest := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(rest)

    def _see_end(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if self.is_alive and error is not None and not isinstance(error, Killed):
            self.bugs.append(f"{self.party}: {type(error).__name__}: {error}")
