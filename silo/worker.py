"""Heavy work of a silo, in one worker process: TenSEAL holds the interpreter lock; an agent must not stall.

The worker starts by ``spawn`` and keeps nothing between tasks. It is where rows are read and noise is drawn;
what comes back to the agent is noised integers with the event of the noise, or paths.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from policies.plan import Plan
from policies.price import RoundShape, metrics_shape, plan_epsilon_pld, schedule
from policies.silo_policy import Dataset
from privacy.encryption.frames import StreamSummary
from privacy.errors import HostError
from privacy.events import Event, PureEvent
from privacy.packing import Layout

R = TypeVar("R")


@dataclass(frozen=True)
class ContributionTask:
    """What is needed to make one contribution.

    Attributes:
        directory: the silo's.
        plan: the authorised plan.
        dataset: the one dataset its policy maps the plan's purpose to.
        round: 1-based.
        aggregates: files of the opened sums of all earlier rounds, in order.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    round: int
    aggregates: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """Noised integers as levels, the event of the noise in them, and what this silo's own people should know.

    Attributes:
        levels: (values,) non-negative.
        event: what must be charged.
        remarks: on the rows that were read; local, never sent or logged.
    """

    levels: NDArray[np.int64]
    event: Event
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProtectTask:
    """What is needed to mask and encrypt one contribution into ``path``."""

    levels: NDArray[np.int64]
    layout: Layout
    contributors: int
    me: str
    pair_keys: dict[str, bytes]
    tag_key: bytes
    secret: bytes
    path: Path


@dataclass(frozen=True)
class OpenTask:
    """What is needed to open the sum in ``path``; the integers go to ``target``."""

    path: Path
    target: Path
    layout: Layout
    contributors: int
    offset: int
    tag_key: bytes
    secret: bytes


@dataclass(frozen=True)
class ModelTask:
    """What is needed to write the model that a finished job's sums make."""

    directory: Path
    plan: Plan
    aggregates: tuple[str, ...]
    target: Path


@dataclass(frozen=True)
class Built:
    """A written model.

    Attributes:
        facts: SHA-256 and size of its file.
        epsilon_pld: of the plan, by the second accountant, which is heavy to load.
        metrics: noised means over all silos' held-out rows, where the plan releases them.
    """

    facts: dict[str, Any]
    epsilon_pld: float
    metrics: dict[str, float] | None


class Worker:
    """One spawned process; a task that kills it fails, the next starts a new one."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def contribute(self, task: ContributionTask) -> Drawn:
        """Read rows, sum, clamp, add the noise share."""
        return await self._run(draw_contribution, task)

    async def protect(self, task: ProtectTask) -> StreamSummary:
        """Pack, mask, tag, encrypt, write durably."""
        return await self._run(write_stream, task)

    async def open(self, task: OpenTask) -> bytes:
        """Decrypt and check a sum; returns the canonical bytes of the opened integers."""
        return await self._run(open_stream, task)

    async def write_model(self, task: ModelTask) -> Built:
        """Post-process the sums into ``target``; returns what the model card says of it."""
        return await self._run(build_model, task)

    async def make_secret_key(self) -> bytes:
        """A fresh BFV key for a job this silo leads."""
        return await self._run(_make_secret_key)

    async def check_secret_key(self, secret: bytes) -> None:
        """Build the context from the plan's constants and a received key, once, away from the agent."""
        await self._run(_check_secret_key, secret)

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            for process in (self._pool._processes or {}).values():
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    async def _run(self, function: Callable[..., R], *args: object) -> R:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        except BrokenProcessPool as error:
            self._pool = None
            raise HostError(
                "the worker process died", remedy="see its last lines in the log; memory may be short"
            ) from error


def _begin() -> None:
    """Leave Ctrl-C to the agent, and end with it: nobody may write beside a killed agent's successor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ── tasks, run in the worker ──


def draw_contribution(task: ContributionTask) -> Drawn:
    """One silo's levels for one round: clipped per user, clamped, noised."""
    from silo.rows import load_rows

    shape = schedule(task.plan)[task.round - 1]
    rows = load_rows(task.directory, task.plan, task.dataset)
    if shape.purpose == "metrics":
        from silo.metrics import contribute_metrics

        signal = contribute_metrics(_recommender(task.plan, rows.catalogue, task.aggregates), rows, shape)
    else:
        family, state = _replay(task.plan, rows.catalogue, task.aggregates)
        signal = family.contribute(rows.train, state, task.round - 1, shape)
    drawn = noise_levels(signal, shape, task.plan)
    return replace(drawn, remarks=(*rows.report.lines(), *rows.report.warnings()))


