"""Signals, locks, ports and disks: one clear message, the documented exit code, nothing lost."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import psutil
import pytest

from federation.messages import PostKind
from federation.rounds import Phase
from privacy.errors import ExitCode, HostError
from tests.contracts.small_federation import (
    Node,
    SmallFederation,
    make_small_federation,
    nodes,
    state_on_disk,
    submit,
    wait_until,
)
from tests.support.nursery import typed

pytestmark = pytest.mark.e2e


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return make_small_federation(tmp_path, silos=("shop-a", "shop-b"))


def note(federation: SmallFederation, name: str, job: str) -> dict[str, object]:
    path = federation.directory(name) / "jobs" / job / "state.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def answered(federation: SmallFederation, job: str) -> list[str]:
    state = state_on_disk(federation, job)
    assert state is not None
    return [envelope.sender for envelope in state.roster_posts(PostKind.ACCEPTANCE)]


def limit_files(node: Node, num_bytes: int) -> None:
    """No file of the node and its workers may grow beyond ``num_bytes``: the errors of a full disk."""
    assert node.process is not None
    process = psutil.Process(node.process.pid)
    for one in (process, *process.children(recursive=True)):
        one.rlimit(psutil.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


def test_full_disks_a_missing_column_a_second_agent_and_signals(federation: SmallFederation) -> None:
    first, second = federation.names
    rows = federation.rows[second]
    rows.rename({"item_id": "product"}).write_parquet(federation.table(second))
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        wait_until(lambda: "connected" in running[first].said() and "connected" in running[second].said())

        again = typed("silo", "run", "--dir", federation.directory(first))
        assert again.returncode == ExitCode.HOST
        assert "another agent runs in this directory" in again.stderr
        assert "Traceback" not in again.stderr
        busy = typed("coordinator", "run", "--dir", federation.parties.hub.directory)
        assert busy.returncode == ExitCode.HOST
        assert "another coordinator runs in this directory" in busy.stderr

        limit_files(running["hub"], 1)
        limit_files(running[first], 1)
        with pytest.raises(HostError):
            submit(federation)
        limit_files(running["hub"], resource.RLIM_INFINITY)
        job = submit(federation)
        wait_until(lambda: answered(federation, job) == [second])
        assert running[first].poll() is None
        limit_files(running[first], resource.RLIM_INFINITY)

        wait_until(lambda: note(federation, second, job).get("problem") is not None)
        status = typed("silo", "status", "--dir", federation.directory(second))
        assert status.returncode == ExitCode.OK
        assert "waits: " in status.stdout
        assert "item_id" in status.stdout
        rows.write_parquet(federation.table(second))
        wait_until(lambda: all(note(federation, name, job).get("finished") for name in federation.names))
        state = state_on_disk(federation, job)
        assert state is not None
        assert (state.phase, state.outcome) == (Phase.ENDED, "completed")

        assert running[first].end(signal.SIGINT) == ExitCode.INTERRUPTED
        assert running[second].end(signal.SIGTERM) == ExitCode.OK
        assert running["hub"].end(signal.SIGINT) == ExitCode.INTERRUPTED
        assert not any("Traceback" in node.said() for node in running.values())


def test_an_agent_ends_with_the_trust_code_where_the_coordinator_has_another_charter(tmp_path: Path) -> None:
    ours, theirs = (make_small_federation(tmp_path / name) for name in ("ours", "theirs"))
    with nodes(ours) as running:
        for name in ("charter.yaml", "charter.sig.json"):
            changed = theirs.parties.hub.directory / name
            (ours.directory("shop-a") / name).write_bytes(changed.read_bytes())
        running["hub"].start()
        running["shop-a"].start()
        wait_until(lambda: running["shop-a"].poll() is not None)
        assert running["shop-a"].poll() == ExitCode.TRUST
        assert "error[" in running["shop-a"].said()
        assert "Traceback" not in running["shop-a"].said()
