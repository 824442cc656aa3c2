"""Who watches: notes of what left, what was masked and what was opened, taken where it happens.

A probe runs the production function and writes down its arguments and results before anything is erased. It
changes nothing, but for the two faults that belong to a worker: a machine that opens a sum wrongly, and keys
that are taken from a pool because making one takes longer than the rest of a simulation.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from typing_extensions import override

from federation.aggregation import SumWorker, sum_to_file
from federation.legs.matching import Match, Matching, TooFew
from federation.messages import Ephemeral, Place, PostKind, SlotFile, parse_envelope
from policies.plans.vertical.terms import AlignmentTerms
from privacy.encryption.frames import StreamSummary
from privacy.errors import ArchipelError
from silo import tasks
from silo.tasks import OpenTask, ProtectTask
from silo.worker import Worker
from tests.simulation.processes import Process

R = TypeVar("R")

WRONG_BY = 7


class At(NamedTuple):
    """One silo's part of one attempt."""

    silo: str
    round: int
    attempt: int


class Notebook:
    """What was seen in one simulation.

    Attributes:
        levels: contributions by the digest of the stream that carries them; where a crash made a silo write
            its stream twice, there are two streams of one contribution.
        streams: digests of the streams written for one place.
        masked: by mask key (each known to two silos) what each silo masked with it, and where.
        opened: integers of every opening, as they went to the file.
        ephemerals: public keys by the place they were sent for, arrived or not.
        sent: canonical bytes of every post that reached the coordinator, by its place.
        secrets: keys that no disk may hold at the end.
        wrongs: what a probe saw that must not happen.
    """

    def __init__(self) -> None:
        self.levels: dict[str, tuple[At, bytes]] = {}
        self.streams: dict[At, set[str]] = defaultdict(set)
        self.masked: dict[bytes, dict[str, set[tuple[At, bytes]]]] = defaultdict(_sets)
        self.opened: dict[At, list[bytes]] = defaultdict(list)
        self.ephemerals: dict[str, set[Place]] = defaultdict(set)
        self.sent: dict[Place, set[bytes]] = defaultdict(set)
        self.secrets: set[bytes] = set()
        self.wrongs: list[str] = []

    def copy(self) -> Notebook:
        """The same notes, to go on with."""
        return copy.deepcopy(self)

    def note_stream(self, task: ProtectTask, written: StreamSummary) -> None:
        """A contribution was masked and encrypted."""
        at = _at(task.me, task.path)
        levels = task.levels.astype("<i8").tobytes()
        self.levels[written.sha256] = at, levels
        self.streams[at].add(written.sha256)
        for key in task.pair_keys.values():
            self.masked[key][task.me].add((at, levels))
        self.secrets.update((task.secret, task.tag_key, *task.pair_keys.values()))

    def note_opening(self, silo: str, task: OpenTask) -> None:
        """A sum was opened into its file."""
        self.opened[_at(silo, task.target.with_suffix(""))].append(_integers(task.target))

    def note_post(self, raw: bytes) -> None:
        """A post reached the coordinator."""
        try:
            envelope = parse_envelope(raw)
        except ArchipelError as error:
            self.wrongs.append(f"a post that cannot be read was sent: {error}")
            return
        self.sent[envelope.place].add(raw)
        if envelope.kind is PostKind.EPHEMERAL:
            self.ephemerals[envelope.content(Ephemeral).public_key].add(envelope.place)


class KeyPool:
    """Job keys that production code made, used by many simulations one after the other."""

    def __init__(self, size: int) -> None:
        self._keys = [tasks.make_secret_key() for _ in range(size)]

    def key_of(self, seed: int) -> bytes:
        """The job key of a simulation."""
        return self._keys[seed % len(self._keys)]


class WatchedWorker(Worker):
    """A silo's worker whose tasks run in virtual time, in the silo's own process.

    Args:
        process: whose.
        notebook: takes the notes.
        key: the job key if this silo makes it.
        wrong_openings: numbers of the openings that this machine gets wrong, counted from 1 over its life.
    """

    def __init__(
        self, process: Process, notebook: Notebook, key: bytes, wrong_openings: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self._process = process
        self._notebook = notebook
        self._key = key
        self._wrong_openings = wrong_openings
        self._num_openings = 0

    @override
    async def run(self, function: Callable[..., R], *args: object) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, partial(self._watched, function, *args))

    def _watched(self, function: Callable[..., R], *args: object) -> R:
        if function is tasks.make_secret_key:
            return self._key  # type: ignore[return-value]
        result = function(*args)
        match args, result:
            case (ProtectTask() as task,), StreamSummary() as written:
                self._notebook.note_stream(task, written)
            case (OpenTask() as task,), bytes():
                self._num_openings += 1
                if self._num_openings in self._wrong_openings:
                    return self._spoil(task)  # type: ignore[return-value]
                self._notebook.note_opening(self._process.party, task)
        return result

    def _spoil(self, task: OpenTask) -> bytes:
        """Make file and digest agree with each other and not with anybody else's, as a wrong machine does."""
        good = np.load(task.target)
        np.save(task.target, good + WRONG_BY)
        return hashlib.sha256((good + WRONG_BY).astype("<i8").tobytes()).digest()


class InlineAdder(SumWorker):
    """The summing process' work in virtual time, in the process that asks for it."""

    @override
    async def sum(self, streams: Sequence[Path], num_frames: int, out: Path) -> StreamSummary:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, sum_to_file, tuple(streams), num_frames, out)


async def match_inline(
    match: Match, lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]
) -> Matching | None:
    """The matching process' work in virtual time, in the process that asks for it."""
    loop = asyncio.get_running_loop()
    answer = await loop.run_in_executor(None, match, lists, terms, slots)
    if isinstance(answer, TooFew):
        return None
    return Matching(
        answer.spine_slots,
        {
            silo: SlotFile(
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), num_bytes=path.stat().st_size
            )
            for silo, path in slots.items()
        },
    )


def _sets() -> dict[str, set[tuple[At, bytes]]]:
    return defaultdict(set)


def _integers(path: Path) -> bytes:
    integers: bytes = np.load(path, allow_pickle=False).astype("<i8").tobytes()
    return integers


def _at(silo: str, path: Path) -> At:
    _, round_, attempt = path.name.rsplit("-", 2)
    return At(silo, int(round_), int(attempt))
