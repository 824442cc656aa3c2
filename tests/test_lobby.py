"""The lobby: what ``archipel`` mounts, that it answers at once, and that everything is explained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import cli

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "opacus", "tenseal", "dp_accounting", "polars", "grpc", "scipy", "numpy", "pyarrow"}

MOUNTED = {
    "silo": {"init", "join", "run", "status", "pause", "resume"},
    "coordinator": {"init", "run"},
    "charter": {"new", "sign", "merge", "show"},
    "policy": {"check", "sign", "explain", "schema"},
    "data": {"check", "catalogue"},
    "plan": {"new", "show", "forecast"},
    "job": {"submit", "watch", "list", "show", "cancel"},
    "audit": {"budget", "ledger", "verify"},
    "recommend": set(),
    "evaluate": set(),
    "demo": set(),
}


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that name it, groups included.

    Typer brings a Click of its own, so commands are told by what they can do, not by their class.
    """
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(cli.app))]
    while pending:
        words, found = pending.pop()
        yield words, found
        if is_group(found):
            context = typer.Context(found)
            pending += [
                ((*words, name), found.get_command(context, name)) for name in found.list_commands(context)
            ]


def is_group(found: Any) -> bool:
    return hasattr(found, "list_commands")


COMMANDS = dict(commands())


def loaded_after(*words: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after ``archipel`` with these words."""
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['archipel', *{list(words)!r}]\n"
        "import cli; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize(
    "words",
    [("--help",), ("demo", "--help"), ("silo", "run", "--help"), ("coordinator", "run", "--help")],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    loaded = loaded_after(*words)
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_every_command_of_the_documents_is_mounted() -> None:
    names = {words[0] for words in COMMANDS if words}
    assert names >= set(MOUNTED)
    for group, expected in MOUNTED.items():
        assert {words[1] for words in COMMANDS if len(words) == 2 and words[0] == group} >= expected, group


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_every_command_says_what_it_does(words: tuple[str, ...]) -> None:
    found = COMMANDS[words]
    assert found.help, words
    assert found.help.strip()[0].isupper()
    assert found.get_short_help_str(200).endswith((".", "…", ")"))
    shown = CliRunner().invoke(cli.app, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    if is_group(COMMANDS[words]):
        return
    unexplained = [
        parameter.name
        for parameter in COMMANDS[words].params
        if parameter.param_type_name == "option" and not parameter.hidden and not parameter.help
    ]
    assert unexplained == []


@pytest.mark.parametrize("words", sorted(words for words in COMMANDS if len(words) > 0), ids=" ".join)
def test_every_command_takes_debug(words: tuple[str, ...]) -> None:
    if is_group(COMMANDS[words]):
        return
    options = {option for parameter in COMMANDS[words].params for option in parameter.opts}
    assert "--debug" in options


def test_a_word_that_is_no_command_is_a_usage_error() -> None:
    for words in (["nonsense"], ["silo", "nonsense"], ["demo", "--nonsense"]):
        assert CliRunner().invoke(cli.app, words).exit_code == 2


def test_it_runs_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in MOUNTED:
        assert f"  {name}" in done.stdout
