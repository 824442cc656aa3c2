"""One ``archipel demo`` with real processes, watched and recorded while its job runs.

The recorder is nobody in the protocol: it reads the disks of all parties at one moment between the opening
of the sum and the end of the job, when streams, keys and contributions of everybody are still there. To make
that moment last it stops one agent with SIGSTOP and lets it go on afterwards.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tests.support.small_set import write_set
from tests.support.source_tree import copy_tree, environment

SILOS = ("shop-a", "shop-b", "shop-c", "shop-d")
HUB = "hub"
STOPPED = "shop-d"
DEADLINE_SECONDS = 240.0

T = TypeVar("T")


@dataclass(frozen=True)
class RecordedDemo:
    """What a demo left behind, and what was seen and copied while its job ran.

    Attributes:
        root: of everything.
        seen: observations of the running processes.
    """

    root: Path
    seen: dict[str, Any]

    @property
    def run(self) -> Path:
        """``--out`` of the demo."""
        return self.root / "run"

    @property
    def data(self) -> Path:
        """The data set the demo was given."""
        return self.root / "set"

    @property
    def tree(self) -> Path:
        """The source it ran on."""
        return self.root / "tree"

    @property
    def captured(self) -> Path:
        """Copies made during the job: ``spool/``, ``coordinator/``, ``<silo>/``."""
        return self.root / "captured"

    @property
    def result(self) -> dict[str, Any]:
        """What ``--json`` wrote."""
        return dict(json.loads((self.root / "result.json").read_text()))

    @property
    def job(self) -> str:
        """The job's public handle."""
        return str(self.seen["job"])

    def silo(self, name: str) -> Path:
        """A silo's directory."""
        return self.run / "silos" / name

    def modules(self, who: str) -> dict[str, str | None]:
        """``sys.modules`` of a process during the job: name -> file."""
        return dict(self.seen["modules"][who])


