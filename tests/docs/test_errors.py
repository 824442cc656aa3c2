"""``docs/reference-errors.md`` against the exception tree of the whole project."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from privacy.errors import ArchipelError

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([a-z_]+)` \| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)


def error_classes() -> list[type[ArchipelError]]:
    """Every subclass that a module of the product defines."""
    for name in ("privacy", "policies", "federation", "silo"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    packages = ("privacy.", "policies.", "federation.", "silo.")
    return sorted(
        {found for found in _subclasses(ArchipelError) if found.__module__.startswith(packages)},
        key=lambda found: found.code,
    )


def _subclasses(parent: type[ArchipelError]) -> Iterator[type[ArchipelError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)


def documented() -> list[tuple[str, int]]:
    text = (ROOT / "docs" / "reference-errors.md").read_text(encoding="utf-8")
    return [(match[1], int(match[2])) for match in ROW.finditer(text)]


def test_every_error_names_its_own_code() -> None:
    inheriting = [found.__qualname__ for found in error_classes() if "code" not in vars(found)]
    assert inheriting == []


def test_no_code_stands_for_two_errors() -> None:
    counted = Counter(found.code for found in error_classes())
    assert [code for code, number in counted.items() if number > 1] == []


def test_the_page_and_the_tree_name_the_same_errors_and_exit_codes() -> None:
    tree = {(found.code, int(found.exit_code)) for found in error_classes()}
    page = documented()
    assert {"not on the page": tree - set(page), "not in the tree": set(page) - tree} == {
        "not on the page": set(),
        "not in the tree": set(),
    }
    assert len(page) == len(set(page))


def test_every_error_has_a_docstring_that_says_what_happened() -> None:
    assert [found.__qualname__ for found in error_classes() if not found.__doc__] == []
