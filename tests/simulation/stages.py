"""Disks of jobs that went well so far: most simulations begin there and spend their time on trouble.

A stage is what is left when every process of a calm simulation is killed at one moment. Simulations from a
stage begin with that: everybody starts again, and what was noted until then still counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.simulation.probes import Notebook


@dataclass(frozen=True)
class Stage:
    """A job in the middle.

    Attributes:
        disks: of every party.
        job: its id.
        job_key: its encryption key, which the simulation goes on to look for on the disks.
        notebook: what was seen so far.
        at: the time at which everybody was killed.
    """

    disks: Mapping[str, Path]
    job: str
    job_key: bytes
    notebook: Notebook
    at: datetime
