"""``archipel fit`` and ``compare``: a silo's own models, and how good all it has is for its people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say

if TYPE_CHECKING:
    from silo.local.sequence_training import SequenceOptions

ArchitectureName = Literal["transformer", "masked", "gru", "lstm", "cnn"]
"""As in ``silo.models.sequence.trunk``, which takes longer to import than ``--help`` may."""


@command
def fit(
    directory: Dir = HERE,
    local: Annotated[bool, typer.Option("--local", help="Learn models that never leave this silo.")] = False,
    job: Annotated[
        str | None, typer.Option("--job", help="Learn from this job's rows; default: the newest.")
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Learn from the rows of a plan under policy.yaml instead.", metavar="FILE"),
    ] = None,
    architecture: Annotated[
        ArchitectureName | None,
        typer.Option(help="Also train this network over each person's items in order of time: minutes."),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Of --architecture: crop, mask, reorder, or several with commas: what histories go through "
            "in training. Default: crop.",
            metavar="NAMES",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --architecture; default: 0.", min=0)] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Learn models of this silo's rows that stay here and cost no epsilon.

    Popularity, item neighbours and an item graph take seconds. A network takes minutes and needs times:
    archipel fit --local --architecture transformer
    """
    from privacy.errors import UsageError
    from silo.local.files import BLEND_FILE
    from silo.local.fitting import find_source, fit_local
    from silo.local.models import ITEM_GRAPH, MAX_GRAPH_ITEMS
    from silo.local.showing import describe_network
    from silo.site import utc_now

    if not local:
        raise UsageError(
            "fit learns local models only",
            where="--local",
            remedy="write --local; a federated model is trained with `archipel job submit`",
        )
    options = _options(architecture, augment, seed)
    source = find_source(directory, job, plan)
    had_weights = (directory / "local" / source.dataset_name / BLEND_FILE).exists()
    with progress("fitting") as advance:
        card = fit_local(directory, source, utc_now(), options, lambda what: advance(0, description=what))
    say(f"{directory / 'local' / source.dataset_name}: {', '.join(card['models'])}")
    if ITEM_GRAPH not in card["models"]:
        say.warn(f"no item graph: it is for catalogues of at most {MAX_GRAPH_ITEMS:,} items")
    for line in describe_network(card["network"]):
        say(line)
    say(card["statement"])
    if had_weights:
        say("Weights of an earlier blend are gone. `archipel compare --keep` chooses new ones.")
    emit_json(card, json_file)


def _options(
    architecture: ArchitectureName | None, augment: str | None, seed: int | None
) -> SequenceOptions | None:
    from privacy.errors import UsageError

    if architecture is None:
        if augment is not None or seed is not None:
            raise UsageError(
                "there is no network to train", where="--augment, --seed", remedy="name an --architecture"
            )
        return None
    from silo.local.sequence_training import SequenceOptions, read_augmentations

    options = SequenceOptions(architecture=architecture, seed=seed or 0)
    return options if augment is None else replace(options, augmentations=read_augmentations(augment))


@command
def compare(
    directory: Dir = HERE,
    dataset: Annotated[
        str | None, typer.Option(help="Local models of this dataset; default: those fitted last.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Make lists with the blend from now on.")] = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Measure local models, federated ones and their blend on held-out rows. The figures stay here."""
    from silo.local.comparing import compare_models
    from silo.local.showing import describe
    from silo.site import utc_now

    with progress("reading rows") as advance:
        found = compare_models(
            directory, dataset, utc_now(), keep=keep, notice=lambda what: advance(0, description=what)
        )
    for part in describe(found):
        say(part)
    emit_json(found, json_file)
