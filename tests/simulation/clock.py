"""An event loop whose time is a number: it jumps to the next timer, so an hour of waiting costs nothing.

What production code hands to threads runs here on the loop itself, after a moment that the current process
chooses and before another one: whatever may happen while a thread works can happen in between. Nothing reads
the machine's clock, and no order depends on anything but the order of calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")

EPOCH = datetime(2030, 1, 7, 12, 0, tzinfo=UTC)
"""Virtual second 0 of a simulation that begins at the beginning."""


class Owner(Protocol):
    """The simulated process that a task belongs to."""

    @property
    def is_alive(self) -> bool:
        """Whether its code may still run."""
        ...

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Remember a task of this process, so that it ends with it."""
        ...

    def thread_seconds(self) -> tuple[float, float]:
        """How long a thread takes before its work is done, and until its result is seen."""
        ...


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)


class StalledError(Exception):
    """Nothing is left to do and nobody waits for a time: the simulation would hang for ever."""


class _NoDevices:
    """Stands where an event loop asks the operating system for events: there are none, time passes."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise StalledError("no task can go on and no timer is set")
        self._loop.pass_time(timeout)
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Runs tasks of simulated processes in virtual time.

    Args:
        epoch: what day and time it is at second 0.
    """

    def __init__(self, epoch: datetime = EPOCH) -> None:
        super().__init__()
        self._epoch = epoch
        self._now = 0.0
        self._selector = _NoDevices(self)
        self._clock_resolution = 1e-9
        self.set_task_factory(cast(Any, _adopted_task))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def now(self) -> datetime:
        """The same as a date: the clock of every simulated party."""
        return self._epoch + timedelta(seconds=self._now)

    def pass_time(self, seconds: float) -> None:
        """Let ``seconds`` go by."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run ``func`` on the loop itself, in the middle of the time that a thread would take."""
        owner = OWNER.get()
        result: asyncio.Future[T] = self.create_future()
        before, after = owner.thread_seconds() if owner else (0.0, 0.0)
        self.call_later(before, self._work, owner, result, lambda: func(*args), after)
        return result

    def _work(
        self, owner: Owner | None, result: asyncio.Future[T], func: Callable[[], T], after: float
    ) -> None:
        if owner is not None and not owner.is_alive:
            return
        try:
            value = func()
        except Exception as error:  # the caller gets it, as from an executor
            self.call_later(after, _settle, result.set_exception, result, error)
        else:
            self.call_later(after, _settle, result.set_result, result, value)

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _settle(set_it: Callable[[Any], None], future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        set_it(value)


def _adopted_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], *, context: Context | None = None
) -> asyncio.Task[T]:
    task = asyncio.Task(coroutine, loop=loop, context=context)
    owner = (context or copy_context()).get(OWNER)
    if owner is not None:
        owner.adopt(task)
    return task
