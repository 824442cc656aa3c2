"""The rows a plan may use: read, cleaned, capped and split as plan and policy say.

Contributions are made of ``load_rows(strict=False)``. All members see whether a silo contributed, so nothing
that one person's rows can cause may be an error there: what cannot be used is left out, row by row, and
counted in the report, which stays local. Errors remain where no single person decides: a file or a column
that is missing, no table, no rows at all. ``archipel data check`` reads with ``strict=True`` and calls all of
it a problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.plan import Plan
from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue
from silo.data.cleaning import CleaningReport, TooManyUsersError, clean
from silo.data.interactions import Interactions
from silo.data.sources import read_dataset, read_exclusions, source_files
from silo.data.splits import NoTimesError, hold_out
from silo.data.tables import UnreadableTableError

SourceStamp = tuple[tuple[str, int, int, int], ...]
"""Path, time of the last change in nanoseconds, size and inode of each source file."""


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


def load_rows(directory: Path, plan: Plan, dataset: Dataset, *, strict: bool = False) -> Rows:
    """Read a silo's rows under a plan; every rule looks at one user at a time.

    Args:
        directory: the silo's.
        plan: names the catalogue, the caps and the holdout.
        dataset: from the policy.
        strict: whether what is wrong with single rows or the number of users is an error or is left out and
            counted.

    Raises:
        DataError: what is wrong with the table, and how to mend it.
        NoTimesError: the plan holds out the last row, and the policy names no column of times.
        TooManyUsersError: if ``strict``, more users than the plan's bound.
    """
    catalogue = plan_catalogue(directory, plan)
    holdout = plan.holdout
    if holdout.kind == "last" and dataset.columns.timestamp is None:
        raise NoTimesError(
            "the plan holds out each user's last row, and this dataset has no times",
            where="columns.timestamp",
            remedy="Name the column of times in policy.yaml, or ask for a plan with a random holdout.",
        )
    interactions, report = clean(
        read_dataset(dataset, directory, catalogue, strict=strict),
        catalogue,
        max_interactions_per_user=min(plan.max_interactions_per_user, dataset.max_interactions_per_user),
        max_users=plan.max_users_per_silo,
        exclude_users=read_exclusions(dataset, directory, strict=strict),
        strict=strict,
    )
    if strict and report.users_above_bound:
        raise TooManyUsersError(
            f"more users than the {plan.max_users_per_silo:,} this plan allows for",
            where="max_users_per_silo",
            remedy="Propose a plan with a larger max_users_per_silo.",
        )
    train, held_out = hold_out(
        interactions, holdout.kind, fraction=holdout.fraction, seed=holdout.seed, strict=strict
    )
    return Rows(train, held_out, catalogue, report)


def source_stamp(directory: Path, dataset: Dataset) -> SourceStamp:
    """Which files ``load_rows`` would read, the opt-outs among them, and how to see that one has changed.

    Taken before the rows are read, so that a change in between is noticed the next time.

    Raises:
        UnreadableTableError: a source is missing.
    """
    paths = source_files(dataset, directory)
    if dataset.exclude_users is not None:
        paths.append(directory / dataset.exclude_users)
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableTableError(
            error.strerror or "it cannot be read", where=str(path), remedy="Put the file back."
        ) from error
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


def all_rows(directory: Path, plan: Plan, dataset: Dataset) -> Interactions:
    """Every interaction a user has had, uncapped: what ``recommend`` leaves out of a list."""
    catalogue = plan_catalogue(directory, plan)
    interactions, _ = clean(
        read_dataset(dataset, directory, catalogue, strict=False),
        catalogue,
        max_interactions_per_user=len(catalogue),
        exclude_users=read_exclusions(dataset, directory, strict=False),
        strict=False,
    )
    return interactions


def plan_catalogue(directory: Path, plan: Plan) -> Catalogue:
    """The plan's catalogue from ``catalogues/``, checked against its digest."""
    sha256 = plan.catalogue.sha256
    return Catalogue.load(directory / "catalogues" / f"{sha256}.jsonl", sha256)
