"""Memory and CPU time of running processes, as the operating system counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

FORKED = "--multiprocessing-fork"


@dataclass
class Usage:
    """What one process has used so far.

    Attributes:
        role: what it is for.
        peak_rss_bytes: most resident memory it ever had.
        cpu_seconds: user and system time.
    """

    role: str
    peak_rss_bytes: int = 0
    cpu_seconds: float = 0.0


def peak_rss_bytes(process: psutil.Process) -> int:
    """Most resident memory so far: the kernel's own mark where it keeps one, else what is resident now.

    (What ``getrusage`` tells of a child also holds what its parent had before the child's program began.)

    Raises:
        psutil.Error: the process has ended.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def family_cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process and of everything below it, ended children included.

    Raises:
        psutil.Error: it has ended.
    """
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


class ProcessTree:
    """Samples a process and everything below it; remembers those that have ended.

    Args:
        root: process id of the topmost.
        role_of: says what a process is for; asked again at each sample, as a young process does not show it.
    """

    def __init__(self, root: int, role_of: Callable[[psutil.Process], str]) -> None:
        self._root = psutil.Process(root)
        self._role_of = role_of
        self._usages: dict[tuple[int, float], Usage] = {}

    @property
    def usages(self) -> list[Usage]:
        """Every process seen so far."""
        return list(self._usages.values())

    def sample(self) -> None:
        """Look once at every process that runs now."""
        try:
            running = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return
        for process in running:
            try:
                self._look_at(process)
            except psutil.Error:
                continue

    def _look_at(self, process: psutil.Process) -> None:
        role, peak, times = self._role_of(process), peak_rss_bytes(process), process.cpu_times()
        usage = self._usages.setdefault((process.pid, process.create_time()), Usage(role))
        if usage.role != role:
            # Until its own program begins, a new process has its parent's command line and memory.
            usage.role, usage.peak_rss_bytes = role, 0
        usage.peak_rss_bytes = max(usage.peak_rss_bytes, peak)
        usage.cpu_seconds = max(usage.cpu_seconds, times.user + times.system)
