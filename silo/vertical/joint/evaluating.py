"""How good a vertical job's model is for the label silo's own people, and how far to trust its partners.

Alone it is measured on held-out rows. With partners that takes people who have consented at every one of
them: their tokens are read from a file, each is spent, and what comes back is used here and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from privacy.errors import DataError
from silo.data.tables import MissingColumnError, read_table
from silo.evaluation import evaluate
from silo.finished import job_terms
from silo.rows import Rows, load_rows
from silo.vertical.artefacts import LabelModel, load_label_model
from silo.vertical.joint.model import Matrix, Vector
from silo.vertical.joint.tuning import tune
from silo.vertical.joint.weights import save_weights
from silo.vertical.serving.desk import LabelDesk

COLUMNS = ("user_id", "silo", "token")

Notice = Callable[[int, int], None]
"""Told how many of how many people have been asked about."""


@dataclass(frozen=True)
class OwnHalf:
    """Scores people by what the label silo knows of them."""

    model: LabelModel

    def scores(self, histories: sp.csr_matrix) -> Matrix:
        """Users × catalogue items in and out; items that the model does not rank come last."""
        spans = pairwise(histories.indptr)
        return np.stack([self.model.scores(histories.indices[start:end]) for start, end in spans])


def evaluate_alone(directory: Path, job: str) -> dict[str, float]:
    """Metrics of the label silo's own half of the model, on its own held-out rows.

    Raises:
        DataError: the plan held no rows out.
    """
    rows = _held_out_rows(directory, job)
    return evaluate(OwnHalf(load_label_model(directory, job)), rows.train, rows.held_out)


async def evaluate_with_partners(
    directory: Path, job: str, consents: Path, *, keep: bool, notice: Notice
) -> dict[str, Any]:
    """Ask every partner about everybody who consented, choose weights on half of them, measure on the rest.

    Args:
        directory: the label silo's.
        job: full id of a vertical job.
        consents: CSV file of ``user_id``, ``silo`` and ``token``.
        keep: whether lists are made with the chosen weights from now on.
        notice: see :data:`Notice`.

    Raises:
        DataError: the plan held no rows out, or the file is no such table.
        TooFewSessionsError: partners answered for too few people.
        ServingDeniedError: this silo's policy does not let it ask.
    """
    rows, model = _held_out_rows(directory, job), load_label_model(directory, job)
    sessions = await _sessions(directory, job, _read_consents(consents), notice)
    tuned = tune(model, rows.train, rows.held_out, sessions)
    weights = tuned.model.weights
    if keep:
        save_weights(directory / "jobs" / job, weights)
    return {
        "job": job,
        "people": tuned.num_people,
        "answered": {silo: len(found) for silo, found in sessions.items()},
        "metrics": tuned.metrics,
        "weights": {
            "mixing": weights.mixing,
            "feature_ridges": dict(zip(model.partners, weights.feature_ridges, strict=True)),
        },
        "kept": keep,
    }


async def _sessions(
    directory: Path, job: str, tokens: Mapping[str, Mapping[str, str]], notice: Notice
) -> dict[str, dict[str, Vector]]:
    """What each partner said, by partner and user id."""
    async with LabelDesk(directory, job) as desk:
        sessions: dict[str, dict[str, Vector]] = {name: {} for name in desk.partners}
        for number, (user_id, of_user) in enumerate(tokens.items(), 1):
            features, _ = await desk.ask(of_user)
            for silo, vector in features.items():
                sessions[silo][user_id] = vector
            notice(number, len(tokens))
    return sessions


def _read_consents(path: Path) -> dict[str, dict[str, str]]:
    """Tokens by user id and silo."""
    table = read_table(path, "csv")
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise MissingColumnError(
            f"no column {', '.join(missing)}",
            where=f"{path}:1",
            remedy=f"make {','.join(COLUMNS)} the first line, then one token a line",
        )
    tokens: dict[str, dict[str, str]] = {}
    for user_id, silo, token in table.select(pl.col(*COLUMNS).cast(pl.String)).iter_rows():
        tokens.setdefault(user_id, {})[silo] = token
    return tokens


def _held_out_rows(directory: Path, job: str) -> Rows:
    plan, _, dataset = job_terms(directory / "jobs" / job)
    if plan.holdout.kind == "none":
        raise DataError(
            "this job's plan held no rows out, so there is nothing to measure on",
            where=f"job {job}: holdout.kind",
            remedy="propose a plan with holdout: {kind: random, fraction: 0.2, seed: 7}",
        )
    return load_rows(directory, plan, dataset)
