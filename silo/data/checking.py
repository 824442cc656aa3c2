"""``archipel data check``: a verdict on tables, the reasons, and what cleaning would leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import Dataset, SiloPolicy
from privacy.errors import DataError, UsageError
from silo.data.catalogue import Catalogue
from silo.data.cleaning import CleaningReport, clean_rows
from silo.data.inspecting import inspect_dataset, inspect_file, inspect_items, is_item_file
from silo.data.item_files import read_item_file
from silo.data.showing import describe_file, describe_findings, describe_quality
from silo.data.sources import read_dataset, read_exclusions
from silo.data.titles import inspect_titles
from silo.rows import load_rows, plan_catalogue


@dataclass
class Checked:
    """What was found, for people and for machines.

    Attributes:
        count: tables looked at.
        values: JSON values.
        lines: for people.
        warnings: for people.
        unusable: tables with problems.
    """

    count: int
    values: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    def tell(self, title: str, lines: Sequence[str]) -> None:
        """Add a headed paragraph."""
        self.lines.append("\n  ".join((title, *lines)))


def check_files(files: Sequence[Path]) -> Checked:
    """Look at tables and item files that no policy names yet."""
    checked = Checked(len(files), {"files": {}})
    for path in files:
        values: dict[str, Any] = {"quality": None, "items": None, "problem": None}
        checked.values["files"][str(path)] = values
        try:
            if is_item_file(path):
                items, findings = inspect_items(path)
                values["items"] = {"count": len(items), "findings": [it.model_dump() for it in findings]}
                checked.tell(f"{path}: {len(items):,} items", tuple(describe_findings(findings)))
                continue
            found = inspect_file(path, now=datetime.now(UTC))
        except DataError as error:
            checked.unusable.append(str(path))
            checked.lines.append(f"{path}: {error}")
            values["problem"] = _plain_problem(error)
            continue
        values |= {"quality": found.quality.model_dump(), "columns": found.columns}
        verdict = "usable"
        if found.quality.has_problems:
            checked.unusable.append(str(path))
            verdict = "not usable as it is (`archipel data clean` leaves such rows out)"
        checked.tell(f"{path}: {verdict}", tuple(describe_file(found)))
    return checked


def check_datasets(directory: Path, catalogue: Path | None, plan_file: Path | None) -> Checked:
    """Look at the datasets of ``policy.yaml``, and at what cleaning leaves of them.

    Args:
        directory: the silo's.
        catalogue: item list to check against.
        plan_file: check as this plan would read, instead.

    Raises:
        UsageError: a catalogue and a plan, which has its own.
    """
    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    plan = load_yaml(plan_file, Plan) if plan_file else None
    items, note = _find_catalogue(directory, catalogue, plan)
    datasets: dict[str, Any] = {}
    values = {"catalogue_sha256": items.sha256 if items else None, "datasets": datasets}
    checked = Checked(len(policy.datasets), values)
    checked.tell(note, () if items is None else tuple(describe_findings(inspect_titles(items))))
    for name, dataset in policy.datasets.items():
        _check_one(checked, datasets, name, dataset, directory, items, plan)
    if not policy.datasets:
        checked.lines.append("policy.yaml declares no dataset, so this silo accepts no plan.")
    return checked


def _check_one(
    checked: Checked, values: dict[str, Any], name: str, dataset: Dataset, directory: Path,
    items: Catalogue | None, plan: Plan | None,
) -> None:  # fmt: skip
    values[name] = {"report": None, "quality": None, "problem": None}
    lines: tuple[str, ...] = ()
    try:
        quality = inspect_dataset(dataset, directory, now=datetime.now(UTC))
        values[name]["quality"] = quality.model_dump()
        lines = tuple(describe_quality(quality))
        report = _report(dataset, directory, items, plan)
    except DataError as error:
        checked.unusable.append(name)
        checked.tell(f"{name}: {error}", lines)
        values[name]["problem"] = _plain_problem(error)
        return
    checked.tell(f"{name}: usable", (*lines, "of which a job would use:", *report.lines()[1:]))
    checked.warnings += [f"{name}: {warning}" for warning in report.warnings()]
    values[name]["report"] = report.model_dump()


def _find_catalogue(directory: Path, given: Path | None, plan: Plan | None) -> tuple[Catalogue | None, str]:
    if given is not None and plan is not None:
        raise UsageError(
            "a plan names its own catalogue", where="--catalogue", remedy="Give --catalogue or --plan."
        )
    if plan is not None and plan.catalogue.kind == "per_silo":
        return None, "catalogue: each dataset's own item_list"
    if plan is not None:
        items = plan_catalogue(directory, plan)
        return items, f"catalogue: the plan's, {len(items):,} items"
    if given is not None:
        items = read_item_file(given)
        return items, f"catalogue: {given}, {len(items):,} items"
    found = sorted((directory / "catalogues").glob("*.jsonl"))
    if len(found) == 1:
        items = Catalogue.load(found[0], expected_sha256=found[0].stem)
        return items, f"catalogue: {found[0]}, {len(items):,} items"
    what = f"{len(found)} catalogues" if found else "no catalogue"
    return None, f"{what} in {directory / 'catalogues'}: items are not compared (name one with --catalogue)"


def _report(dataset: Dataset, directory: Path, items: Catalogue | None, plan: Plan | None) -> CleaningReport:
    if plan is not None:
        return load_rows(directory, plan, dataset, strict=True).report
    _, report = clean_rows(
        read_dataset(dataset, directory, items),
        items,
        max_interactions_per_user=dataset.max_interactions_per_user,
        exclude_users=read_exclusions(dataset, directory),
        min_rating=dataset.min_rating,
    )
    return report


def _plain_problem(error: DataError) -> dict[str, str | None]:
    return {"code": error.code, "message": error.message, "where": error.where, "remedy": error.remedy}
