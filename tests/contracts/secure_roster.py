"""A roster of silos that share one job's keys, made by the product's own functions."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from privacy.agreement import EphemeralKey, Purpose, pair_key, tag_key
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.summation import Summation
from privacy.packing import Integers, Layout
from privacy.securesum import open_sum, protect

JOB_ID = "ab" * 32


@dataclass
class Roster:
    """Silos ``a``, ``b``, … of one job, with one BFV key and one group key."""

    size: int
    holder: KeyHolder = field(default_factory=KeyHolder.generate)
    group_key: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def names(self) -> list[str]:
        return [chr(ord("a") + index) for index in range(self.size)]

    def tag_key(self, attempt: int = 0) -> bytes:
        return tag_key(self.group_key, JOB_ID, 1, attempt)

    def pair_keys(
        self, attempt: int = 0, *, absent: frozenset[str] = frozenset()
    ) -> dict[str, dict[str, bytes]]:
        """Agree fresh mask keys for one (round, attempt): contributor -> other contributor -> key."""
        private = {name: EphemeralKey.generate() for name in self.names if name not in absent}
        transcript = b"".join(key.public_bytes() for key in private.values())
        return {
            me: {
                peer: pair_key(
                    private[me],
                    private[peer].public_bytes(),
                    transcript,
                    Purpose.MASK,
                    round_number=1,
                    attempt=attempt,
                    a=me,
                    b=peer,
                )
                for peer in private
                if peer != me
            }
            for me in private
        }

    def levels(self, layout: Layout, seed: int = 0) -> dict[str, Integers]:
        rng = np.random.default_rng(seed)
        return {name: rng.integers(0, layout.max_level + 1, layout.values) for name in self.names}

    def streams(
        self,
        layout: Layout,
        levels: dict[str, Integers],
        *,
        keys: dict[str, dict[str, bytes]] | None = None,
        attempt: int = 0,
    ) -> dict[str, list[bytes]]:
        """What each contributor, the silos of ``levels``, sends in one attempt."""
        keys = keys or self.pair_keys(attempt, absent=frozenset(self.names) - set(levels))
        return {
            me: list(
                protect(
                    levels[me],
                    layout,
                    contributors=len(keys),
                    pair_keys=keys[me],
                    me=me,
                    tag_key=self.tag_key(attempt),
                    holder=self.holder,
                )
            )
            for me in levels
        }

    def open(
        self, frames: list[bytes], layout: Layout, *, attempt: int = 0, contributors: int | None = None
    ) -> Integers:
        count = self.size if contributors is None else contributors
        return open_sum(frames, layout, contributors=count, tag_key=self.tag_key(attempt), holder=self.holder)


def add_streams(*streams: list[bytes]) -> list[bytes]:
    """What an honest coordinator makes of the streams."""
    summation = Summation()
    return [summation.sum_frames(frames) for frames in zip(*streams, strict=True)]
