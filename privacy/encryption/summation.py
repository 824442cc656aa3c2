"""Adding frames without any key: what the coordinator does, and what a silo repeats to check it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tenseal import _ts_cpp

from privacy.encryption.contexts import keyless_context_bytes, load_own_context
from privacy.encryption.frames import FrameError, check_frame, from_protobuf, to_protobuf
from privacy.packing import MAX_ROSTER_SIZE


class Summation:
    """A keyless context that adds the frames of one index, one silo after the other.

    Addition is exact and commutes, and the result's bytes depend only on the frames' bytes: whoever
    repeats it gets the same bytes. Memory: one accumulator and one frame, whatever the number of silos.

    Meant for a worker process: TenSEAL holds the interpreter's lock.
    """

    def __init__(self) -> None:
        self._context = load_own_context(keyless_context_bytes())

    def sum_frames(self, frames: Iterable[bytes]) -> bytes:
        """Return the full frame of the sum of these frames (2 to 190, seeded or full).

        Raises:
            FrameError: a frame that is none, too few or too many, or a sum that became transparent.
        """
        accumulator: Any = None
        count = 0
        for frame in frames:
            check_frame(frame)
            vector = self._load(frame)
            count += 1
            if accumulator is None:
                accumulator = vector
            else:
                self._add(accumulator, vector)
        if not 2 <= count <= MAX_ROSTER_SIZE:
            raise FrameError(f"{count} frames were to be summed; 2 to {MAX_ROSTER_SIZE} can be")
        return from_protobuf(bytes(accumulator.serialize()))

    def expand(self, frame: bytes) -> bytes:
        """Return a seeded frame as a full one: its second polynomial is public, drawn from the seed.

        Raises:
            FrameError: a frame that is none.
        """
        check_frame(frame)
        return from_protobuf(bytes(self._load(frame).serialize()))

    def _load(self, frame: bytes) -> Any:
        try:
            return _ts_cpp.BFVVector(self._context.data, to_protobuf(frame))
        except (RuntimeError, ValueError) as error:
            raise FrameError("a frame that SEAL does not load") from error

    def _add(self, accumulator: Any, vector: Any) -> None:
        try:
            accumulator.add_(vector)
        except (RuntimeError, ValueError) as error:
            raise FrameError("frames whose sum is transparent: one was made from the others") from error
