"""``archipel data``: look at a silo's own tables before any plan does, and make a public catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say
from privacy.errors import DataError, UsageError

if TYPE_CHECKING:
    from policies.plan import Plan
    from policies.silo_policy import Dataset
    from silo.data.catalogue import Catalogue
    from silo.data.cleaning import CleaningReport

data_app = typer.Typer(no_args_is_help=True, help="Check a silo's tables; make the public catalogue.")


class DatasetProblemsError(DataError):
    """At least one dataset of the policy cannot be used as it is."""

    code = "dataset_problems"


@data_app.command()
@command
def check(
    directory: Dir = HERE,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="Item list to check against; default: the only one in catalogues/.", metavar="FILE"
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Check as this plan would read: its catalogue, caps and holdout.", metavar="FILE"),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Read the datasets as policy.yaml declares them and say what cleaning does. Counts stay here.

    What is wrong with single rows is a problem here; a job leaves such rows out and goes on.
    """
    from policies.files import load_yaml
    from policies.plan import Plan
    from policies.silo_policy import SiloPolicy

    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    terms = load_yaml(plan, Plan) if plan else None
    items, note = _find_catalogue(directory, catalogue, terms)
    say(note)
    result: dict[str, Any] = {"catalogue_sha256": items.sha256 if items else None, "datasets": {}}
    problems = []
    for name, dataset in policy.datasets.items():
        try:
            report = _check_dataset(dataset, directory, items, terms)
        except DataError as error:
            problems.append(name)
            say(f"{name}: {error}")
            result["datasets"][name] = {"report": None, "problem": _plain_problem(error)}
            continue
        say("\n  ".join((f"{name}: usable", *report.lines())))
        for warning in report.warnings():
            say.warn(f"{name}: {warning}")
        result["datasets"][name] = {"report": report.model_dump(), "problem": None}
    emit_json(result, json_file)
    if problems:
        raise DatasetProblemsError(
            f"{len(problems)} of {len(policy.datasets)} datasets cannot be used: {', '.join(problems)}",
            where=str(directory / "policy.yaml"),
            remedy="mend what is listed for each and run `archipel data check` again.",
        )
    if not policy.datasets:
        say("policy.yaml declares no dataset, so this silo accepts no plan.")


@data_app.command()
@command
def catalogue(
    file: Annotated[
        Path,
        typer.Argument(help="movies.dat, u.item, .csv, .parquet, RecBole .item or .jsonl.", metavar="FILE"),
    ],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make catalogues/<sha256>.jsonl of a public item file, and print what a plan calls it."""
    from silo.data.item_files import read_item_file

    items = read_item_file(file)
    path = items.save(directory / "catalogues")
    say(f"{path}: {len(items):,} items, {len(items.attributes):,} attributes")
    say(f"in a plan: catalogue: {{kind: shared, sha256: {items.sha256}, items: {len(items)}}}")
    emit_json(
        {
            "path": str(path),
            "sha256": items.sha256,
            "items": len(items),
            "attributes": len(items.attributes),
            "bytes": len(items.encoded),
        },
        json_file,
    )


def _find_catalogue(directory: Path, given: Path | None, plan: Plan | None) -> tuple[Catalogue | None, str]:
    from silo.data.catalogue import Catalogue
    from silo.data.item_files import read_item_file
    from silo.rows import plan_catalogue

    if given is not None and plan is not None:
        raise UsageError(
            "a plan names its own catalogue", where="--catalogue", remedy="Give --catalogue or --plan."
        )
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


def _check_dataset(
    dataset: Dataset, directory: Path, items: Catalogue | None, plan: Plan | None
) -> CleaningReport:
    from silo.data.catalogue import Catalogue, CatalogueItem
    from silo.data.cleaning import clean
    from silo.data.sources import read_dataset, read_exclusions
    from silo.rows import load_rows

    if plan is not None:
        return load_rows(directory, plan, dataset, strict=True).report
    rows = read_dataset(dataset, directory, items)
    if items is None:
        occurring = rows["item_id"].unique().to_list()
        items = Catalogue.from_items(CatalogueItem(item_id=item_id) for item_id in occurring)
    _, report = clean(
        rows,
        items,
        max_interactions_per_user=dataset.max_interactions_per_user,
        exclude_users=read_exclusions(dataset, directory),
    )
    return report


def _plain_problem(error: DataError) -> dict[str, str | None]:
    return {"code": error.code, "message": error.message, "where": error.where, "remedy": error.remedy}
