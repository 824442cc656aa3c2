"""Walks one job through many kills: whoever dies at its failpoint is started again with the next one."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from federation.messages import Envelope, Place, parse_envelope
from federation.steps import Step
from privacy.events import Event
from silo.site import Site
from tests.contracts.small_federation import Node, SmallFederation

Hook = Callable[[], None]


@dataclass(frozen=True)
class Kill:
    """Die at a failpoint; ``then`` happens while the process is dead."""

    when: str
    step: Step
    then: Hook | None = None

    @property
    def failpoint(self) -> str:
        return f"{self.when}:{self.step}"


def around(steps: Iterable[Step]) -> list[Kill]:
    """Before and after each step."""
    return [Kill(when, step) for step in steps for when in ("before", "after")]


@dataclass
class Supervisor:
    """Starts every node with its first failpoint and keeps the federation alive until ``is_done``.

    Attributes:
        check_outboxes: no post in an outbox ever changes.
        fired: failpoints at which a process died, by node.
        said: every post ever found in an outbox; none may change.
    """

    federation: SmallFederation
    nodes: dict[str, Node]
    kills: dict[str, list[Kill]]
    check_outboxes: bool = True
    fired: dict[str, list[str]] = field(default_factory=dict)
    said: dict[tuple[str, Place], Envelope] = field(default_factory=dict)

    def start(self) -> None:
        for name, node in self.nodes.items():
            self.fired[name] = []
            node.start(self._failpoint(name))

    def run(self, is_done: Callable[[], bool], *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not is_done() or any(self.kills.values()):
            left = {name: [kill.failpoint for kill in kills] for name, kills in self.kills.items() if kills}
            assert time.monotonic() < deadline, f"still to come: {left}"
            for name, node in self.nodes.items():
                if node.poll() is not None:
                    self._restart(name, node)
            time.sleep(0.05)

    def _restart(self, name: str, node: Node) -> None:
        assert self.kills.get(name), f"{name} died unasked:\n{node.said()[-3000:]}"
        kill = self.kills[name].pop(0)
        assert node.poll() == -signal.SIGKILL, f"{name} instead of {kill.failpoint}:\n{node.said()[-3000:]}"
        self.fired[name].append(kill.failpoint)
        if name != "hub" and self.check_outboxes:
            self._check_outbox(name)
        if kill.then is not None:
            kill.then()
        node.start(self._failpoint(name))

    def _failpoint(self, name: str) -> str | None:
        kills = self.kills.get(name)
        return kills[0].failpoint if kills else None

    def _check_outbox(self, name: str) -> None:
        for envelope in outbox_posts(self.federation.directory(name)):
            assert self.said.setdefault((name, envelope.place), envelope) == envelope


def outbox_posts(directory: Path) -> list[Envelope]:
    return [parse_envelope(raw) for (raw,) in outbox_rows(directory, "SELECT envelope FROM posts")]


def outbox_rows(directory: Path, query: str) -> list[tuple[bytes, ...]]:
    path = directory / "outbox" / "outbox.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return db.execute(query).fetchall() if "posts" in tables else []


def charges(directory: Path, job: str | None = None) -> dict[tuple[int, int], Event]:
    """What a silo's ledger charged (for one job) by (round, attempt); refuses a place charged twice."""
    found: dict[tuple[int, int], Event] = {}
    with Site(directory) as site:
        for entry in site.ledger.entries():
            if entry.kind == "committed" and job in (None, entry.payload["job"]):
                place = (entry.payload["round"], entry.payload["attempt"])
                assert place not in found, f"charged twice: {place}"
                found[place] = entry.payload["event"]
    return found


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
