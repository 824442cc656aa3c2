"""Weights of the joint model that were chosen after the job, in ``jobs/<job>/weights.json``.

The model file stays as the job wrote it and its card says; lists are made with these where there are any.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from policies.files import write_atomically
from privacy.errors import DataError
from silo.vertical.joint.model import Weights

WEIGHTS_FILE = "weights.json"


class WeightsFileError(DataError):
    """A file of chosen weights that is none."""

    code = "weights_file"


def save_weights(job_directory: Path, weights: Weights) -> None:
    """Keep weights, whole or not at all."""
    write_atomically(job_directory / WEIGHTS_FILE, json.dumps(asdict(weights), indent=2).encode())


def chosen_weights(job_directory: Path) -> Weights | None:
    """The weights that were chosen for a job's model since; None where there are none.

    Raises:
        WeightsFileError: the file is damaged.
    """
    path = job_directory / WEIGHTS_FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
        return Weights(**found | {"feature_ridges": tuple(map(float, found["feature_ridges"]))})
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsFileError(
            "these are no weights",
            where=str(path),
            remedy="remove the file, or choose them anew: archipel evaluate --consents FILE --keep",
        ) from error
