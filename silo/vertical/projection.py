"""In a feature silo's serving process: one person's numbers, from the rows that are on the disk now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from silo.rows import SourceStamp, source_stamp
from silo.vertical.artefacts import FeatureBasis, load_feature_basis

_BASES: dict[tuple[Path, str], tuple[SourceStamp, FeatureBasis]] = {}
"""Bases of this process, with their rows, by silo and job: reading them takes longer than a person waits."""

MAX_BASES = 4


@dataclass(frozen=True)
class ProjectTask:
    """What is needed to make one person's numbers.

    Attributes:
        directory: the silo's.
        job: whose basis.
        user_id: whose row; stays in this machine.
    """

    directory: Path
    job: str
    user_id: str


def project(task: ProjectTask) -> tuple[float, ...]:
    """Return the person's numbers; zeros for who has no rows here, or is on the list of opt-outs by now.

    Raises:
        NoModelError: the job left no basis here.
        DataError: the rows cannot be read any more as the job read them.
    """
    return tuple(_basis(task.directory, task.job).project(task.user_id).tolist())


def _basis(directory: Path, job: str) -> FeatureBasis:
    """The job's basis; rows and opt-outs are read again when a file of theirs has changed."""
    key = (directory, job)
    if key in _BASES:
        stamp, basis = _BASES[key]
        if stamp == source_stamp(directory, basis.dataset):
            return basis
    basis = load_feature_basis(directory, job)
    stamp = source_stamp(directory, basis.dataset)
    _ = basis.interactions
    _BASES.pop(key, None)
    while len(_BASES) >= MAX_BASES:
        del _BASES[next(iter(_BASES))]
    _BASES[key] = stamp, basis
    return basis
