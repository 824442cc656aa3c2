"""Running ``archipel`` as people do: one process a command; long-running ones until they are stopped."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from privacy.errors import ArchipelError, ExitCode, HostError

STOP_SECONDS = 20.0
# Many parties share this machine's processors: threads of each that spin for the others only cost.
ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
LISTEN_SECONDS = 60.0
ENDING = signal.SIGTERM, signal.SIGHUP
"""What ends a demo beside Ctrl-C: whoever started it, and a terminal that is closed."""

Handler: TypeAlias = Callable[[int, FrameType | None], object] | signal.Handlers


class CommandFailedError(ArchipelError):
    """A command that the demo ran did not succeed."""

    code = "command_failed"


@dataclass
class Processes:
    """Everything the demo started; nothing of it outlives the ``with`` block."""

    shown: list[str] = field(default_factory=list)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        with handled(signal.SIG_IGN, signal.SIGINT, *ENDING):  # a second one would leave some running
            self.stop()

    def command(self, *words: str | Path) -> str:
        """Run one command to its end; returns its standard output.

        Raises:
            CommandFailedError: it failed; its own message is quoted.
        """
        self._note(words)
        done = subprocess.run(  # noqa: S603
            _argv(words), capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD_EACH
        )
        if done.returncode != ExitCode.OK:
            raise CommandFailedError(
                f"exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}",
                where=_text(words),
            )
        return done.stdout

    def start(self, name: str, log: Path, *words: str | Path) -> None:
        """Start a command that keeps running; its output goes to ``log``."""
        self._note(words)
        log.parent.mkdir(parents=True, exist_ok=True)
        output = self._files.enter_context(log.open("ab"))
        self.running[name] = subprocess.Popen(  # noqa: S603
            _argv(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | ONE_THREAD_EACH,
        )

    def check(self) -> None:
        """Make sure that everything started still runs.

        Raises:
            CommandFailedError: one has ended; its last words are quoted.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                raise CommandFailedError(
                    f"ended with code {process.returncode}", where=name, remedy="see its logs/ directory"
                )

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to whoever does not listen."""
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()
        self._files.close()

    def _note(self, words: Sequence[str | Path]) -> None:
        self.shown.append(_text(words))


def interrupt(*_: object) -> None:
    """Handle a signal like Ctrl-C: whoever is simply ended by one runs no ``finally``."""
    raise KeyboardInterrupt


@contextmanager
def handled(how: Handler, *signals: signal.Signals) -> Iterator[None]:
    """Handle signals so for a while; only a process's main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, how) for one in signals}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)


def wait_until_listening(host: str, port: int, processes: Processes) -> None:
    """Wait for a server to take connections.

    Raises:
        HostError: nobody listens in time.
        CommandFailedError: the server ended.
    """
    deadline = time.monotonic() + LISTEN_SECONDS
    while time.monotonic() < deadline:
        processes.check()
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise HostError(f"nobody listens at {host}:{port}", remedy="see the coordinator's log")


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _argv(words: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "cli", *map(str, words)]


def _text(words: Sequence[str | Path]) -> str:
    return "archipel " + shlex.join(map(str, words))
