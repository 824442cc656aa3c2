"""What a silo's worker process does: the only place where rows are read and noise is drawn.

Each task is one value and one function of it. What comes back to the agent is noised integers with the event
of the noise, or paths and digests; what may be wanted again stays in the job's :mod:`silo.session`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from policies.plans.plan import Plan
from policies.plans.price import RoundShape, metrics_shape, schedule
from policies.silo_policy import Dataset
from privacy.encryption.frames import StreamSummary
from privacy.events import Event, EventCount, SelfComposedEvent
from privacy.packing import Layout
from silo.progress import note_loss
from silo.session import Course, end_session, session_of

if TYPE_CHECKING:
    from privacy.noise import NoisedIntegers
    from silo.models.base import Family, State
    from silo.rows import Rows


@dataclass(frozen=True)
class PrepareTask:
    """A silo's directory, the job's in it, and the plan that was proposed."""

    directory: Path
    job_directory: Path
    plan: Plan


@dataclass(frozen=True)
class ContributionTask:
    """What is needed to make one contribution.

    Attributes:
        course: the job so far; this contribution is to the round after its last sum.
        dataset: the one dataset the silo's policy maps the plan's purpose to.
        contributors: silos of this attempt, this one included.
    """

    course: Course
    dataset: Dataset
    contributors: int

    @property
    def round(self) -> int:
        """1-based."""
        return len(self.course.sums) + 1


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
    """What is needed to mask and encrypt one contribution into ``path``, for the job in ``job_directory``."""

    job_directory: Path
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

    job_directory: Path
    path: Path
    target: Path
    layout: Layout
    contributors: int
    offset: int
    tag_key: bytes
    secret: bytes


@dataclass(frozen=True)
class ModelTask:
    """What is needed to write the model that a job's sums make.

    Attributes:
        course: the job, as far as it came.
        model: file to write.
        checkpoint: file for what a later job can start from, where the family has such weights.
        events: what this silo's ledger committed for the job.
    """

    course: Course
    model: Path
    checkpoint: Path
    events: tuple[EventCount, ...]


@dataclass(frozen=True)
class Built:
    """A written model.

    Attributes:
        facts: SHA-256 and size of its file.
        checkpoint_sha256: of the checkpoint beside it, if there is one.
        epsilon_pld: of the committed events, by the second accountant, which is heavy to load.
        metrics: noised means over all silos' held-out rows, where the job came to release them.
    """

    facts: dict[str, Any]
    checkpoint_sha256: str | None
    epsilon_pld: float
    metrics: dict[str, float] | None


def catch_up(course: Course) -> tuple[str, ...]:
    """Bring the kept state to the end of ``course``; returns what was found damaged and rebuilt.

    Raises:
        SumMissingError: a sum is needed that is not here.
        NoNextStateError: a sum leads nowhere.
    """
    session = session_of(course.job_directory)
    session.learned(course)
    repairs, session.repairs = tuple(session.repairs), []
    return repairs


def draw_contribution(task: ContributionTask) -> Drawn:
    """One silo's levels for one round: clipped per user, clamped, noised; noised anew in each local step."""
    course = task.course
    session, shape = session_of(course.job_directory), schedule(course.plan)[task.round - 1]
    family, state = session.learned(course)
    rows = session.rows(course.directory, course.plan, task.dataset)
    signal = partial(_signal, family, rows, task.round - 1, shape)
    noised, event = _noised_steps(signal, family, state, shape, task.contributors)
    levels = np.clip(noised, shape.offset, shape.signal_max + shape.headroom) - shape.offset
    note_loss(course.job_directory, len(course.sums), family, state, session.some_users(rows))
    return Drawn(levels, event, (*rows.report.lines(), *rows.report.warnings()))


def add_noise(signal: NDArray[np.int64], shape: RoundShape, contributors: int) -> NoisedIntegers:
    """Clamp one step's signal to its public range and add this silo's share of the noise, drawn now.

    Args:
        signal: (values,) of one step.
        shape: the round's.
        contributors: silos among which the promised noise is shared.
    """
    from privacy.noise import NoiseShare

    share = NoiseShare(
        shape.share_std_among(contributors),
        num_shares=shape.num_shares_among(contributors),
        sensitivity=shape.sensitivity,
        promised=shape.step_event,
    )
    return share.add_to(np.clip(signal, shape.step_signal_min, shape.step_signal_max))


