"""Processes of the product that begin where its imports have ended: forked from one that does nothing else.

A test that kills everybody at every step starts seventy processes, and each would import for a second what
the one before it had imported. Here a process (``python -m tests.support.nursery``) imports it once and forks
whoever is asked for; the child then is ``python -m cli WORDS`` to the end: its own process, arguments, log,
environment, exit code, and its own spawned worker. Other tests start the command itself.

:func:`typed` does the same for a command that ends by itself.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMPORTED = ("cli", "federation.commands", "federation.listening", "silo.commands", "silo.running")
"""What both kinds of node import. A fork keeps no threads; those that the import of Polars starts
look after freed memory and spilt files, and no child has any yet."""


class Process:
    """One process of the product; the methods are those of :class:`subprocess.Popen`.

    Attributes:
        pid: stays its own until :meth:`poll` has seen its end.
    """

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it, or None while it runs."""
        if self._code is None:
            self._code = self._nursery.ask({"poll": self.pid})
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9``."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs still.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code


class Nursery:
    """The process that forks; it ends with this one, and those that it forked end with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        words: Sequence[str | Path],
        log: Path,
        *,
        errors: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Process:
        """Start ``archipel WORDS``; what it says is appended to ``log``, or half of it to ``errors``."""
        asked = {
            "words": [*map(str, words)],
            "out": str(log),
            "err": str(errors or log),
            "environment": dict(environment),
        }
        return Process(self, self.ask({"start": asked}))

    def ask(self, request: dict[str, Any]) -> Any:
        """One question, one answer."""
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(json.dumps(request) + "\n")
        asking.flush()
        answer = answering.readline()
        if not answer:
            raise RuntimeError("the nursery has ended; what it said last stands on standard error")
        return json.loads(answer)

    def close(self) -> None:
        """End it, and what still runs of it."""
        self._process.communicate()


@cache
def nursery() -> Nursery:
    """The one of this test process."""
    made = Nursery()
    atexit.register(made.close)
    return made


def typed(*words: str | Path, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """``archipel WORDS`` to its end, and what it said."""
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        process = nursery().start(words, out, errors=err)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


def serve() -> None:
    """Fork and wait as standard input says, until it ends; returns in no child."""
    for name in IMPORTED:
        import_module(name)
    running: set[int] = set()
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                become(**request["start"])
            running.add(pid)
            answer: int | None = pid
        else:
            answer = _exit_code(request["poll"])
            if answer is not None:
                running.discard(request["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def become(words: list[str], out: str, err: str, environment: dict[str, str]) -> None:
    """Be ``python -m cli WORDS`` until that ends."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for target, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), target)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["cli", *words]
    runpy.run_module("cli", run_name="__main__", alter_sys=True)
    raise SystemExit(0)


def _exit_code(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    serve()
