"""Commands end as one message and the documented code; machine output and people's output do not mix."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel
from rich.table import Table
from typer.testing import CliRunner

from policies.console import (
    HERE,
    Debug,
    Dir,
    Json,
    MissingFileError,
    command,
    emit_json,
    explain_error,
    guard,
    progress,
    report,
    say,
)
from privacy.errors import (
    ArchipelError,
    BudgetExceededError,
    DataError,
    DeniedError,
    ExitCode,
    FindingError,
    HostError,
    PeerError,
    TrustError,
    UsageError,
)


class Example(BaseModel):
    until: date


def fail_with(error: BaseException, *, debug: bool = False, json_file: str | None = None) -> int:
    with pytest.raises(SystemExit) as caught, guard(debug=debug, json_file=json_file):
        raise error
    return int(str(int(caught.value.code or 0)))


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (ArchipelError, 1),
            (UsageError, 2),
            (DeniedError, 3),
            (BudgetExceededError, 3),
            (FindingError, 4),
            (PeerError, 5),
            (DataError, 6),
            (HostError, 7),
            (TrustError, 8),
        ],
    )
    def test_each_kind_has_its_exit_code(self, kind, code, capsys):
        assert fail_with(kind("what", where="policy.yaml:3", remedy="mend it")) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err == f"error[{kind.code}] policy.yaml:3: what\nhow to mend: mend it\n"

    def test_without_place_and_remedy_the_message_stands_alone(self, capsys):
        assert fail_with(DataError("what")) == 6
        assert capsys.readouterr().err == "error[data] what\n"

    def test_a_bug_is_one_line_and_points_to_debug(self, capsys):
        assert fail_with(ZeroDivisionError("division\nby zero")) == 1
        err = capsys.readouterr().err
        assert err.splitlines()[0] == "error[unexpected] ZeroDivisionError: division by zero"
        assert "--debug" in err
        assert "Traceback" not in err

    @pytest.mark.parametrize("error", [DataError("what"), ZeroDivisionError("what")])
    def test_debug_adds_the_traceback(self, error, capsys):
        fail_with(error, debug=True)
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert "test_console.py" in err
        assert "error[" in err

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
    def test_an_interrupt_is_130(self, error, capsys):
        assert fail_with(error) == 130
        assert "interrupted" in capsys.readouterr().err

    def test_a_group_speaks_with_its_telling_member(self, capsys):
        group = ExceptionGroup("tasks", [ValueError("noise"), ExceptionGroup("more", [PeerError("gone")])])
        assert fail_with(group) == 5
        assert fail_with(BaseExceptionGroup("tasks", [PeerError("gone"), KeyboardInterrupt()])) == 130
        assert fail_with(ExceptionGroup("tasks", [ValueError("bug")])) == 1
        assert capsys.readouterr().err.count("error[") == 2

    def test_an_exit_that_was_meant_is_left_alone(self):
        for error in (typer.Exit(4), SystemExit(3)):
            with pytest.raises(type(error)) as caught, guard():
                raise error
            assert caught.value is error


class TestForeignErrors:
    @pytest.mark.parametrize(
        ("number", "kind", "said"),
        [
            (errno.ENOSPC, HostError, "the disk is full"),
            (errno.EDQUOT, HostError, "quota"),
            (errno.EACCES, HostError, "permission denied"),
            (errno.EROFS, HostError, "read-only"),
            (errno.EADDRINUSE, HostError, "the port is in use"),
            (errno.EMFILE, HostError, "too many open files"),
            (errno.ENOENT, MissingFileError, "no such file"),
            (errno.EISDIR, MissingFileError, "directory"),
            (errno.ECONNREFUSED, PeerError, "refused"),
            (errno.ECONNRESET, PeerError, "reset"),
            (errno.ETIMEDOUT, PeerError, "timed out"),
            (errno.EIO, HostError, "error"),
        ],
    )
    def test_of_the_operating_system(self, number, kind, said):
        known = explain_error(OSError(number, os.strerror(number), "/some/file"))
        assert type(known) is kind
        assert said in known.message
        assert known.where == "/some/file"
        assert known.remedy

    def test_a_real_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            (tmp_path / "none").read_bytes()
        known = explain_error(caught.value)
        assert isinstance(known, DataError)
        assert known.where == str(tmp_path / "none")

    def test_a_real_port_in_use(self):
        import socket

        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            with pytest.raises(OSError, match="in use") as caught:
                second.bind(first.getsockname())
        assert report(caught.value) is ExitCode.HOST

    def test_of_sqlite(self, tmp_path):
        path = tmp_path / "ledger.db"
        first = sqlite3.connect(path, isolation_level=None)
        first.execute("CREATE TABLE t (x)")
        first.execute("BEGIN EXCLUSIVE")
        second = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError) as locked:
            second.execute("SELECT * FROM t")
        known = explain_error(locked.value)
        assert isinstance(known, HostError)
        assert "another process" in known.message
        first.execute("ROLLBACK")
        first.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as full:
            first.execute("INSERT INTO t VALUES (zeroblob(1000000))")
        known = explain_error(full.value)
        assert isinstance(known, HostError)
        assert "full" in known.message
        with pytest.raises(sqlite3.OperationalError) as bug:
            first.execute("SELEC")
        assert explain_error(bug.value) is None
        first.close()
        second.close()

    def test_others_are_bugs(self):
        assert explain_error(KeyError("x")) is None


class TestOutput:
    def test_people_read_standard_output(self, capsys):
        with guard():
            say("plain [bold]text[/bold] stays, ", "however long: " + "x" * 300)
            say.warn("careful")
        out, err = capsys.readouterr()
        assert out.splitlines()[0].startswith("plain [bold]text[/bold] stays")
        assert len(out.splitlines()[0]) > 300
        assert out.splitlines()[1] == "warning: careful"
        assert err == ""

    def test_unless_a_machine_has_it(self, capsys):
        table = Table("name")
        table.add_row("shop-a")
        with guard(json_file="-"):
            say("for people")
            say(table)
            emit_json({"epsilon": 4.0, "path": Path("a/b"), "names": frozenset({"b", "a"})}, "-")
        out, err = capsys.readouterr()
        assert json.loads(out) == {"epsilon": 4.0, "path": "a/b", "names": ["a", "b"]}
        assert "for people" in err
        assert "shop-a" in err
        with guard():
            say("again")
        assert capsys.readouterr().out == "again\n"

    def test_a_file_is_written_whole(self, tmp_path):
        target = tmp_path / "out.json"
        emit_json(Example(until=date(2027, 6, 30)), str(target))
        assert json.loads(target.read_text()) == {"until": "2027-06-30"}
        emit_json([Example(until=date(2027, 6, 30))], str(target))
        assert json.loads(target.read_text()) == [{"until": "2027-06-30"}]
        with pytest.raises(ValueError, match="JSON"):
            emit_json({"x": float("nan")}, str(target))
        assert json.loads(target.read_text()) == [{"until": "2027-06-30"}]
        assert list(tmp_path.iterdir()) == [target]

    def test_nothing_is_written_unasked(self, capsys):
        emit_json({"a": 1}, None)
        assert capsys.readouterr().out == ""

    def test_progress_is_silent_where_nobody_watches(self, capsys):
        with progress("summing", total=2) as advance:
            advance()
            advance(description="opening")
            advance.total(3)
        assert capsys.readouterr() == ("", "")


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
@command
def work(what: str, directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Do some work."""
    say(f"{what} in {directory}")
    if what == "deny":
        raise DeniedError("no")
    if what == "break":
        raise RuntimeError("broken")
    emit_json({"what": what}, json_file)


