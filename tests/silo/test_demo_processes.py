"""What a demo starts ends with it, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import sys, time
from pathlib import Path
import silo.demo.processes as processes

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(1, flush=True); time.sleep(600)"
)
processes.STOP_SECONDS = 2.0
processes._argv = lambda words: [sys.executable, "-c", DEAF]
with processes.handled(processes.interrupt, *processes.ENDING), processes.Processes() as started:
    started.start("agent", Path(sys.argv[1]), "silo", "run")
    while not Path(sys.argv[1]).stat().st_size:
        time.sleep(0.05)
    print(started.running["agent"].pid, flush=True)
    time.sleep(600)
"""


TWICE = signal.SIGTERM, signal.SIGTERM


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGHUP], TWICE])
def test_nothing_outlives_a_demo_that_is_told_to_end(
    tmp_path: Path, signals: Sequence[signal.Signals]
) -> None:
    """Not even an agent that does not listen, when somebody is impatient."""
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        agent = psutil.Process(int(demo.stdout.readline()))
        assert agent.is_running()
        for signum in signals:
            demo.send_signal(signum)
            time.sleep(0.5)
        assert demo.wait(60) != 0
    assert not agent.is_running()
