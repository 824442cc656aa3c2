from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from federation import client
from federation.commands import coordinator_app, job_app
from federation.identity import Party
from federation.messages import Acceptance, Denial, ReasonCode, seal
from federation.transport.base import Connection
from policies.canonical import digest
from policies.files import save_yaml
from privacy.errors import ExitCode
from tests.contracts.federation_directories import Federation, free_port, make_federation, popularity_plan
from tests.contracts.transport_contract import some_bytes

CATALOGUE = some_bytes(40_000)
PLAN = popularity_plan(CATALOGUE)
ROOT = Path(__file__).parents[2]


@contextmanager
def running_coordinator(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, once it listens."""
    code = "from federation.commands import coordinator_app; coordinator_app()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "--dir", str(directory), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        assert "listens at" in process.stdout.readline(), process.communicate()[1]
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """``coordinator run`` sends its log to the standard error of the moment, which a runner closes."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = make_federation(tmp_path / "parties", port=free_port())
    made.install_charter()
    save_yaml(tmp_path / "plan.yaml", PLAN)
    (tmp_path / "items.jsonl").write_bytes(CATALOGUE)
    return made


def invoke(app: typer.Typer, party: Party, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--dir", str(party.directory)])


def submit(federation: Federation, tmp_path: Path, *more: str) -> Result:
    files = (str(tmp_path / "plan.yaml"), "--catalogue", str(tmp_path / "items.jsonl"))
    return invoke(job_app, federation.parties["shop-a"], "submit", *files, *more)


def answer(federation: Federation, job: str, silo: str, body: Acceptance | Denial) -> None:
    party = federation.parties[silo]

    async def post() -> None:
        connection: Connection = client.dial(party, federation.charter)
        await connection.post(seal(body, job=job, sender=silo, identity=party.identity).to_bytes())
        await connection.close()

    asyncio.run(post())


def deny(federation: Federation, job: str) -> None:
    no = Denial(
        plan_sha256=digest(PLAN), reasons=(ReasonCode(code="epsilon", field="privacy.target_epsilon"),)
    )
    yes = Acceptance(plan_sha256=digest(PLAN), policy_sha256="0" * 64, policy_version=3)
    answer(federation, job, "shop-a", yes)
    answer(federation, job, "shop-b", no)
    answer(federation, job, "shop-c", yes)


def test_init_makes_a_coordinator(tmp_path: Path) -> None:
    arguments = ["init", "--name", "hub", "--host", "hub.example.org", "--port", "9000", "--json", "-"]
    result = CliRunner().invoke(coordinator_app, [*arguments, "--dir", str(tmp_path / "hub")])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["role"] == "coordinator"
    card = Party.load(tmp_path / "hub").card
    assert (card.name, card.host, card.port) == ("hub", "hub.example.org", 9000)
    assert "listen_port = 9000" in (tmp_path / "hub" / "agent.toml").read_text()
    again = CliRunner().invoke(coordinator_app, [*arguments, "--dir", str(tmp_path / "hub")])
    assert again.exit_code == ExitCode.DATA
    assert "lives here already" in again.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.OK), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_run_says_where_and_stops_cleanly(
    federation: Federation, number: signal.Signals, code: ExitCode
) -> None:
    with running_coordinator(federation.hub.directory) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        assert "Traceback" not in errors


def test_run_refuses_what_it_cannot_serve(federation: Federation, tmp_path: Path) -> None:
    hub, shop = federation.hub, federation.parties["shop-a"]
    assert "is a silo" in invoke(coordinator_app, shop, "run").stderr
    with running_coordinator(hub.directory, "--port", "0"):
        second = invoke(coordinator_app, hub, "run")
        assert second.exit_code == ExitCode.HOST
        assert "another coordinator runs in this directory" in second.stderr
    (hub.directory / "agent.toml").write_text("listen_port = 'many'")
    assert invoke(coordinator_app, hub, "run").exit_code == ExitCode.DATA
    (hub.directory / "charter.sig.json").unlink()
    assert invoke(coordinator_app, hub, "run").exit_code == ExitCode.TRUST
    other = make_federation(tmp_path / "other")
    other.install_charter()
    for name in ("charter.yaml", "charter.sig.json"):
        (other.hub.directory / name).replace(hub.directory / name)
    wrong = invoke(coordinator_app, hub, "run")
    assert wrong.exit_code == ExitCode.TRUST
    assert "other keys" in wrong.stderr


def test_a_port_in_use_is_one_clear_message(federation: Federation, tmp_path: Path) -> None:
    other = make_federation(tmp_path / "other", port=federation.charter.coordinator.port)
    other.install_charter()
    with running_coordinator(federation.hub.directory):
        result = invoke(coordinator_app, other.hub, "run")
    assert result.exit_code == ExitCode.HOST
    assert "cannot listen there: Address already in use" in result.stderr
    assert "--port" in result.stderr


def test_a_job_is_submitted_listed_shown_and_denied(federation: Federation, tmp_path: Path) -> None:
    with running_coordinator(federation.hub.directory):
        submitted = submit(federation, tmp_path, "--json", "-")
        assert submitted.exit_code == 0, submitted.stderr
        job = json.loads(submitted.stdout)["job"]
        again = submit(federation, tmp_path, "--json", "-")
        assert json.loads(again.stdout)["job"] == job, "a waiting plan is not proposed twice"

        listed = json.loads(invoke(job_app, federation.parties["shop-b"], "list", "--json", "-").stdout)
        assert [(entry["job"], entry["phase"], entry["family"]) for entry in listed] == [
            (job, "proposed", "popularity")
        ]
        deny(federation, job)
        watched = invoke(job_app, federation.parties["shop-c"], "watch", job[:8], "--json", "-")
        assert watched.exit_code == ExitCode.DENIED
        about = json.loads(watched.stdout)
        assert (about["phase"], about["outcome"]) == ("ended", "denied")
        assert about["silos"]["shop-b"]["reasons"] == [{"code": "epsilon", "field": "privacy.target_epsilon"}]
        assert about["silos"]["shop-a"]["policy_version"] == 3
        assert "shop-b refuses: epsilon (privacy.target_epsilon)" in watched.stderr

        shown = invoke(job_app, federation.parties["shop-a"], "show", job[:8])
        assert shown.exit_code == 0
        assert "epsilon" in shown.stdout
        anew = submit(federation, tmp_path, "--json", "-")
        assert json.loads(anew.stdout)["job"] != job, "an ended job may be tried again"


def test_a_job_is_cancelled(federation: Federation, tmp_path: Path) -> None:
    with running_coordinator(federation.hub.directory):
        job = json.loads(submit(federation, tmp_path, "--json", "-").stdout)["job"]
        assert invoke(job_app, federation.parties["shop-c"], "cancel", job[:8]).exit_code == 0
        watched = invoke(job_app, federation.parties["shop-a"], "watch", job)
        assert watched.exit_code == ExitCode.PEER
        assert "cancelled by shop-c" in watched.stderr
        late = invoke(job_app, federation.parties["shop-a"], "cancel", job)
        assert late.exit_code == ExitCode.PEER
        assert "changes nothing" in late.stderr


def test_a_job_is_paused_and_resumed(federation: Federation, tmp_path: Path) -> None:
    def said(party: str, *arguments: str) -> tuple[int, dict[str, object]]:
        result = invoke(job_app, federation.parties[party], *arguments, "--json", "-")
        return result.exit_code, json.loads(result.stdout or "{}")

    with running_coordinator(federation.hub.directory):
        job = json.loads(submit(federation, tmp_path, "--json", "-").stdout)["job"]
        for party in ("shop-c", "shop-a"):
            assert said(party, "pause", job[:8]) == (0, {"job": job, "paused": True})
        assert said("shop-b", "show", job[:8])[1]["paused"] is True
        again = invoke(job_app, federation.parties["shop-b"], "pause", job)
        assert "is paused already" in again.stdout
        assert f"archipel job resume {job[:8]}" in again.stdout
        for party in ("hub", "shop-b"):
            assert said(party, "resume", job[:8]) == (0, {"job": job, "paused": False})
        assert "is not paused" in invoke(job_app, federation.parties["shop-b"], "resume", job).stdout
        assert said("shop-b", "show", job[:8])[1]["paused"] is False
        assert said("shop-a", "cancel", job)[0] == 0
        assert invoke(job_app, federation.parties["shop-a"], "watch", job).exit_code == ExitCode.PEER
        for name in ("pause", "resume"):
            late = invoke(job_app, federation.parties["shop-a"], name, job)
            assert late.exit_code == ExitCode.PEER
            assert "has ended" in late.stderr


def test_a_job_survives_a_kill_of_the_coordinator(federation: Federation, tmp_path: Path) -> None:
    with running_coordinator(federation.hub.directory) as process:
        job = json.loads(submit(federation, tmp_path, "--json", "-").stdout)["job"]
        process.kill()
        process.wait()
    with running_coordinator(federation.hub.directory):
        listed = json.loads(invoke(job_app, federation.parties["shop-a"], "list", "--json", "-").stdout)
        assert [entry["job"] for entry in listed] == [job]


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda path: (path / "items.jsonl").write_bytes(b"other"), ExitCode.DATA, "the plan names"),
        (lambda path: (path / "items.jsonl").unlink(), ExitCode.DATA, "no such catalogue"),
        (lambda path: (path / "plan.yaml").write_text("kind: Plan"), ExitCode.DATA, "plan.yaml"),
        (lambda path: (path / "plan.yaml").unlink(), ExitCode.DATA, "no such file"),
        (lambda path: (path / "parties/shop-a/charter.yaml").unlink(), ExitCode.DATA, "charter.yaml"),
        (lambda path: (path / "parties/shop-a/card.json").unlink(), ExitCode.DATA, "card.json"),
    ],
)
def test_what_cannot_be_submitted_is_said_before_anybody_is_asked(
    federation: Federation,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    code: ExitCode,
    message: str,
) -> None:
    spoil(tmp_path)
    result = submit(federation, tmp_path)
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_job_is_a_usage_error(federation: Federation) -> None:
    with running_coordinator(federation.hub.directory):
        for name in ("show", "watch", "pause", "resume", "cancel"):
            result = invoke(job_app, federation.parties["shop-a"], name, "beef")
            assert result.exit_code == ExitCode.USAGE
            assert "job list" in result.stderr
        assert "no jobs yet" in invoke(job_app, federation.parties["shop-a"], "list").stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from federation.commands import coordinator_app, job_app; "
        "heavy = {'grpc', 'torch', 'tenseal', 'polars', 'dp_accounting', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
