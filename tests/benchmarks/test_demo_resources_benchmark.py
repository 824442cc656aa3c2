"""The benchmark of the demo's processes: who is who, what is remembered of those that ended, failures."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

CLI = [sys.executable, "-m", "cli"]
MEGABYTES = 80
# A parent that starts a child; the child fills some memory, waits for a line and ends.
CHILD = f"import sys; kept = b'x' * {MEGABYTES * 1_000_000}; print('ready', flush=True); sys.stdin.readline()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}]); sys.stdin.readline()"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("demo_resources")


@pytest.mark.parametrize(
    ("words", "role"),
    [
        ([*CLI, "demo", "--out", "x"], "harness"),
        ([*CLI, "coordinator", "run", "--dir", "run/coordinator"], "coordinator"),
        ([*CLI, "coordinator", "init", "--dir", "run/coordinator"], "commands"),
        ([*CLI, "silo", "run", "--dir", "run/silos/shop-b"], "agent shop-b"),
        ([*CLI, "silo", "join", "charter.yaml"], "commands"),
        ([sys.executable, "-c", "from multiprocessing.resource_tracker import main"], "helpers"),
    ],
)
def test_role_by_command_line(benchmark_module: ModuleType, words: list[str], role: str) -> None:
    assert benchmark_module.role_of_command(words) == role


@pytest.mark.parametrize(
    ("parent", "limited", "role"),
    [
        ("coordinator", True, "coordinator's sum worker"),
        ("agent shop-a", False, "agent's worker shop-a"),
        ("agent shop-a", True, "agent's sum check shop-a"),
        ("harness", False, "harness workers"),
        ("commands", False, "helpers"),
    ],
)
def test_role_of_a_spawned_process(
    benchmark_module: ModuleType, parent: str, limited: bool, role: str
) -> None:
    assert benchmark_module.role_of_worker(parent, limited=limited) == role


def test_roles_are_ordered_and_added_up(benchmark_module: ModuleType) -> None:
    usage = benchmark_module.Usage
    found = benchmark_module.by_role(
        [
            usage("commands", 5, 1.0),
            usage("agent's worker shop-a", 7, 2.0),
            usage("commands", 9, 0.5),
            usage("agent shop-b", 2, 0.1),
            usage("coordinator", 3, 0.2),
        ]
    )
    assert list(found) == ["coordinator", "agent shop-b", "agent's worker shop-a", "commands"]
    assert found["commands"] == {"processes": 2, "peak_rss_bytes": 9, "cpu_seconds": 1.5}


def test_what_ended_is_remembered(benchmark_module: ModuleType) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        tree = benchmark_module.ProcessTree(
            parent.pid, lambda process: "parent" if process.pid == parent.pid else "child"
        )
        parent.stdout.readline()
        tree.sample()
        parent.stdin.write("child may end\n")
        parent.stdin.close()
        parent.wait()
    tree.sample()
    peaks = {usage.role: usage.peak_rss_bytes for usage in tree.usages}
    assert set(peaks) == {"parent", "child"}
    assert peaks["child"] > MEGABYTES * 1_000_000 > peaks["parent"]


def test_memory_of_an_earlier_role_is_forgotten(benchmark_module: ModuleType) -> None:
    roles = iter(["fork of its parent", "command", "command"])
    waiting = "import sys; print('ready', flush=True); sys.stdin.readline()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", waiting], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        tree = benchmark_module.ProcessTree(process.pid, lambda _: next(roles))
        tree.sample()
        [usage] = tree.usages
        own = usage.peak_rss_bytes
        usage.peak_rss_bytes = 100 * own
        tree.sample()
        assert (usage.role, usage.peak_rss_bytes) == ("command", own)
        usage.peak_rss_bytes = 100 * own
        tree.sample()
        assert usage.peak_rss_bytes == 100 * own
        process.stdin.close()


def test_a_failed_demo_is_quoted(benchmark_module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(benchmark_module.DemoFailedError, match=r"exit code 2: .*--silos 1 cannot be"):
        benchmark_module.run_demo(["--silos", "1"], tmp_path)


def test_runs_are_merged_by_their_medians(benchmark_module: ModuleType) -> None:
    told = {"data": {"silos": 2}, "seconds": {"job": 4.0}, "secure_sum": {"values": 3}}
    runs = [
        benchmark_module.Run(wall, 10.0, [benchmark_module.Usage("coordinator", peak, 2.0)], told)
        for wall, peak in ((9.0, 50), (5.0, 70), (7.0, 60))
    ]
    found = benchmark_module.merge(runs)
    assert found["wall_seconds"] == 7.0
    assert found["phases_seconds"] == {"job": 4.0}
    assert found["roles"]["coordinator"] == {
        "processes": 1,
        "peak_rss_bytes": 60,
        "cpu_seconds": 2.0,
        "share_of_cpu": 0.2,
    }
