"""A process that tests fork is the command: same words, same output, same end."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.contracts.small_federation import ROOT, command, make_small_federation, nodes, wait_until
from tests.support.nursery import typed

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "words",
    [("policy", "--help"), ("silo", "status", "--dir", "nowhere"), ("silo", "run", "--no-such-option")],
)
def test_a_forked_command_says_and_ends_like_the_command(words: tuple[str, ...]) -> None:
    itself = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    forked = typed(*words)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        itself.returncode,
        itself.stdout,
        itself.stderr,
    )


def test_a_forked_node_dies_of_kill_and_stops_cleanly(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path)
    with nodes(federation) as running:
        hub = running["hub"]
        hub.start()
        wait_until(lambda: "listens at" in hub.said())
        assert hub.end(signal.SIGKILL) == -signal.SIGKILL
        hub.start()
        wait_until(lambda: hub.said().count("listens at") == 2)
        assert hub.end() == 0
