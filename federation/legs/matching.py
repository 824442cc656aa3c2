"""Finding the people in common, in a process of its own that holds no key and little memory.

What is done with the blinded lists is a function that whoever runs the coordinator passes in
(:class:`Match`); it must be importable by name, because the process starts by ``spawn``.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import resource
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from federation.messages import SlotFile
from federation.store import sync_directory
from policies.plans.vertical.terms import AlignmentTerms
from privacy.errors import HostError

MATCH_MEMORY_BYTES = 4 << 30
"""Address space of the process: it holds every list at once."""

TOO_FEW = "too few people in common, by the plan's noised count"
"""All that is ever said about it: no number, and the same words however many were missing."""


class MatchingError(HostError):
    """The matching process ended without an answer."""

    code = "matching"


@dataclass(frozen=True)
class Found:
    """Enough people are in common.

    Attributes:
        spine_slots: slots of the spine.
    """

    spine_slots: int


class TooFew:
    """Too few people are in common. Carries nothing."""


class Match(Protocol):
    """What finds the people in common."""

    def __call__(
        self, lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]
    ) -> Found | TooFew:
        """Match blinded lists.

        Args:
            lists: by the silo whose people they are, in the roster's order; each file comes from the silo
                before, round the ring.
            terms: the plan's; the number of people in common is noised before it is compared.
            slots: file to write for each silo, if enough are in common.
        """
        ...


@dataclass(frozen=True)
class Matching:
    """A written, durable answer: the number of slots and the manifest of each silo's file."""

    spine_slots: int
    slots: dict[str, SlotFile]


async def run_match(
    match: Match, lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]
) -> Matching | None:
    """Match in a fresh process; the slot files are durable when it returns. None: too few.

    Args:
        match: see :class:`Match`.
        lists: by the silo whose people they are, whole and of the signed digests.
        terms: the plan's.
        slots: where each silo's slot file goes. Whatever an answer that nobody saw left there is replaced.

    Raises:
        MatchingError: the process died, met its memory limit, or could not read the lists.
        OSError: a file that cannot be written.
    """
    parts = {silo: path.with_name(f"{path.name}.new") for silo, path in slots.items()}
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _limit, (MATCH_MEMORY_BYTES,))
    try:
        answer = await asyncio.wrap_future(pool.submit(match, lists, terms, parts))
        if isinstance(answer, TooFew):
            return None
        return await asyncio.to_thread(_keep, answer, parts, slots)
    except (BrokenProcessPool, MemoryError, RuntimeError, ValueError) as error:
        raise MatchingError(
            f"the matching process ended without an answer: {type(error).__name__}",
            remedy="if it died, look into the system log for the out-of-memory killer",
        ) from error
    finally:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        for part in parts.values():
            part.unlink(missing_ok=True)


def _limit(memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _keep(found: Found, parts: Mapping[str, Path], slots: Mapping[str, Path]) -> Matching:
    """Make the files durable under their names."""
    manifests = {}
    for silo, part in parts.items():
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            manifests[silo] = SlotFile(sha256=sha256, num_bytes=file.tell())
            os.fsync(file.fileno())
        part.replace(slots[silo])
        sync_directory(slots[silo].parent)
    return Matching(found.spine_slots, manifests)
