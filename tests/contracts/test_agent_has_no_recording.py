"""An agent under a charter has no way to canaries, recordings, attacks or another party's secrets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AGENTS = ("federation", "silo/jobs", "silo/models", "silo/data")
ALLOWED = (
    *("silo/demo", "silo/audit", "privacy/auditing.py", "privacy/encryption/recovery.py"),
    "silo/tuning/world.py",  # a command of its own: it learns from public rows as the demo does
)
FORBIDDEN = ("silo.demo", "silo.audit.attack", "privacy.auditing", "privacy.encryption.recovery")

CHILD = """
import importlib, sys
for name in {names}:
    importlib.import_module(name)
found = sorted(name for name in sys.modules if name.startswith({forbidden}))
print(found)
"""


def modules_of_an_agent() -> list[str]:
    paths = [path for folder in AGENTS for path in (ROOT / folder).rglob("*.py")]
    paths += [path for path in (ROOT / "silo").glob("*.py") if path.name != "commands.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(paths)]
    return [name.removesuffix(".__init__") for name in names]


def loaded_beside(names: list[str]) -> str:
    code = CHILD.format(names=names, forbidden=FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_everything_an_agent_is_made_of_loads_none_of_it() -> None:
    names = modules_of_an_agent()
    assert {"silo.agent", "silo.running", "silo.tasks", "silo.jobs.contribute"} <= set(names)
    assert loaded_beside(names) == "[]"


def test_the_same_look_at_the_demo_finds_it() -> None:
    assert "silo.audit.attack.recording" in loaded_beside(["silo.demo.recorder"])


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_other_product_module_names_it_not_even_inside_a_function(name: str) -> None:
    """Imports inside functions are found by their text."""
    paths = [
        path
        for package in ("privacy", "policies", "federation", "silo")
        for path in (ROOT / package).rglob("*.py")
    ]
    outside = [path for path in paths if not str(path.relative_to(ROOT)).startswith(ALLOWED)]
    assert outside
    assert [path.name for path in outside if name in path.read_text(encoding="utf-8")] == []