def recorded_demo(factory: pytest.TempPathFactory) -> RecordedDemo:
    """The session's one recorded demo, also where several pytest workers share the session."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "recorded-demo"
    root.mkdir(exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen = root / "seen.json"
        if not seen.exists():
            with suppress(FileExistsError):
                (root / "started").touch(exist_ok=False)
                seen.write_text(json.dumps(_Recorder(root).record()))
        if not seen.exists():
            pytest.fail("the recorded demo failed before; see the first test that asked for it")
    return RecordedDemo(root, json.loads(seen.read_text()))


class _Recorder:
    """Runs the demo under ``root`` and looks at it from outside."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._run = root / "run"
        self._hooks = root / "hooks"
        self._seen: dict[str, Any] = {"modules": {}}
        self._deadline = time.monotonic() + DEADLINE_SECONDS

    def record(self) -> dict[str, Any]:
        data = write_set(self._root / "set")
        tree = copy_tree(self._root / "tree", without=("federation/transport/inprocess.py",))
        words = [
            *(sys.executable, "-m", "cli", "demo", "--data", str(data), "--silos", str(len(SILOS))),
            *("--out", str(self._run), "--json", str(self._root / "result.json")),
        ]
        with (self._root / "output.txt").open("wb") as output:
            demo = subprocess.Popen(
                words, cwd=self._root, env=environment(tree, self._hooks), stdout=output, stderr=output
            )
            self._demo = psutil.Process(demo.pid)
            try:
                self._observe()
                self._seen["exit_code"] = demo.wait(max(1.0, self._deadline - time.monotonic()))
            finally:
                self._end(demo)
        self._seen["left"] = self._left_running()
        return self._seen

    # ── while the job runs ───────────────────────────────────────────────────────────────────────────────

    def _observe(self) -> None:
        self._wait(self._first_aggregate)
        stopped = self._agents()[STOPPED]
        stopped.send_signal(signal.SIGSTOP)
        try:
            self._look()
            self._copy()
        finally:
            stopped.send_signal(signal.SIGCONT)

    def _first_aggregate(self) -> Path | None:
        return next(self._run.glob("silos/*/jobs/*/aggregate-1*.npy"), None)

    def _look(self) -> None:
        opened = self._first_aggregate()
        assert opened is not None
        self._seen["job"] = opened.parent.name
        coordinator, agents = self._named("coordinator run"), self._agents()
        port = json.loads((self._run / "coordinator" / "card.json").read_text())["port"]
        self._seen |= {
            "demo": self._demo.pid,
            "port": port,
            "pids": {HUB: coordinator.pid} | {name: agent.pid for name, agent in agents.items()},
            "parents": {HUB: coordinator.ppid()} | {name: agent.ppid() for name, agent in agents.items()},
            "sockets": {
                HUB: _sockets(coordinator),
                **{name: _sockets(agent) for name, agent in agents.items()},
            },
            "descendants": [child.pid for child in self._demo.children(recursive=True)],
            "strangers_answer": _tls_answer(self._run, port, party=None),
            "members_answer": _tls_answer(self._run, port, party="shop-a"),
        }
        worker = _worker_of(agents["shop-a"])
        for name, process in ((HUB, coordinator), ("shop-a", agents["shop-a"]), ("worker", worker)):
            self._seen["modules"][name] = self._modules_of(process)

    def _copy(self) -> None:
        others = [silo for silo in SILOS if silo != STOPPED]
        job, target = self._seen["job"], self._root / "captured"
        for silo in others:
            self._wait(lambda s=silo: self._aggregate(s, job))  # type: ignore[misc]
        shutil.copytree(self._run / "coordinator" / "spool" / job, target / "spool")
        for database in ("coordinator.db", "trail.db"):
            _copy_database(self._run / "coordinator" / database, target / "coordinator" / database)
        for silo in SILOS:
            outbox = self._run / "silos" / silo / "outbox" / "outbox.db"
            _copy_database(outbox, target / silo / "outbox" / "outbox.db")
        for silo in others:
            opened = self._aggregate(silo, job)
            assert opened is not None
            shutil.copy(opened, target / silo / "aggregate-1.npy")

    def _aggregate(self, silo: str, job: str) -> Path | None:
        return next((self._run / "silos" / silo / "jobs" / job).glob("aggregate-1*.npy"), None)

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────

    def _agents(self) -> dict[str, psutil.Process]:
        return {name: self._named(f"silo run --dir {self._run / 'silos' / name}") for name in SILOS}

    def _named(self, words: str) -> psutil.Process:
        found = [child for child in self._demo.children() if words in " ".join(child.cmdline())]
        assert len(found) == 1, words
        return found[0]

    def _modules_of(self, process: psutil.Process) -> dict[str, str | None]:
        process.send_signal(signal.SIGUSR1)
        answer = self._hooks / f"{process.pid}.json"
        self._wait(answer.exists)
        return dict(json.loads(answer.read_text())["modules"])

    def _wait(self, condition: Callable[[], T]) -> T:
        while not (found := condition()):
            if time.monotonic() > self._deadline or not self._demo.is_running():
                pytest.fail(f"the demo did not get there: {(self._root / 'output.txt').read_text()[-3000:]}")
            if self._demo.status() == psutil.STATUS_ZOMBIE:
                pytest.fail(f"the demo ended early: {(self._root / 'output.txt').read_text()[-3000:]}")
            time.sleep(0.01)
        return found

    def _left_running(self) -> list[str]:
        return [" ".join(line) for line in _command_lines() if any(str(self._run) in word for word in line)]

    def _end(self, demo: subprocess.Popen[bytes]) -> None:
        if demo.poll() is None:
            children = self._demo.children(recursive=True)
            for process in (self._demo, *children):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            demo.wait()


def _command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield process.cmdline()


def _worker_of(agent: psutil.Process) -> psutil.Process:
    """The agent's long-lived worker: the oldest of its spawned children."""
    spawned = [child for child in agent.children() if "spawn_main" in " ".join(child.cmdline())]
    return min(spawned, key=psutil.Process.create_time)


def _sockets(process: psutil.Process) -> list[dict[str, Any]]:
    """TCP sockets of a process and of everything below it."""
    sockets = []
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            sockets += [
                {"status": s.status, "local": _address(s.laddr), "remote": _address(s.raddr)}
                for s in member.net_connections("tcp")
            ]
    return sockets


def _address(address: tuple[str, int] | tuple[()]) -> list[str | int]:
    """Host and port; IPv4 as such where the system shows it mapped into IPv6."""
    return [str(address[0]).removeprefix("::ffff:"), address[1]] if address else []


def _tls_answer(run: Path, port: int, *, party: str | None) -> dict[str, Any]:
    """What the coordinator's port says to a TLS client with a member's certificate, or with none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if party is not None:
        context.load_cert_chain(run / "silos" / party / "keys" / "tls.pem")
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    with plain, context.wrap_socket(plain) as tls:
        certificate = tls.getpeercert(binary_form=True)
        assert certificate is not None
        answer: dict[str, Any] = {"certificate": certificate.hex()}
        try:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            answer["bytes"] = len(tls.recv(9))
        except (ssl.SSLError, ConnectionError) as error:
            answer["refused"] = str(error)
    return answer


def _copy_database(source: Path, target: Path) -> None:
    """Copy a live SQLite database as one consistent state."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
