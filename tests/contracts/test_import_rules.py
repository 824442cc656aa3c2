"""The dependency rule, held against every import statement of the source, those inside functions included.

The contracts of import-linter (``make check``) say the same of modules as wholes; these say it where tests
run, also of libraries that they do not know, and name the line.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("privacy", "policies", "federation", "silo", "cli")
HEAVY = ("torch", "opacus", "tenseal", "dp_accounting", "polars", "grpc", "scipy")
HOMES = {
    "opacus": ("privacy/dpsgd/",),
    "tenseal": ("privacy/encryption/",),
    "grpc": ("federation/transport/",),
    "private_set_intersection": ("privacy/alignment/points.py",),
    "sqlite3": (
        "privacy/ledger/",
        "federation/store.py",
        "silo/outbox.py",
        "silo/private_file.py",
        "policies/console.py",
        # The demo's recorder reads everybody's disks, and an attack edits copies of ledgers.
        "silo/demo/recorder.py",
        "silo/audit/attack/tampering.py",
    ),
    "requests": (),
    "httpx": (),
    "pickle": (),
    "dill": (),
    "marshal": (),
    "shelve": (),
    "yaml": (),
}
KEY_SIDE = ("privacy.encryption.keyholder", "privacy.encryption.crossmoments.label", "privacy.securesum")


class Import(NamedTuple):
    """One imported module and where it is imported."""

    path: str
    line: int
    module: str
    is_lazy: bool

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def imports() -> list[Import]:
    files = [ROOT / "cli.py", *(file for name in LAYERS[:-1] for file in sorted((ROOT / name).rglob("*.py")))]
    return [found for file in files for found in _imports_of(file)]


def _imports_of(file: Path) -> Iterator[Import]:
    path = file.relative_to(ROOT).as_posix()
    tree = ast.parse(file.read_text("utf-8"), filename=path)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(path, node.lineno, name, id(node) in lazy)


IMPORTS = imports()


def test_there_is_something_to_check() -> None:
    assert len({found.path for found in IMPORTS}) > 100
    assert {found.module.split(".")[0] for found in IMPORTS} >= {*LAYERS[:-1], "tenseal", "grpc", "opacus"}


def test_a_module_imports_its_own_package_or_one_to_the_left() -> None:
    order = {name: position for position, name in enumerate(LAYERS)}
    wrong = [
        found.place
        for found in IMPORTS
        if (imported := order.get(found.module.split(".")[0])) is not None
        and imported > order[found.path.split("/")[0].removesuffix(".py")]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_in_its_home_only(library: str) -> None:
    wrong = [
        found.place
        for found in IMPORTS
        if found.module.split(".")[0] == library and not found.path.startswith(HOMES[library] or ("nowhere",))
    ]
    assert wrong == []


def test_nothing_the_coordinator_is_made_of_names_the_key_side() -> None:
    wrong = [
        found.place
        for found in IMPORTS
        if found.path.startswith(("federation/", "policies/")) and found.module.startswith(KEY_SIDE)
    ]
    assert wrong == []


def test_the_product_does_not_import_the_in_process_transport_nor_tests() -> None:
    wrong = [
        found.place
        for found in IMPORTS
        if found.path != "federation/transport/inprocess.py"
        and (found.module.startswith("federation.transport.inprocess") or found.module.startswith("tests"))
    ]
    assert wrong == []


def test_command_modules_import_what_is_heavy_inside_their_commands() -> None:
    wrong = [
        found.place
        for found in IMPORTS
        if found.path.endswith(("commands.py", "cli.py"))
        and not found.is_lazy
        and found.module.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_importing_all_of_federation_loads_no_key_holder_and_no_silo() -> None:
    """What the statements above promise one by one, together and at run time."""
    modules = [
        file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for file in sorted((ROOT / "federation").rglob("*.py"))
        if file.name != "__init__.py"
    ]
    code = (
        f"import sys; [__import__(name) for name in {modules!r}];"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('silo', 'opacus', 'torch')"
        f" or n in {KEY_SIDE!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