@app.command()
@command
def bare() -> None:
    """Take no options at all."""
    raise DataError("bad")


class TestCommand:
    runner = CliRunner()

    def test_results_and_options(self, tmp_path):
        result = self.runner.invoke(app, ["work", "it", "--dir", str(tmp_path), "--json", "-"])
        assert (result.exit_code, json.loads(result.stdout)) == (0, {"what": "it"})
        assert result.stderr == f"it in {tmp_path}\n"

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["work", "deny"], 3),
            (["work", "break"], 1),
            (["bare"], 6),
            (["work"], 2),
            (["work", "it", "--nonsense"], 2),
            (["nonsense"], 2),
            (["--help"], 0),
        ],
    )
    def test_exit_codes(self, arguments, code):
        result = self.runner.invoke(app, arguments)
        assert result.exit_code == code
        assert "Traceback" not in result.output

    def test_debug_reaches_the_guard(self):
        assert "Traceback" in self.runner.invoke(app, ["work", "break", "--debug"]).stderr

    def test_help_lists_the_options(self):
        text = self.runner.invoke(app, ["work", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        assert all(option in text for option in ("--dir", "--json", "--debug"))


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    script = tmp_path / "talk.py"
    script.write_text(
        "from policies.console import guard, say\n"
        "with guard():\n"
        "    for number in range(100000):\n"
        "        say('x' * 100)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as talker:
        assert talker.stdout is not None
        assert talker.stderr is not None
        talker.stdout.readline()
        talker.stdout.close()
        assert talker.stderr.read() == b""
        assert talker.wait() == 0


def test_a_broken_pipe_elsewhere_is_an_error(capsys):
    assert fail_with(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 5
    assert "error[peer]" in capsys.readouterr().err
