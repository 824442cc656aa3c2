"""How a released model is used, chosen by this silo's own people for itself: nothing of it leaves.

The model was paid for when it was released; what is made of it and of public attributes is post-processing.
Which of the candidates is kept depends on private rows without noise, so the choice is as private as local
models are: it serves this silo's own people, stands in ``local/`` and is in no bundle, plan or message.

``scores = z(model) + popularity_weight · z(log popularity) + attribute_weight · z(attributes)``, z-scores per
person over unseen items. The popularity is the noised one that came with the model; attributes are the cosine
of an item's and the mean of those in the person's own history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from policies.files import write_atomically
from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.evaluation import aligned_rows, per_user_metrics, rank_scores
from silo.finished import Finished, load_finished
from silo.local.fusion import METRIC, halves, standardised
from silo.models.shipped import ShippedModel
from silo.rows import load_rows

POPULARITY_WEIGHTS: Final = (0.0, -0.6, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.6, 1.0)
ATTRIBUTE_WEIGHTS: Final = (0.0, 0.1, 0.2, 0.4)
LEAST_POPULARITY: Final = 1e-3
"""Of the most popular item's: noise makes rare ones zero or less."""


class NotTunedError(DataError):
    """No choice of post-processing is kept for a job's model."""

    code = "not_tuned"


class Tuning(BaseModel):
    """What was chosen for one job's model (``local/tuned/<job>.json``).

    Attributes:
        kind: of the document.
        schema_version: of the document.
        job: whose model.
        chosen_at: when.
        metric: by what.
        popularity_weight: negative lifts rare items.
        attribute_weight: of likeness by public attributes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["LocalTuning"] = "LocalTuning"
    schema_version: Literal[1] = 1
    job: str
    chosen_at: datetime
    metric: str
    popularity_weight: float
    attribute_weight: float


@dataclass(frozen=True, eq=False)
class TunedModel:
    """A released model with weights beside it.

    Attributes:
        model: as it was released.
        catalogue: its public items.
        popularity_weight: see the module.
        attribute_weight: likewise.
    """

    model: ShippedModel
    catalogue: Catalogue
    popularity_weight: float
    attribute_weight: float

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return self.model.num_items

    @property
    def is_fallback(self) -> bool:
        """Whether the model itself ranks by popularity."""
        return self.model.is_fallback

    def scores(self, histories: sp.csr_matrix) -> NDArray[np.float64]:
        """Users × items in, users × items float64 out."""
        model, popularity, attributes = parts(self.model, self.catalogue, histories)
        return model + self.popularity_weight * popularity + self.attribute_weight * attributes


def parts(
    model: ShippedModel, catalogue: Catalogue, histories: sp.csr_matrix
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Z-scores of model, popularity and attributes: users × items each."""
    popular = np.maximum(model.popularity, LEAST_POPULARITY * max(float(model.popularity.max()), 1e-12))
    features = catalogue.features()
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    profiles = histories @ unit
    profiles = profiles / np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-12)
    everybody = np.tile(np.log(popular), (histories.shape[0], 1))
    return (
        standardised(model.scores(histories), histories),
        standardised(everybody, histories),
        standardised(profiles @ unit.T, histories),
    )


