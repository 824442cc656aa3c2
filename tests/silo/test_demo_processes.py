"""What a demo starts ends with it, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import sys, time
from pathlib import Path
import silo.demo.processes as processes

processes._argv = lambda words: [sys.executable, "-c", "import time; time.sleep(600)"]
with processes.Processes() as started:
    started.start("agent", Path(sys.argv[1]), "silo", "run")
    print(started.running["agent"].pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_demo_that_is_told_to_end(tmp_path: Path, signum: signal.Signals) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        agent = psutil.Process(int(demo.stdout.readline()))
        assert agent.is_running()
        demo.send_signal(signum)
        assert demo.wait(60) != 0
    assert not agent.is_running()