def write_stream(task: ProtectTask) -> StreamSummary:
    """Write the protected frames, each behind its length, as one durable file."""
    from privacy.encryption import frames
    from privacy.securesum import protect

    protected = protect(
        task.levels,
        task.layout,
        contributors=task.contributors,
        pair_keys=task.pair_keys,
        me=task.me,
        tag_key=task.tag_key,
        holder=session_of(task.job_directory).holder(task.secret),
    )
    part = task.path.with_name(task.path.name + ".part")
    with part.open("wb") as file:
        summary = frames.write_stream(file, protected)
        file.flush()
        os.fsync(file.fileno())
    part.replace(task.path)
    return summary


def open_stream(task: OpenTask) -> bytes:
    """Decrypt, check tag, range and padding, remove the public offsets, write the integers durably.

    Returns:
        SHA-256 of the opened integers in their canonical form.
    """
    from privacy.encryption.frames import read_stream
    from privacy.securesum import open_sum

    with task.path.open("rb") as file:
        sums = open_sum(
            read_stream(file, task.layout.num_frames),
            task.layout,
            contributors=task.contributors,
            tag_key=task.tag_key,
            holder=session_of(task.job_directory).holder(task.secret),
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
    """Write the model of the state that the job came to, and its checkpoint.

    Raises:
        SumMissingError: a sum is needed that is not here.
        NoNextStateError: a sum leads nowhere.
    """
    from privacy.accounting import epsilon_pld
    from silo.checkpoints import save_checkpoint

    course, plan = task.course, task.course.plan
    family, state = session_of(course.job_directory).learned(course)
    about = {"family": plan.model.family, "catalogue_sha256": family.catalogue.sha256}
    family.finish(state).save(task.model, about)
    with task.model.open("rb") as file:
        facts = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "num_bytes": file.tell()}
        os.fsync(file.fileno())
    weights = family.checkpoint(state)
    sha256 = None if weights is None else save_checkpoint(task.checkpoint, weights, family=plan.model.family)
    return Built(facts, sha256, epsilon_pld(task.events, plan.privacy.target_delta), _metrics(course))


def prepare(task: PrepareTask) -> None:
    """Build and test what a job's rounds will need and no row enters, while no round waits for it.

    Raises:
        DataError: the checkpoint that the plan starts from is missing or does not fit.
        UsageError: the model cannot be trained, whatever the rows.
    """
    session_of(task.job_directory).family(task.directory, task.plan).self_test()


def forget_state(job_directory: Path) -> None:
    """Drop a job's trained state; what needs it replays the sums."""
    session_of(job_directory).forget_state()


def forget_job(job_directory: Path) -> None:
    """Drop everything that is kept of a job that has ended."""
    from silo.vertical.moments import feature_tasks

    end_session(job_directory)
    feature_tasks.forget(job_directory)


def make_secret_key() -> bytes:
    """A fresh BFV key for a job this silo leads."""
    from privacy.encryption.keyholder import KeyHolder

    return KeyHolder.generate().secret_bytes()


def check_secret_key(secret: bytes) -> None:
    """Build the context from the plan's constants and a received key, once, away from the agent."""
    from privacy.encryption.keyholder import KeyHolder

    KeyHolder.from_secret(secret)


def _signal(
    family: Family, rows: Rows, round_index: int, shape: RoundShape, state: State
) -> NDArray[np.int64]:
    """What this silo's rows say in one step, exact."""
    if shape.purpose == "metrics":
        from silo.metrics import contribute_metrics

        return contribute_metrics(family.finish(state), rows, shape)
    return family.contribute(rows.train, state, round_index, shape)


def _noised_steps(
    signal: Callable[[State], NDArray[np.int64]],
    family: Family,
    state: State,
    shape: RoundShape,
    contributors: int,
) -> tuple[NDArray[np.int64], Event]:
    """The sum of the round's noised steps, each from where the one before led this silo, and their event."""
    total, events = np.zeros(shape.values, dtype=np.int64), []
    for _ in range(shape.steps):
        noised = add_noise(signal(state), shape, contributors)
        total += noised.values
        events.append(noised.event)
        if shape.steps > 1:
            state = family.step_locally(state, noised.values, shape)
    if shape.steps == 1:
        return total, events[0]
    return total, SelfComposedEvent(event=events[0], count=len(events))


def _metrics(course: Course) -> dict[str, float] | None:
    shape = metrics_shape(course.plan)
    if shape is None or len(course.sums) < len(schedule(course.plan)):
        return None
    from silo.metrics import released_metrics

    return released_metrics(course.integers(len(course.sums)), shape)