def tune_released(
    directory: Path,
    job: str | None,
    now: datetime,
    *,
    keep: bool,
    notice: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Choose weights on one half of the people with held-out rows; measure on the other.

    Args:
        directory: the silo's.
        job: beginning of a handle; None for the newest.
        now: goes into a kept choice.
        keep: let ``recommend --model tuned`` use it.
        notice: called with what is being done.

    Returns:
        JSON values; figures are of private rows, without noise.

    Raises:
        DataError: the plan held no rows out.
        NothingToEvaluateError: too few people with held-out rows.
    """
    finished = load_finished(directory, job)
    if finished.plan.holdout.kind == "none":
        raise DataError(
            "this job's plan held no rows out, so there is nothing to choose by",
            where=f"job {finished.job}: holdout.kind",
            remedy="propose a plan with holdout: {kind: random, fraction: 0.2, seed: 7}",
        )
    rows = load_rows(directory, finished.plan, finished.dataset)
    chosen = choose(finished.recommender, finished.catalogue, rows.train, rows.held_out, notice)
    tuning = Tuning(
        job=finished.job,
        chosen_at=now,
        metric=METRIC,
        popularity_weight=chosen.popularity_weight,
        attribute_weight=chosen.attribute_weight,
    )
    return {
        "kind": "post-processing",
        "epsilon": 0.0,
        "job": finished.job,
        "metric": METRIC,
        **asdict(chosen),
        "kept": str(save_tuning(directory, tuning)) if keep else None,
    }


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and its worth to people who did not choose; exact figures of private rows.

    Attributes:
        candidates: how many were tried.
        validation_users: by whom.
        test_users: by whom the choice was measured.
        popularity_weight: as in :class:`Tuning`.
        attribute_weight: likewise.
        as_released: ``METRIC`` of the model as it is.
        as_chosen: with the weights.
        gain: mean difference.
        gain_standard_error: of it, over people.
    """

    candidates: int
    validation_users: int
    test_users: int
    popularity_weight: float
    attribute_weight: float
    as_released: float
    as_chosen: float
    gain: float
    gain_standard_error: float


def choose(
    model: ShippedModel,
    catalogue: Catalogue,
    train: Interactions,
    held_out: Interactions,
    notice: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Choose weights for a model; arguments and errors as :func:`tune_released`."""
    validation, test = halves(held_out)
    candidates = list(product(POPULARITY_WEIGHTS, ATTRIBUTE_WEIGHTS))
    notice(f"{len(candidates)} candidates on {validation.num_users:,} people")
    values = _judge(model, catalogue, *aligned_rows(train, validation), candidates)
    means = [float(value.mean()) for value in values]
    best = candidates[int(np.argmax(means))]  # of equals the first: the model as it is
    notice(f"measuring on {test.num_users:,} others")
    released, chosen = _judge(model, catalogue, *aligned_rows(train, test), [(0.0, 0.0), best])
    gain = chosen - released
    return Chosen(
        candidates=len(candidates),
        validation_users=validation.num_users,
        test_users=test.num_users,
        popularity_weight=best[0],
        attribute_weight=best[1],
        as_released=float(released.mean()),
        as_chosen=float(chosen.mean()),
        gain=float(gain.mean()),
        gain_standard_error=float(gain.std() / np.sqrt(gain.size)),
    )


def describe(found: dict[str, Any]) -> Iterator[object]:
    """What ``archipel tune --kind post-processing`` prints."""
    table = Table("job " + found["job"][:12], found["metric"])
    table.add_row("as released", f"{found['as_released']:.4f}")
    table.add_row("as chosen", f"{found['as_chosen']:.4f}")
    yield table
    yield (
        f"popularity weight {found['popularity_weight']:g}, attribute weight {found['attribute_weight']:g}: "
        f"of {found['candidates']} candidates the best on {found['validation_users']:,} people; figures of "
        f"{found['test_users']:,} others: {found['gain']:+.4f} ±{found['gain_standard_error']:.4f}"
    )
    yield "Chosen by private rows without noise: for this organisation's own lists only. Do not publish it."
    if found["kept"] is None:
        yield "Lists are made as before; --keep lets `recommend --model tuned` use it."
    else:
        yield "`archipel recommend --model tuned` uses it."


def save_tuning(directory: Path, tuning: Tuning) -> Path:
    """Keep a choice, readable by the owner only; returns its file."""
    place = directory / "local" / "tuned"
    for made in (place.parent, place):
        made.mkdir(mode=0o700, exist_ok=True)
    path = place / f"{tuning.job}.json"
    write_atomically(path, tuning.model_dump_json(indent=2).encode())
    return path


def load_tuned(directory: Path, finished: Finished) -> TunedModel:
    """The model of a job with what was chosen for it.

    Raises:
        NotTunedError: nothing is kept for it, or it cannot be read.
    """
    path = directory / "local" / "tuned" / f"{finished.job}.json"
    remedy = "choose with `archipel tune --kind post-processing --keep`"
    try:
        tuning = Tuning.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotTunedError("no choice is kept for this job", where=str(path), remedy=remedy) from error
    except ValidationError as error:
        raise NotTunedError("the choice cannot be read", where=str(path), remedy=remedy) from error
    return TunedModel(
        finished.recommender, finished.catalogue, tuning.popularity_weight, tuning.attribute_weight
    )


def _judge(
    model: ShippedModel,
    catalogue: Catalogue,
    seen: sp.csr_matrix,
    relevant: sp.csr_matrix,
    candidates: list[tuple[float, float]],
) -> list[NDArray[np.float64]]:
    """The metric of each person, for each candidate."""
    own, popularity, attributes = parts(model, catalogue, seen)
    return [
        per_user_metrics(rank_scores(own + popular * popularity + alike * attributes, seen, relevant))[METRIC]
        for popular, alike in candidates
    ]
