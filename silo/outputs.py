"""Files that a command makes because somebody asked for them: never over another, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from policies.files import replacing
from privacy.errors import UsageError

PRIVATE_MODE: Final = 0o600
"""Rows, lists and models of private rows: for the owner only."""


class OutputExistsError(UsageError):
    """There is something of the output's name already. Nothing was written."""

    code = "output_exists"


def refuse_existing(path: Path) -> None:
    """Refuse a name that is taken, before any work is done.

    Raises:
        OutputExistsError: there is something.
    """
    if path.exists() or path.is_symlink():
        raise OutputExistsError("it exists already", where=str(path), remedy="choose another --out")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, readable by its owner only; it appears under its name when all is written.

    Raises:
        OutputExistsError: the name is taken.
        OSError: the disk is full or the folder cannot be written; nothing is left.
    """
    refuse_existing(path)
    with replacing(path, mode=PRIVATE_MODE) as file:
        yield file
