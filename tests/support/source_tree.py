"""Copies of the product's source: what a run imports is then known, and can be taken away."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("privacy", "policies", "federation", "silo")

_HOOK = """
import json, os, signal, sys


def _dump(*_):
    target = os.path.join(os.environ["TEST_MODULES"], f"{os.getpid()}.json")
    modules = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    with open(target + ".part", "w") as file:
        json.dump({"argv": sys.orig_argv, "modules": modules}, file)
    os.replace(target + ".part", target)


signal.signal(signal.SIGUSR1, _dump)
"""


def copy_tree(target: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Copy packages and lobby to ``target``, then delete the named files."""
    for package in PACKAGES:
        shutil.copytree(
            REPOSITORY / package, target / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    shutil.copy(REPOSITORY / "cli.py", target / "cli.py")
    for name in without:
        (target / name).unlink()
    return target


def environment(tree: Path, hooks: Path) -> dict[str, str]:
    """Environment in which Python imports ``tree``, and every process tells its modules on SIGUSR1.

    The answer of process ``p`` is the file ``hooks/p.json``.
    """
    hooks.mkdir(parents=True, exist_ok=True)
    (hooks / "sitecustomize.py").write_text(_HOOK)
    return {**os.environ, "PYTHONPATH": f"{hooks}{os.pathsep}{tree}", "TEST_MODULES": str(hooks)}
