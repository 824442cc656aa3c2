"""``archipel plan new``: from a promise to a plan.yaml with the noise that keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say
from policies.option_groups import SectionedCommand, grouped
from policies.plans.options import (
    AdapterOptions,
    DataOptions,
    FamilyName,
    ModelOptions,
    PromiseOptions,
    RosterOptions,
    SumOptions,
    TrainingOptions,
)
from policies.plans.vertical.options import AlignmentOptions, EncoderOptions, MomentsOptions, RoleOptions
from privacy.errors import DataError, UsageError

plan_app = typer.Typer(no_args_is_help=True, help="Propose a job: make a plan and see what it costs.")

_SHA256_DIGITS = 64


class PlanExistsError(UsageError):
    """A plan of that name is there already."""

    code: ClassVar[str] = "plan_exists"


class CatalogueFileError(DataError):
    """A file that is no catalogue, or not the one its name says."""

    code: ClassVar[str] = "catalogue_file"


@plan_app.callback()
def _group() -> None:
    """Propose a job: make a plan and see what it costs."""


@plan_app.command(cls=SectionedCommand)
@command
@grouped
def new(
    *,
    catalogue: Annotated[
        str,
        typer.Option(
            help="Catalogue file, or the SHA-256 of one in DIR/catalogues; of a vertical plan the label "
            "silo's items.",
            metavar="FILE|SHA",
        ),
    ],
    partition: Annotated[
        Literal["horizontal", "vertical"],
        typer.Option(help="Same catalogue and different users, or same users and different data."),
    ] = "horizontal",
    family: Annotated[
        FamilyName | None,
        typer.Option(help="Kind of model; default: item-graph, of a vertical plan cross-moments."),
    ] = None,
    promise: PromiseOptions,
    data: DataOptions,
    roster: RosterOptions,
    sums: SumOptions,
    model: ModelOptions,
    adapter: AdapterOptions,
    training: TrainingOptions,
    roles: RoleOptions,
    alignment: AlignmentOptions,
    moments: MomentsOptions,
    encoder: EncoderOptions,
    out: Annotated[Path | None, typer.Option(help="Where to write it; default: DIR/plan.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write a complete, commented plan.yaml with the least noise that keeps the promise."""
    from policies.files import write_atomically
    from policies.plans.asking import Asked, draft_plan
    from policies.plans.summary import describe, headline, summarise
    from policies.plans.text import render_plan
    from policies.schema import write_schema

    target = out or directory / "plan.yaml"
    if target.exists() and not force:
        raise PlanExistsError("it exists already", where=str(target), remedy="name another --out, or --force")
    vertical = (roles, alignment, moments, encoder)
    horizontal = (roster, sums, model, adapter, training)
    asked = Asked(partition, family, (promise, data), horizontal, vertical)
    asked.check()
    plan = draft_plan(asked, read_catalogue(catalogue, directory))
    write_atomically(target, render_plan(plan).encode("utf-8"))
    write_schema("plan", target.with_name("plan.schema.json"))
    summary = summarise(plan)
    say(f"{target}: {headline(plan)}")
    for line in describe(plan, summary):
        say(line)
    emit_json({"plan": str(target), **summary}, json_file)


@plan_app.command()
@command
def show(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check a plan and say what it promises, costs and sums. Needs no silo; forecast says more."""
    from policies.files import load_yaml
    from policies.plans.plan import Plan
    from policies.plans.summary import describe, headline, summarise

    found = load_yaml(plan, Plan)
    summary = summarise(found)
    say(f"{plan}: {headline(found)}")
    for line in describe(found, summary):
        say(line)
    emit_json({"plan": str(plan), **summary}, json_file)


def read_catalogue(given: str, directory: Path) -> tuple[str, int, int]:
    """Return digest, number of items and number of attributes of a catalogue file.

    Args:
        given: path of a ``.jsonl`` file, or the SHA-256 of one in ``directory/catalogues``.
        directory: the party's.

    Raises:
        CatalogueFileError: no such file, not one item a line, or not the file its name says.
    """
    import json

    from policies.canonical import sha256_hex

    is_digest = len(given) == _SHA256_DIGITS and not set(given) - set("0123456789abcdef")
    path = directory / "catalogues" / f"{given}.jsonl" if is_digest else Path(given)
    remedy = "make it with archipel data catalogue FILE"
    if not path.is_file():
        raise CatalogueFileError("there is no such catalogue", where=str(path), remedy=remedy)
    content = path.read_bytes()
    sha256 = sha256_hex(content)
    if len(path.stem) == _SHA256_DIGITS and path.stem != sha256:
        raise CatalogueFileError("its bytes are not those its name says", where=str(path), remedy=remedy)
    items = 0
    attributes: set[str] = set()
    for items, line in enumerate(content.splitlines(), start=1):
        try:
            item = json.loads(line)
            attributes.update(item["attributes"])
            str(item["item_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogueFileError(
                "this line is no catalogue item", where=f"{path}:{items}", remedy=remedy
            ) from error
    return sha256, items, len(attributes)
