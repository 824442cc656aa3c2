"""A silo's one worker process: TenSEAL holds the interpreter lock, and an agent must not stall.

The worker starts by ``spawn``. What it keeps between tasks (:mod:`silo.session`) it can have again: a worker
that died, or was killed, costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from privacy.encryption.frames import StreamSummary
from privacy.errors import HostError
from silo import tasks
from silo.session import Course
from silo.tasks import Built, ContributionTask, Drawn, ModelTask, OpenTask, PrepareTask, ProtectTask

R = TypeVar("R")


class Worker:
    """One spawned process; a task that kills it fails, the next starts a new one."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def catch_up(self, course: Course) -> tuple[str, ...]:
        """Absorb the sums that the kept state lacks; returns what had to be rebuilt."""
        return await self.run(tasks.catch_up, course)

    async def contribute(self, task: ContributionTask) -> Drawn:
        """Read rows, sum, clamp, add the noise share."""
        return await self.run(tasks.draw_contribution, task)

    async def protect(self, task: ProtectTask) -> StreamSummary:
        """Pack, mask, tag, encrypt, write durably."""
        return await self.run(tasks.write_stream, task)

    async def open(self, task: OpenTask) -> bytes:
        """Decrypt and check a sum; returns the SHA-256 of the opened integers."""
        return await self.run(tasks.open_stream, task)

    async def write_model(self, task: ModelTask) -> Built:
        """Post-process the sums into files; returns what the model card says of them."""
        return await self.run(tasks.build_model, task)

    async def prepare(self, task: PrepareTask) -> None:
        """Build what no row enters: the family, from its checkpoint if the plan names one."""
        await self.run(tasks.prepare, task)

    async def make_secret_key(self) -> bytes:
        """A fresh BFV key for a job this silo leads."""
        return await self.run(tasks.make_secret_key)

    async def check_secret_key(self, secret: bytes) -> None:
        """Build the context from the plan's constants and a received key, once, away from the agent."""
        await self.run(tasks.check_secret_key, secret)

    async def forget_state(self, job_directory: Path) -> None:
        """Drop a job's trained state; what needs it replays the sums."""
        await self.run(tasks.forget_state, job_directory)

    async def forget_job(self, job_directory: Path) -> None:
        """Drop everything that is kept of a job that has ended; a process not started keeps nothing."""
        if self._pool is not None:
            await self.run(tasks.forget_job, job_directory)

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            for process in (self._pool._processes or {}).values():
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    async def run(self, function: Callable[..., R], *args: object) -> R:
        """Call a function of this code there; arguments and result are pickled.

        Raises:
            HostError: the process died.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        except BrokenProcessPool as error:
            self._pool = None
            raise HostError(
                "the worker process died", remedy="see its last lines in the log; memory may be short"
            ) from error


def end_with_parent() -> None:
    """Leave Ctrl-C to the agent, and end with it: nobody may write beside a killed agent's successor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
