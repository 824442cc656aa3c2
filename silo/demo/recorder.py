"""Recording a demo's job: what each adversary would see, copied while real processes run.

The recorder is nobody in the protocol. It reads the disks of all parties, which the demo alone can do. It
links streams as they arrive, because the coordinator forgets them with their round. When the last sum appears
it stops one agent for the moment in which it copies: the job cannot end before that, and when it ends every
secret is erased.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federation.identity import Party
from federation.job_state import JobState
from federation.messages import PostKind, parse_envelope
from federation.rounds import fold
from policies.files import write_atomically
from policies.plans.price import schedule
from privacy.agreement import tag_key
from privacy.encryption.frames import read_stream
from privacy.encryption.keyholder import SECRET_BYTES, KeyHolder
from privacy.errors import ArchipelError, HostError
from privacy.packing import Layout
from privacy.securesum import open_sum
from silo.audit.attack.recording import MANIFEST, Manifest, Place, SiloSecrets
from silo.demo.canaries import Cast
from silo.demo.processes import Processes
from silo.demo.world import World
from silo.finished import MODEL_FILE
from silo.jobs.context import JOB_SECRETS, START_KEY

_COMPLETE: Final = re.compile(r"(?:stream|sum)-(\d+)-\d+-[a-z0-9-]+")
POLL_SECONDS: Final = 0.003
ANNOUNCED_SECONDS: Final = 60.0
FIRST_ROUNDS: Final = 3
"""Streams of so many rounds are kept besides the last: enough to see a mask come back."""


class Recorder:
    """Writes ``RUN/recording`` while a job runs and after it.

    Args:
        world: the federation.
        cast: who is in it.
        seed: of the cast.
        colluders: silos that help the coordinator.
    """

    def __init__(self, world: World, cast: Cast, seed: int, colluders: tuple[str, ...]) -> None:
        self.directory = world.root / "recording"
        self.colluders = colluders
        honest = [name for name in world.names if name not in colluders]
        self.one_more = honest[-1] if len(honest) > 1 else None
        self._hub = Party.load(world.hub).name
        self._world, self._cast, self._seed = world, cast, seed
        self._streams = self.directory / "coordinator" / "streams"
        self._done = threading.Event()
        self._error: Exception | None = None
        self._place: Place | None = None

    @contextmanager
    def watching(self, job: str, processes: Processes) -> Iterator[None]:
        """Record for as long as the block, which follows the job, runs.

        Raises:
            ArchipelError: the job came to its end and the recording did not.
        """
        self.directory.mkdir(mode=0o700)
        self._streams.mkdir(parents=True)
        thread = threading.Thread(target=self._watch, args=(job, processes), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
        if self._error is not None:
            raise HostError(
                f"the job ran, its recording did not: {self._error}",
                where=str(self.directory),
                remedy="run the demo again",
            ) from self._error
        if self._place is None:
            raise HostError("the job's last sum was not seen", where=str(self.directory))

    # ── during the job ──

    def _watch(self, job: str, processes: Processes) -> None:
        try:
            last = len(schedule(self._world.plan()))
            while self._place is None and not self._done.is_set():
                self._link_streams(job, last)
                found = next(self._streams.glob(f"sum-{last}-*"), None)
                if found is not None:
                    place = Place(round=last, attempt=int(found.name.split("-")[2]))
                    self._capture(job, place, processes)
                    self._place = place
                time.sleep(POLL_SECONDS)
        except (ArchipelError, OSError, sqlite3.Error, ValueError) as error:
            self._error = error

    def _link_streams(self, job: str, last: int) -> None:
        spool = self._world.hub / "spool" / job
        for path in spool.glob("s*"):
            complete = _COMPLETE.fullmatch(path.name)
            target = self._streams / path.name
            if complete is None or target.exists():
                continue
            if (number := int(complete[1])) <= FIRST_ROUNDS or number == last:
                with suppress(FileNotFoundError):  # its round was over this very moment
                    os.link(path, target)

    def _capture(self, job: str, place: Place, processes: Processes) -> None:
        agent = processes.running[self._world.names[-1]]
        agent.send_signal(signal.SIGSTOP)
        try:
            self._copy(job, place)
        finally:
            agent.send_signal(signal.SIGCONT)

    def _copy(self, job: str, place: Place) -> None:
        posts, state = self._announced(job, place)
        text = json.dumps([raw.decode() for raw in posts])
        write_atomically(self.directory / "coordinator" / "posts.json", text.encode())
        contributors = state.contributors_of(place.round, place.attempt)
        held = {name: self._held(name, job, place) for name in contributors}
        for name, (secrets, levels) in held.items():
            self._save(f"truth/levels-{name}.npy", levels)
            if name in (*self.colluders, self.one_more):
                write_atomically(
                    self.directory / "colluders" / f"{name}.json", secrets.model_dump_json().encode()
                )
        for path in (self._world.silo(self._world.names[0]) / "jobs" / job).glob("aggregate-*.npy"):
            self._save(f"members/{path.name}", np.load(path, allow_pickle=False))
        shape = state.shapes[place.round - 1]
        sums = self._open(place, held[contributors[0]][0], state.job_id.hex(), shape.layout, len(held))
        self._save(f"members/aggregate-{place.round}-{place.attempt}.npy", sums + len(held) * shape.offset)

    def _announced(self, job: str, place: Place) -> tuple[list[bytes], JobState]:
        """The posts once the sum is announced: its file is there a moment before."""
        at = {"round": place.round, "attempt": place.attempt}
        deadline = time.monotonic() + ANNOUNCED_SECONDS
        while time.monotonic() < deadline:
            posts = self._posts(job)
            state = fold([parse_envelope(raw) for raw in posts], self._hub)
            if state.post(PostKind.SUM, self._hub, **at) is not None:
                return posts, state
            time.sleep(POLL_SECONDS)
        raise HostError("the coordinator did not announce its last sum")

    def _open(
        self, place: Place, mine: SiloSecrets, job_id: str, layout: Layout, contributors: int
    ) -> NDArray[np.int64]:
        """The last sum, as every silo is about to open it."""
        with (self._streams / f"sum-{place.round}-{place.attempt}-{self._hub}").open("rb") as file:
            return open_sum(
                read_stream(file, layout.num_frames),
                layout,
                contributors=contributors,
                tag_key=tag_key(bytes.fromhex(mine.group_key), job_id, place.round, place.attempt),
                holder=KeyHolder.from_secret(bytes.fromhex(mine.secret)),
            )

    def _posts(self, job: str) -> list[bytes]:
        with closing(_reading(self._world.hub / "coordinator.db")) as database:
            rows = database.execute("SELECT envelope FROM posts WHERE job = ? ORDER BY seq", (job,))
            return [bytes(raw) for (raw,) in rows]

    def _held(self, name: str, job: str, place: Place) -> tuple[SiloSecrets, NDArray[np.int64]]:
        """One silo's keys and its contribution, from its outbox."""
        with closing(_reading(self._world.silo(name) / "outbox" / "outbox.db")) as database:
            stored = dict(database.execute("SELECT name, value FROM secrets WHERE job = ?", (job,)))
            row = database.execute(
                "SELECT levels, private_key FROM contributions WHERE job = ? AND round = ? AND attempt = ?",
                (job, place.round, place.attempt),
            ).fetchone()
        if row is None or row[1] is None:
            raise HostError(f"the contribution of {name} was gone before it was recorded")
        both = bytes(stored[JOB_SECRETS])
        secrets = SiloSecrets(
            silo=name,
            secret=both[:SECRET_BYTES].hex(),
            group_key=both[SECRET_BYTES:].hex(),
            start_key=bytes(stored[START_KEY]).hex(),
            round_key=bytes(row[1]).hex(),
        )
        return secrets, np.frombuffer(row[0], dtype="<i8").astype(np.int64)

    def _save(self, name: str, values: NDArray[np.int64]) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values, allow_pickle=False)

    # ── after the job ──

    def complete(self, state: JobState) -> Path:
        """Copy what is left of every party once all processes have ended, and say what was recorded.

        Args:
            state: the job's last one.

        Returns:
            The recording's directory.

        Raises:
            HostError: the job went on after the recorded sum was refused.
        """
        opened = tuple(Place(round=i, attempt=attempt) for i, attempt in enumerate(state.opened, 1))
        if self._place != opened[-1]:
            raise HostError("the recorded sum was refused and another opened", remedy="run the demo again")
        world, root, job = self._world, self.directory, state.job
        for name in ("plan.yaml", "charter.yaml", "charter.sig.json"):
            shutil.copy(world.root / name, root / name)
        shutil.copytree(world.silo(world.names[0]) / "catalogues", root / "catalogues")
        shutil.copytree(world.hub, root / "coordinator" / "directory", ignore=_WITHHELD)
        for name in world.names:
            shutil.copytree(world.silo(name), root / "silos" / name, ignore=_WITHHELD)
        model = world.silo(world.names[0]) / "jobs" / job / MODEL_FILE
        shutil.copy(model, root / "members" / MODEL_FILE)
        self._write_people()
        manifest = Manifest(
            job=job,
            coordinator=self._hub,
            colluders=self.colluders,
            one_more=self.one_more,
            opened=opened,
            streams=tuple(place for place in opened if self._has_streams(place, state)),
            seed=f"{self._seed:032x}",
        )
        write_atomically(root / MANIFEST, manifest.model_dump_json(indent=2).encode())
        return root

    def _has_streams(self, place: Place, state: JobState) -> bool:
        names = state.contributors_of(place.round, place.attempt)
        return all((self._streams / f"stream-{place.round}-{place.attempt}-{n}").exists() for n in names)

    def _write_people(self) -> None:
        truth, cast = self.directory / "truth", self._cast
        for kind, coins in (("canaries", cast.canaries), ("people", cast.people)):
            text = json.dumps([coin.model_dump() for coin in coins])
            write_atomically(truth / f"{kind}.json", text.encode())
        for number, name in enumerate(self._world.names):
            cast.canary_rows(name).write_parquet(truth / f"canaries-{name}.parquet")
            cast.real_rows(name, number, took_part=True).write_parquet(truth / f"members-{name}.parquet")
            cast.real_rows(name, number, took_part=False).write_parquet(truth / f"others-{name}.parquet")


_WITHHELD = shutil.ignore_patterns("data", "keys", "catalogues", "spool")


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
