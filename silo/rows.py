"""The rows a plan may use: read, cleaned, capped and split as plan and policy say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.plan import Plan
from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue
from silo.data.cleaning import CleaningReport, clean
from silo.data.interactions import Interactions
from silo.data.sources import read_dataset, read_exclusions
from silo.data.splits import hold_out


@dataclass(frozen=True)
class Rows:
    """One silo's rows under one plan.

    Attributes:
        train: what contributions are made of.
        held_out: what stays out of them: evaluation, and the noised metrics.
        catalogue: the plan's public items.
        report: what cleaning did; local.
    """

    train: Interactions
    held_out: Interactions
    catalogue: Catalogue
    report: CleaningReport


def load_rows(directory: Path, plan: Plan, dataset: Dataset) -> Rows:
    """Read a silo's rows under a plan; every rule looks at one user at a time.

    Raises:
        DataError: what is wrong with the table, and how to mend it.
    """
    catalogue = plan_catalogue(directory, plan)
    interactions, report = clean(
        read_dataset(dataset, directory, catalogue),
        catalogue,
        max_interactions_per_user=min(plan.max_interactions_per_user, dataset.max_interactions_per_user),
        max_users=plan.max_users_per_silo,
        exclude_users=read_exclusions(dataset, directory),
    )
    holdout = plan.holdout
    train, held_out = hold_out(interactions, holdout.kind, fraction=holdout.fraction, seed=holdout.seed)
    return Rows(train, held_out, catalogue, report)


def all_rows(directory: Path, plan: Plan, dataset: Dataset) -> Interactions:
    """Every interaction a user has had, uncapped: what ``recommend`` leaves out of a list."""
    catalogue = plan_catalogue(directory, plan)
    interactions, _ = clean(
        read_dataset(dataset, directory, catalogue),
        catalogue,
        max_interactions_per_user=len(catalogue),
        exclude_users=read_exclusions(dataset, directory),
    )
    return interactions


def plan_catalogue(directory: Path, plan: Plan) -> Catalogue:
    """The plan's catalogue from ``catalogues/``, checked against its digest."""
    sha256 = plan.catalogue.sha256
    return Catalogue.load(directory / "catalogues" / f"{sha256}.jsonl", sha256)
