"""Commands in the documents exist, with the options they are shown with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from cli import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "examples" / "README.md"]
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(archipel [^`]+)`")
COMMAND = typer.main.get_command(app)


@cache
def inside(command: Any) -> dict[str, Any]:
    """Commands of a group by name; none of a plain command."""
    if not hasattr(command, "list_commands"):
        return {}
    return {name: command.get_command(None, name) for name in command.list_commands(None)}


def mentioned(page: Path) -> Iterator[list[str]]:
    """Words after ``archipel`` of every command in blocks and in running text."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.findall(text):
        yield from (shlex.split(line)[1:] for line in block.splitlines() if line.startswith("archipel "))
    for inline in INLINE.findall(BLOCK.sub("", text)):
        yield inline.replace("[", "").replace("]", "").replace("…", "").split()[1:]


def problem(words: list[str]) -> str | None:
    """What is wrong with a command line; None when the command exists and has the options."""
    command: Any = COMMAND
    rest = list(words)
    while rest and rest[0] in (found := inside(command)):
        command = found[rest.pop(0)]
    if inside(command) and rest and not rest[0].startswith("-"):
        return f"there is no command {rest[0]}"
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    unknown = [word for word in rest if re.fullmatch(r"--?[a-z][a-z0-9-]*", word) and word not in known]
    return f"no option {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_mentioned_exists_with_those_options(page: Path) -> None:
    problems = [(" ".join(words), problem(words)) for words in mentioned(page)]
    assert [found for found in problems if found[1]] == []


def test_a_command_or_option_that_does_not_exist_is_noticed() -> None:
    assert problem(["silo", "explode"]) == "there is no command explode"
    assert problem(["silo", "init", "--nmae", "x"]) == "no option ['--nmae']"


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, inner in inside(command).items():
        if inside(inner):
            yield from leaves(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


def test_the_reference_names_every_command_and_every_option() -> None:
    page = (ROOT / "docs" / "reference-commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^##+ ([a-z -]+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    missing = []
    for name, command in leaves(COMMAND):
        wanted = {parameter.opts[0] for parameter in command.params if parameter.param_type_name == "option"}
        shown = set(re.findall(r"`(--?[a-z][a-z0-9-]*)`", sections.get(name, "")))
        if name not in sections or wanted - {"--help"} != shown:
            missing.append((name, wanted ^ shown))
    assert missing == []
