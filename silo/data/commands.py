"""``archipel data``: look at a silo's own tables before any plan does, and make a public catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say
from privacy.errors import DataError, UsageError

if TYPE_CHECKING:
    from policies.silo_policy import Dataset

data_app = typer.Typer(no_args_is_help=True, help="Check a silo's tables; make the public catalogue.")


class DatasetProblemsError(DataError):
    """At least one dataset of the policy cannot be used as it is."""

    code = "dataset_problems"


@data_app.command()
@command
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tables or item files that no policy names yet; default: the datasets of policy.yaml.",
            metavar="[FILE]...",
            show_default=False,
        ),
    ] = None,
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
    """Read tables, count what is odd in them and say what cleaning does. Only reads; counts stay here.

    What is wrong with single rows is a problem here (exit code 6); a job leaves such rows out and goes on.
    Of a FILE, columns are told by their names, and lines for policy.yaml are suggested.
    """
    from silo.data.checking import check_datasets, check_files

    if files and (catalogue is not None or plan is not None):
        raise UsageError(
            "a file is looked at by itself",
            where="--catalogue, --plan",
            remedy="leave them out, or leave the files out to check the datasets of policy.yaml",
        )
    with progress("reading tables"):
        checked = check_files(files) if files else check_datasets(directory, catalogue, plan)
    for line in checked.lines:
        say(line)
    for warning in checked.warnings:
        say.warn(warning)
    emit_json(checked.values, json_file)
    if checked.unusable:
        what = f"{checked.count} {'files' if files else 'datasets'}"
        raise DatasetProblemsError(
            f"{len(checked.unusable)} of {what} cannot be used: {', '.join(checked.unusable)}",
            where=None if files else str(directory / "policy.yaml"),
            remedy="mend what is listed for each and run `archipel data check` again.",
        )


@data_app.command()
@command
def clean(
    source: Annotated[str, typer.Argument(help="A file, or the name of a dataset of policy.yaml.")],
    out: Annotated[Path, typer.Option(help="New file, .csv or .parquet; never replaced.", metavar="FILE")],
    directory: Dir = HERE,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="Leave out rows of items outside this list.", metavar="FILE"),
    ] = None,
    cap: Annotated[
        int | None, typer.Option(help="Keep only so many rows of one person, the most recent.")
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write a cleaned copy of a table: one text for each id, each pair once, nothing that cannot be used.

    Rules look at one person at a time. What would need many people's rows (rare items, outliers) is not
    offered: one person more or less would change other people's rows, and no plan's noise covers that.
    """
    from policies.files import load_yaml
    from policies.silo_policy import SiloPolicy
    from silo.data.item_files import read_item_file
    from silo.data.rewriting import clean_table
    from silo.data.showing import describe_cleaned

    table: Path | Dataset = Path(source)
    if not Path(source).exists() and (directory / "policy.yaml").exists():
        table = load_yaml(directory / "policy.yaml", SiloPolicy).datasets.get(source, table)
    items = None if catalogue is None else read_item_file(catalogue)
    with progress("cleaning"):
        cleaned = clean_table(table, directory, out, items=items, cap=cap)
    for line in describe_cleaned(cleaned):
        say(line)
    emit_json(
        {"path": cleaned.path, "report": cleaned.report.model_dump(), "policy": cleaned.suggestion}, json_file
    )


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
    say(f"in a dataset, as this silo's own: item_list: catalogues/{path.name}")
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
