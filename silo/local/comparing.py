"""``archipel compare``: this silo's models, every comparable federated one and their blend, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from privacy.errors import DataError
from silo.data.interactions import Interactions
from silo.data.ratings import load_ratings
from silo.evaluation import METRICS, Scorer, per_user_metrics, rank, reported_metrics
from silo.finished import MODEL_FILE, finished_jobs, left_by_job, load_finished
from silo.local.errors import LocalPartsError
from silo.local.files import LocalParts, Source, load_parts, rows_digest
from silo.local.fusion import METRIC, Blend, choose_weights, halves
from silo.local.kept import FEDERATED, LOCAL, KeptBlend, save_blend
from silo.local.models import RankingModel
from silo.local.rating_metrics import RatingTask
from silo.rows import Rows, load_rows, source_stamp


def compare_models(
    directory: Path,
    dataset: str | None,
    now: datetime,
    *,
    keep: bool,
    notice: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Choose a blend on one half of the users with held-out rows; measure everything on the other.

    Args:
        directory: the silo's.
        dataset: whose local models; None for those fitted last.
        now: goes into kept weights.
        keep: make lists with these weights from now on.
        notice: called with what is being done.

    Returns:
        JSON values: ``models`` (name, is_private_to_silo, weight, metrics, standard_error of ``chosen_by``,
        ``ratings`` by :mod:`silo.local.rating_metrics` or None), ``blend`` (the same without weight),
        ``ratings`` (what these are of, and rating predictors; None where the table has none), ``left_out``
        (job -> why it cannot be compared) and ``older_than_rows`` (jobs that may have learnt some of what is
        held out now). Figures are of private rows, without noise.

    Raises:
        LocalPartsError: no local models, or rows have changed since they were fitted.
        NothingToEvaluateError: too few users with held-out rows.
    """
    parts = load_parts(directory, dataset)
    rows = _rows_of(directory, parts)
    models, left_out = comparable_models(directory, parts)
    validation, test = halves(rows.held_out)
    notice("choosing weights")
    weights = choose_weights(models, rows.train, validation)
    rated = load_ratings(directory, parts.source.plan, parts.source.dataset, rows)
    task = RatingTask.of(rated, rows.train, validation.user_ids, test.user_ids)
    measured = []
    for name, model in {**models, "blend": Blend(models, weights)}.items():
        notice(f"measuring {name}")
        measured.append(_row(name, model, rows.train, test, task))
    *table, blend = measured
    kept = KeptBlend(
        chosen_at=now,
        metric=METRIC,
        parts_sha256=parts.sha256,
        weights=weights,
        left_out=tuple(left_out),
    )
    return {
        "dataset": parts.source.dataset_name,
        "fitted_at": parts.card["fitted_at"],
        "holdout": parts.source.plan.holdout.model_dump(mode="json"),
        "chosen_by": METRIC,
        "validation_users": validation.num_users,
        "test_users": test.num_users,
        "metrics": list(METRICS),
        "ratings": None
        if task is None
        else task.facts() | {"predictors": task.of_predictors(parts.models.neighbours)},
        "models": [row | {"weight": weights[row["name"]]} for row in table],
        "blend": blend,
        "left_out": left_out,
        "older_than_rows": _older_than_rows(directory, parts, models),
        "kept": str(save_blend(parts, kept)) if keep else None,
    }


def _row(
    name: str, model: Scorer, train: Interactions, test: Interactions, task: RatingTask | None
) -> dict[str, Any]:
    rankings = rank(model, train, test)
    of_users = per_user_metrics(rankings)[METRIC]
    return {
        "name": name,
        "is_private_to_silo": not name.startswith(FEDERATED),
        "metrics": reported_metrics(rankings),
        "standard_error": float(of_users.std() / np.sqrt(of_users.size)),
        "ratings": None if task is None else task.of_scorer(model),
    }


def comparable_models(directory: Path, parts: LocalParts) -> tuple[dict[str, RankingModel], dict[str, str]]:
    """All models that have not seen the held-out rows: by name; and why other jobs' are left out."""
    models = {f"{LOCAL}{name}": model for name, model in parts.models.scorers().items()}
    left_out = {}
    for job in finished_jobs(directory):
        try:
            finished = load_finished(directory, job)
        except DataError as error:
            left_out[job] = error.message
            continue
        theirs = Source(finished.dataset_name, finished.dataset, finished.plan).terms()
        differing = [name for name, value in parts.source.terms().items() if theirs[name] != value]
        if differing:
            left_out[job] = f"it learnt from other rows: another {', another '.join(differing)}"
        else:
            models[f"{FEDERATED}{job}"] = finished.recommender
    return models, left_out


def _older_than_rows(directory: Path, parts: LocalParts, models: Mapping[str, object]) -> list[str]:
    """Jobs that ended before a table was last written: rows held out now may have been theirs to learn."""
    written = max(stamp for _, stamp, _, _ in source_stamp(directory, parts.source.dataset))
    jobs = [name.removeprefix(FEDERATED) for name in models if name.startswith(FEDERATED)]
    return [job for job in jobs if left_by_job(directory, job, MODEL_FILE).stat().st_mtime_ns < written]


def _rows_of(directory: Path, parts: LocalParts) -> Rows:
    source = parts.source
    if source.plan.holdout.kind == "none":
        raise DataError(
            "the plan held no rows out, so there is nothing to measure on",
            where=f"{parts.directory}: holdout.kind",
            remedy="fit to a plan that holds rows out, as `archipel plan new --holdout last` makes one: "
            "`archipel fit --local --plan FILE`",
        )
    rows = load_rows(directory, source.plan, source.dataset)
    if rows_digest(rows.train) != parts.card["rows"]["sha256"]:
        # What is held out now may have been learnt from then.
        raise LocalPartsError(
            "the rows have changed since the local models were fitted",
            where=str(parts.directory),
            remedy="run `archipel fit --local` again",
        )
    return rows
