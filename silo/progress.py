"""This silo's own loss after each round, for its own people: an un-noised figure that enters nothing.

It stands in ``jobs/<job>/progress.jsonl``, which only its owner reads, and in ``silo status``. It is never
sent or logged, and nothing is decided by it: a training that stopped by it would release it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from silo.data.interactions import Interactions
    from silo.models.base import Family, State

PROGRESS_FILE = "progress.jsonl"


def note_loss(
    job_directory: Path, rounds: int, family: Family, state: State, interactions: Interactions
) -> None:
    """Append these users' mean loss after so many rounds, where the family has one.

    Called while a contribution is made, because only that may take as long as the rows want.
    """
    if not rounds or any(entry["round"] == rounds for entry in read_progress(job_directory)):
        return
    loss = family.local_loss(interactions, state)
    if loss is None:
        return
    line = json.dumps({"round": rounds, "local_loss": loss}) + "\n"
    with open(job_directory / PROGRESS_FILE, "a", opener=_for_owner, encoding="utf-8") as file:
        file.write(line)


def read_progress(job_directory: Path) -> list[dict[str, Any]]:
    """The entries so far, oldest first; a line that a crash cut short is left out."""
    path, entries = job_directory / PROGRESS_FILE, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    return entries


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
