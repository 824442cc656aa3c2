"""The rows a plan may use: read, cleaned, capped and split as plan and policy say.

Contributions are made of ``load_rows(strict=False)``. All members see whether a silo contributed, so nothing
that one person's rows can cause may be an error there: what cannot be used is left out, row by row, and
counted in the report, which stays local. Errors remain where no single person decides: a file or a column
that is missing, no table, no rows at all. ``archipel data check`` reads with ``strict=True`` and calls all of
it a problem.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from privacy.alignment.identifiers import IdentifierError, IdentifierKind, normalise
from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueError, CatalogueMismatchError
from silo.data.cleaning import CleaningReport, TooManyUsersError, clean
from silo.data.interactions import Interactions
from silo.data.sources import read_dataset, read_exclusions, source_files
from silo.data.splits import NoTimesError, hold_out
from silo.data.tables import UnreadableTableError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ItemListError(DataError):
    """A silo is to rank its own items, and its policy names no list of them that can be ranked and stays."""

    code = "item_list"


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


@dataclass(frozen=True)
class KnownRows:
    """What a silo knows of its people when it makes their lists.

    Attributes:
        seen: every interaction, disliked ones too: no list shows them again.
        liked: those of ``seen`` that models learn from, the same people under the same indices: a history
            that is scored is made as those that were learnt from.
    """

    seen: Interactions
    liked: Interactions


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
        NoTimesError: the plan holds out the last row or reads an order, and the policy names no column of
            times.
        TooManyUsersError: if ``strict``, more users than the plan's bound.
    """
    catalogue = plan_catalogue(directory, plan, dataset)
    if dataset.columns.timestamp is None:
        _refuse_without_times(plan)
    table = read_dataset(dataset, directory, catalogue, strict=strict)
    said_no = who_said_no(directory, plan, dataset, table, strict=strict)
    return split_rows(table, catalogue, plan, dataset, said_no, strict=strict)


def split_rows(
    table: pl.DataFrame,
    catalogue: Catalogue,
    plan: Plan,
    dataset: Dataset,
    said_no: frozenset[str],
    *,
    strict: bool = False,
) -> Rows:
    """What :func:`load_rows` makes of a table that is read already, or of the part of it up to some day.

    Args:
        table: as ``read_dataset`` gives it.
        catalogue: what the silo ranks under the plan.
        plan: for the caps and the holdout.
        dataset: from the policy.
        said_no: as ``who_said_no`` gives them.
        strict: as ``load_rows``.

    Raises:
        DataError, TooManyUsersError: as ``load_rows``.
    """
    holdout = plan.holdout
    interactions, report = clean(
        table,
        catalogue,
        max_interactions_per_user=min(plan.max_interactions_per_user, dataset.max_interactions_per_user),
        max_users=plan.max_users_per_silo,
        exclude_users=said_no,
        min_rating=dataset.min_rating,
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


def _refuse_without_times(plan: Plan) -> None:
    if plan.holdout.kind == "last":
        raise NoTimesError(
            "the plan holds out each user's last row, and this dataset has no times",
            where="columns.timestamp",
            remedy="Name the column of times in policy.yaml, or ask for a plan with a random holdout.",
        )
    if plan.reads_order:
        raise NoTimesError(
            "the plan's model reads histories in order of time, and this dataset has no times",
            where="columns.timestamp",
            remedy="Name the column of times in policy.yaml, or ask for a plan of another model.",
        )


def who_said_no(
    directory: Path, plan: Plan, dataset: Dataset, rows: pl.DataFrame, *, strict: bool = False
) -> frozenset[str]:
    """Ids of people who opted out; where people are aligned, every id of ``rows`` that is one of theirs.

    An alignment takes ids that are written alike for one person: who said no under one says it for all.
    """
    said = read_exclusions(dataset, directory, strict=strict)
    if plan.alignment is None or not said:
        return said
    kind, region = plan.alignment.identifiers, dataset.default_region
    written = {_written(user_id, kind, region) for user_id in said} - {None}
    users = rows["user_id"].drop_nulls().unique().to_list()
    return said | {user_id for user_id in users if _written(user_id, kind, region) in written}


def _written(user_id: str, kind: IdentifierKind, default_region: str | None) -> str | None:
    try:
        return normalise(user_id, kind, default_region)
    except IdentifierError:
        return None


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


def known_rows(directory: Path, plan: Plan, dataset: Dataset) -> KnownRows:
    """Every interaction of a silo's users, uncapped: what ``recommend`` leaves out, and what it scores."""
    catalogue = plan_catalogue(directory, plan, dataset)
    table = read_dataset(dataset, directory, catalogue, strict=False)
    said_no = who_said_no(directory, plan, dataset, table)

    def cleaned(min_rating: float | None) -> Interactions:
        interactions, _ = clean(
            table,
            catalogue,
            max_interactions_per_user=len(catalogue),
            exclude_users=said_no,
            min_rating=min_rating,
            strict=False,
        )
        return interactions

    seen = cleaned(None)
    liked = seen if dataset.min_rating is None else cleaned(dataset.min_rating).among(seen.user_ids)
    return KnownRows(seen, liked)


def plan_catalogue(directory: Path, plan: Plan, dataset: Dataset | None = None) -> Catalogue:
    """What a silo ranks under a plan, checked against its digest: the plan's list, or the silo's own.

    Args:
        directory: the silo's.
        plan: names the list, or leaves each silo its own.
        dataset: from the policy; names the silo's own list by its digest, so that the list a model ranks is
            the one that an administrator signed.

    Raises:
        ItemListError: the silo's own is wanted, and there is none, it is not named so, or its file is not
            there or not as it was.
        CatalogueError, CatalogueMismatchError: likewise of the plan's list.
    """
    if plan.catalogue.kind == "per_silo":
        return _own_catalogue(directory, dataset)
    sha256 = plan.catalogue.sha256
    return Catalogue.load(directory / "catalogues" / f"{sha256}.jsonl", sha256)


def _own_catalogue(directory: Path, dataset: Dataset | None) -> Catalogue:
    named = None if dataset is None else dataset.item_list
    remedy = "archipel data catalogue FILE, and item_list: catalogues/<sha256>.jsonl in the dataset"
    if named is None:
        raise ItemListError("the dataset names no list of this silo's own items", remedy=remedy)
    path = directory / named
    if not _DIGEST.fullmatch(path.stem):
        raise ItemListError("this list may change under a model that ranks it", where=named, remedy=remedy)
    try:
        return Catalogue.load(path, path.stem)
    except (CatalogueError, CatalogueMismatchError) as error:
        # As whatever else this silo lacks: a proposal is denied for it, where other errors are tried again.
        raise ItemListError(error.message, where=str(path), remedy=remedy) from error
