"""One process to a directory: two would say two things in one party's name."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.errors import HostError


@contextmanager
def exclusive(directory: Path, what: str) -> Iterator[None]:
    """Hold ``directory`` for this process; the lock vanishes with it, however it ends.

    Raises:
        HostError: another process holds it.
    """
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(
                f"another {what} runs in this directory",
                where=str(directory),
                remedy="stop it first, or name another --dir",
            ) from error
        yield
