"""A finished job's model with everything needed to use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import Dataset, SiloPolicy
from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.models.shipped import ShippedModel, load_model
from silo.rows import plan_catalogue

MODEL_FILE = "model.safetensors"
ADOPTED = "adopted"
"""Beside ``jobs``: models made from weights of jobs that this silo was not in."""


class NoModelError(DataError):
    """There is no model of that job here."""

    code = "no_model"


@dataclass(frozen=True)
class Finished:
    """One job's result at one silo.

    Attributes:
        job: its handle.
        plan: as this silo accepted it.
        dataset_name: what this silo's policy calls the table that the plan uses.
        dataset: the table.
        catalogue: what the model ranks.
        recommender: the model.
        note: what a model of fewer rounds than planned says of itself, or None.
    """

    job: str
    plan: Plan
    dataset_name: str
    dataset: Dataset
    catalogue: Catalogue
    recommender: ShippedModel
    note: str | None = None


def load_finished(directory: Path, job: str | None = None) -> Finished:
    """Load the model of ``job`` (a unique beginning suffices), or of the newest one.

    Raises:
        NoModelError: there is none, or the beginning fits several.
        ModelFileError: the model file is damaged.
    """
    path = left_by_job(directory, job, MODEL_FILE)
    plan, name, dataset = job_terms(path.parent)
    return Finished(
        job=path.parent.name,
        plan=plan,
        dataset_name=name,
        dataset=dataset,
        catalogue=plan_catalogue(directory, plan, dataset),
        recommender=load_model(path),
        note=json.loads((path.parent / "model-card.json").read_bytes()).get("note"),
    )


def finished_jobs(directory: Path) -> list[str]:
    """Handles of the horizontal jobs that left a model here, oldest first."""
    return [path.parent.name for path in _all_left(directory, MODEL_FILE)]


def left_by_job(directory: Path, job: str | None, file: str) -> Path:
    """The file of that name that a job left here; of the newest job where none is named.

    Args:
        directory: the silo's.
        job: its handle, or a unique beginning of it.
        file: name below ``jobs/<job>/``.

    Raises:
        NoModelError: there is none, or the beginning fits several.
    """
    found = _all_left(directory, file)
    if job is not None:
        found = [path for path in found if path.parent.name.startswith(job)]
        if len(found) > 1:
            raise NoModelError(f"{len(found)} jobs begin with {job}", remedy="write more of the job's id")
    if not found:
        raise NoModelError(
            f"no job{f' {job}' if job else ''} has left {file} here",
            where=str(directory / "jobs"),
            remedy="see `archipel silo status`",
        )
    return found[-1]


def job_terms(job_directory: Path) -> tuple[Plan, str, Dataset]:
    """The plan of a job as this silo accepted it, and name and table of the one dataset it may use.

    Raises:
        NoModelError: the policy it was accepted under names none.
    """
    plan = load_yaml(job_directory / "plan.yaml", Plan)
    found = job_policy(job_directory).dataset_for(plan.purpose)
    if found is None:
        raise NoModelError("the job's policy names no dataset", where=str(job_directory))
    return plan, *found


def job_policy(job_directory: Path) -> SiloPolicy:
    """The policy under which this silo accepted a job."""
    return SiloPolicy.model_validate_json((job_directory / "policy.json").read_bytes())


def _all_left(directory: Path, file: str) -> list[Path]:
    """Oldest first."""
    found = (path for place in ("jobs", ADOPTED) for path in (directory / place).glob(f"*/{file}"))
    return sorted(found, key=lambda path: path.stat().st_mtime)