def noise_levels(signal: NDArray[np.int64], shape: RoundShape, plan: Plan) -> Drawn:
    """Clamp to the public range, add this silo's noise share, shift to non-negative levels."""
    from privacy.noise import NoiseError, NoiseShare

    if isinstance(shape.event, PureEvent):
        raise NoiseError("a secure sum is noised by a Gaussian, and its event says so", where="event")
    share = NoiseShare(
        shape.share_std,
        num_shares=plan.num_noise_shares,
        sensitivity=shape.sensitivity,
        promised=shape.event,
    )
    noised, event = share.add_to(np.clip(signal, shape.signal_min, shape.signal_max))
    np.clip(noised, shape.offset, shape.signal_max + shape.headroom, out=noised)
    return Drawn(noised - shape.offset, event)


def write_stream(task: ProtectTask) -> StreamSummary:
    """Write the protected frames, each behind its length, as one durable file."""
    from privacy.encryption import frames
    from privacy.encryption.keyholder import KeyHolder
    from privacy.securesum import protect

    holder = KeyHolder.from_secret(task.secret)
    protected = protect(
        task.levels,
        task.layout,
        contributors=task.contributors,
        pair_keys=task.pair_keys,
        me=task.me,
        tag_key=task.tag_key,
        holder=holder,
    )
    part = task.path.with_name(task.path.name + ".part")
    with part.open("wb") as file:
        summary = frames.write_stream(file, protected)
        file.flush()
        os.fsync(file.fileno())
    part.replace(task.path)
    return summary


def open_stream(task: OpenTask) -> bytes:
    """Decrypt, check tag, range and padding, remove the public offsets, write the integers durably."""
    from privacy.encryption.frames import read_stream
    from privacy.encryption.keyholder import KeyHolder
    from privacy.securesum import open_sum

    with task.path.open("rb") as file:
        sums = open_sum(
            read_stream(file, task.layout.num_frames),
            task.layout,
            contributors=task.contributors,
            tag_key=task.tag_key,
            holder=KeyHolder.from_secret(task.secret),
        )
    sums += task.contributors * task.offset
    part = task.target.with_name(task.target.name + ".part")
    with part.open("wb") as file:
        np.save(file, sums)
        file.flush()
        os.fsync(file.fileno())
    part.replace(task.target)
    return hashlib.sha256(sums.astype("<i8").tobytes()).digest()


def build_model(task: ModelTask) -> Built:
    """Replay the sums and write the model file."""
    from silo.data.catalogue import Catalogue

    plan, sha256 = task.plan, task.plan.catalogue.sha256
    catalogue = Catalogue.load(task.directory / "catalogues" / f"{sha256}.jsonl", sha256)
    recommender = _recommender(plan, catalogue, task.aggregates)
    recommender.save(task.target, {"family": plan.model.family, "catalogue_sha256": sha256})
    with task.target.open("rb") as file:
        facts = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "num_bytes": file.tell()}
        os.fsync(file.fileno())
    return Built(facts, plan_epsilon_pld(plan), _metrics(plan, task.aggregates[plan.training.rounds :]))


def _metrics(plan: Plan, aggregates: tuple[str, ...]) -> dict[str, float] | None:
    shape = metrics_shape(plan)
    if shape is None or not aggregates:
        return None
    from silo.metrics import released_metrics

    return released_metrics(np.load(aggregates[0], allow_pickle=False), shape)


def _replay(plan: Plan, catalogue: Any, aggregates: tuple[str, ...]) -> tuple[Any, Any]:
    from silo.models.base import get_family

    family = get_family(plan)(plan, catalogue)
    state = family.initial_state()
    shapes = schedule(plan)
    for index, path in enumerate(aggregates[: plan.training.rounds]):
        state = family.absorb(state, np.load(path, allow_pickle=False), index, shapes[index])
    return family, state


def _recommender(plan: Plan, catalogue: Any, aggregates: tuple[str, ...]) -> Any:
    family, state = _replay(plan, catalogue, aggregates)
    return family.finish(state)


def _make_secret_key() -> bytes:
    from privacy.encryption.keyholder import KeyHolder

    return KeyHolder.generate().secret_bytes()


def _check_secret_key(secret: bytes) -> None:
    from privacy.encryption.keyholder import KeyHolder

    KeyHolder.from_secret(secret)
