"""A finished job's model with everything needed to use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from policies.files import load_yaml
from policies.plan import Plan
from policies.silo_policy import Dataset, SiloPolicy
from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.models.recommender import Recommender
from silo.rows import plan_catalogue


class NoModelError(DataError):
    """There is no model of that job here."""

    code = "no_model"


@dataclass(frozen=True)
class Finished:
    """One job's result at one silo.

    Attributes:
        job: its handle.
        plan: as this silo accepted it.
        dataset: whose rows the plan uses here.
        catalogue: what the model ranks.
        recommender: the model.
        note: what a model of fewer rounds than planned says of itself, or None.
    """

    job: str
    plan: Plan
    dataset: Dataset
    catalogue: Catalogue
    recommender: Recommender
    note: str | None = None


def load_finished(directory: Path, job: str | None = None) -> Finished:
    """Load the model of ``job`` (a unique beginning suffices), or of the newest one.

    Raises:
        NoModelError: there is none, or the beginning fits several.
        ModelFileError: the model file is damaged.
    """
    path = _model_path(directory, job)
    plan = load_yaml(path.parent / "plan.yaml", Plan)
    policy = SiloPolicy.model_validate_json((path.parent / "policy.json").read_bytes())
    found = policy.dataset_for(plan.purpose)
    if found is None:
        raise NoModelError("the job's policy names no dataset", where=str(path.parent))
    return Finished(
        job=path.parent.name,
        plan=plan,
        dataset=found[1],
        catalogue=plan_catalogue(directory, plan),
        recommender=Recommender.load(path),
        note=json.loads((path.parent / "model-card.json").read_bytes()).get("note"),
    )


def _model_path(directory: Path, job: str | None) -> Path:
    models = sorted((directory / "jobs").glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if job is not None:
        models = [path for path in models if path.parent.name.startswith(job)]
        if len(models) > 1:
            raise NoModelError(f"{len(models)} jobs begin with {job}", remedy="write more of the job's id")
    if not models:
        raise NoModelError(
            f"no finished job{f' {job}' if job else ''} here",
            where=str(directory / "jobs"),
            remedy="see `archipel silo status`",
        )
    return models[-1]
