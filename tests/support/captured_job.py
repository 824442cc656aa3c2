"""The recorded job in the terms of the protocol: what each party held while it ran.

A test plays an adversary by using only what the corrupted parties held: the coordinator's frames and posts,
the :class:`SiloSecrets` of the silos that help it. The rest is the truth that its guesses are compared with.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from federation.messages import Ephemeral, PostKind, parse_envelope
from federation.rounds import JobState, fold
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from privacy.agreement import EphemeralKey, Purpose, pair_key
from privacy.encryption.frames import read_stream
from privacy.encryption.keyholder import KeyHolder
from privacy.masking import Masks
from privacy.packing import PLAIN_MODULUS
from silo.audit.attack.streams import open_streams
from silo.finished import load_finished
from silo.models.base import get_family
from silo.rows import load_rows
from tests.support.recorded_demo import HUB, SILOS, RecordedDemo

Integers = NDArray[np.int64]

GROUP_KEY_BYTES = 32
__all__ = ["CapturedJob", "SiloSecrets", "open_streams"]
FIRST = {"round": 1, "attempt": 1}


@dataclass(frozen=True)
class SiloSecrets:
    """What one silo's outbox held.

    Attributes:
        name: the silo's.
        secret: the job's BFV key.
        group_key: the job's group key.
        start_key: its ephemeral private key of the job's start.
        round_key: its ephemeral private key of round 1, attempt 1.
        levels: its contribution, noised.
    """

    name: str
    secret: bytes
    group_key: bytes
    start_key: bytes
    round_key: bytes
    levels: Integers


class CapturedJob:
    """One (round, attempt) of the recorded job."""

    def __init__(self, demo: RecordedDemo) -> None:
        self.demo = demo
        self.names = SILOS

    @cached_property
    def state(self) -> JobState:
        """The job as the coordinator's posts had it at the time."""
        with closing(sqlite3.connect(self.demo.captured / "coordinator" / "coordinator.db")) as database:
            rows = database.execute("SELECT envelope FROM posts WHERE job = ? ORDER BY seq", (self.demo.job,))
            return fold([parse_envelope(raw) for (raw,) in rows], HUB)

    @property
    def plan(self) -> Plan:
        """The plan everybody signed."""
        return self.state.plan

    @cached_property
    def shape(self) -> RoundShape:
        """Of the one round."""
        return schedule(self.plan)[0]

    # ── the coordinator's ────────────────────────────────────────────────────────────────────────────────

    def frames(self, silo: str) -> list[bytes]:
        """The stream a silo sent."""
        return self._frames(self.demo.captured / "spool" / f"stream-1-1-{silo}")

    @cached_property
    def sum_frames(self) -> list[bytes]:
        """The sum the coordinator gave out."""
        return self._frames(self.demo.captured / "spool" / f"sum-1-1-{HUB}")

    def public_key(self, silo: str) -> bytes:
        """A silo's signed ephemeral public key of the round."""
        posted = self.state.post(PostKind.EPHEMERAL, silo, **FIRST)
        assert posted is not None
        return bytes.fromhex(posted.content(Ephemeral).public_key)

    def _frames(self, path: Path) -> list[bytes]:
        with path.open("rb") as file:
            return list(read_stream(file, self.shape.layout.num_frames))

    # ── the silos' ───────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def silos(self) -> dict[str, SiloSecrets]:
        """Every silo's secrets; an adversary uses those of the corrupted ones."""
        return {name: self._secrets(name) for name in self.names}

    def _secrets(self, name: str) -> SiloSecrets:
        with closing(sqlite3.connect(self.demo.captured / name / "outbox" / "outbox.db")) as database:
            stored = dict(
                database.execute("SELECT name, value FROM secrets WHERE job = ?", (self.demo.job,)).fetchall()
            )
            ((levels, round_key),) = database.execute(
                "SELECT levels, private_key FROM contributions WHERE job = ?", (self.demo.job,)
            ).fetchall()
        job_secrets = stored["job-secrets"]
        return SiloSecrets(
            name,
            job_secrets[:-GROUP_KEY_BYTES],
            job_secrets[-GROUP_KEY_BYTES:],
            stored["start-key"],
            round_key,
            np.frombuffer(levels, dtype="<i8").astype(np.int64),
        )

    def aggregate(self, silo: str) -> Integers:
        """The sums a silo opened."""
        opened: Integers = np.load(self.demo.captured / silo / "aggregate-1.npy", allow_pickle=False)
        return opened

    def exact(self, silo: str) -> Integers:
        """A silo's contribution before noise, from the rows in its directory, clamped as the plan says."""
        finished = load_finished(self.demo.silo(silo))
        rows = load_rows(self.demo.silo(silo), self.plan, finished.dataset)
        family = get_family(self.plan)(self.plan, finished.catalogue)
        signal = family.contribute(rows.train, family.initial_state(), 0, self.shape)
        return np.clip(signal, self.shape.signal_min, self.shape.signal_max)

    def packed(self, silo: str) -> Integers:
        """A silo's slots before they were masked, the place of the tag included."""
        return self.shape.layout.pack(self.silos[silo].levels)

    # ── what keys open ───────────────────────────────────────────────────────────────────────────────────

    def decrypt(self, frames: list[bytes], secret: bytes) -> Integers:
        """Slots of one silo's frames under a BFV key."""
        return open_streams(frames, KeyHolder.from_secret(secret))

    def pair_key(self, mine: SiloSecrets, peer: str) -> bytes:
        """The mask key that a corrupted silo shares with a peer."""
        return pair_key(
            EphemeralKey.from_bytes(mine.round_key), self.public_key(peer), self.state.transcript(1, 1),
            Purpose.MASK, round_number=1, attempt=1, a=mine.name, b=peer,
        )  # fmt: skip

    def peeled(self, victim: str, colluders: tuple[str, ...]) -> Integers:
        """The victim's slots without every mask that the colluders know; tag slot left out."""
        helper = self.silos[colluders[0]]
        slots = self.decrypt(self.frames(victim), helper.secret)[:-1]
        known = {name: self.pair_key(self.silos[name], victim) for name in colluders}
        masks = Masks(known, victim).apply(np.zeros_like(slots))
        return (slots - masks) % PLAIN_MODULUS
