"""Summing the silos' streams in a process of its own, which holds no key and little memory.

The coordinator does this to answer a round, a silo repeats it to check the coordinator
(``verify_sums``): the same streams give the same bytes. Native code meets peers' ciphertexts only in
the worker, so whatever they might do to it ends there.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from privacy.encryption.frames import StreamSummary, read_stream, write_stream
from privacy.errors import ArchipelError, HostError

DEFAULT_MEMORY_BYTES = 1 << 30
"""Address space of the worker: four times what it needs, whatever the number of silos and frames."""


class AggregationError(HostError):
    """The summing process ended without a sum."""

    code = "aggregation"


class SumWorker:
    """Sums the streams of one round at a time, in a process of its own.

    Args:
        memory_bytes: limit of the process's address space.
        keeps_process: whether the process stays for the next sum: a job of many rounds then waits for its
            start once. One that fails is not kept. :meth:`close` ends it.
    """

    def __init__(self, memory_bytes: int = DEFAULT_MEMORY_BYTES, *, keeps_process: bool = False) -> None:
        self._memory_bytes = memory_bytes
        self._keeps_process = keeps_process
        self._turn = asyncio.Lock()
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    async def sum(self, streams: Sequence[Path], num_frames: int, out: Path) -> StreamSummary:
        """Sum streams frame by frame.

        Args:
            streams: one file per contributor, whole and of the signed digest.
            num_frames: frames in each, from the plan's layout.
            out: where the sum's stream is written, durable and whole or not at all.

        Returns:
            Digest, size and number of frames of ``out``.

        Raises:
            FrameError: a stream that is not ``num_frames`` frames of this sum (``where`` names its file).
            AggregationError: the process died or met its memory limit.
            OSError: a file that cannot be read or written.
        """
        async with self._turn:
            is_done = False
            try:
                connection = self._connect()
                connection.send((tuple(streams), num_frames, out))
                summary = await asyncio.to_thread(_answer, connection)
                is_done = True
            except (EOFError, BrokenPipeError, ConnectionResetError) as error:
                raise AggregationError(
                    "the summing process died before it had a sum",
                    where=str(out),
                    remedy="look into the system log for the out-of-memory killer",
                ) from error
            finally:
                if not (is_done and self._keeps_process):
                    self.close()
            return summary

    def close(self) -> None:
        """End the process if one runs; its sum fails."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _connect(self) -> Connection:
        """The process, made anew where there is none, or it died between two sums."""
        if self._connection is None or self._process is None or not self._process.is_alive():
            self.close()
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            arguments = (theirs, self._memory_bytes)
            self._process = context.Process(target=_work, args=arguments, name="archipel-sum", daemon=True)
            self._process.start()
            theirs.close()
        return self._connection


def _answer(connection: Connection) -> StreamSummary:
    answer = connection.recv()
    if isinstance(answer, StreamSummary):
        return answer
    raise answer


def _work(connection: Connection, memory_bytes: int) -> None:
    """Run in the worker: answer each task with the summary or with the error, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(EOFError):
        while True:
            streams, num_frames, out = connection.recv()
            connection.send(_sum_or_error(streams, num_frames, out, memory_bytes))


def _sum_or_error(
    streams: tuple[Path, ...], num_frames: int, out: Path, memory_bytes: int
) -> StreamSummary | Exception:
    try:
        return sum_to_file(streams, num_frames, out)
    except (ArchipelError, OSError) as error:
        return error
    except (MemoryError, RuntimeError) as error:
        return AggregationError(
            f"summing failed within {memory_bytes} bytes of address space: {error}",
            where=str(out),
            remedy="raise the limit",
        )


def sum_to_file(streams: tuple[Path, ...], num_frames: int, out: Path) -> StreamSummary:
    """Sum streams in this process; arguments and errors as for :meth:`SumWorker.sum`.

    Writes beside ``out``, makes it durable, then moves it there; leaves nothing half-written.
    """
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            summary = write_stream(file, _sums(streams, num_frames))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return summary


def _sums(streams: tuple[Path, ...], num_frames: int) -> Iterator[bytes]:
    from privacy.encryption.summation import Summation

    summation = Summation()
    with contextlib.ExitStack() as stack:
        readers = [
            read_stream(stack.enter_context(path.open("rb")), num_frames, where=path.name) for path in streams
        ]
        for _ in range(num_frames):
            yield summation.sum_frames(next(reader) for reader in readers)
        for reader in readers:
            next(reader, None)
