"""``archipel export`` and ``compress``: a model as a file for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say

if TYPE_CHECKING:
    from silo.export.exporting import Exported


class FormatName(StrEnum):
    """Formats a model can be written in."""

    SAFETENSORS = "safetensors"
    PARQUET = "parquet"
    ONNX = "onnx"
    USER_ONNX = "user-onnx"
    INDEX = "index"


JobOption = Annotated[str | None, typer.Option("--job", help="Of this job; default: the newest.")]
ModelOption = Annotated[str, typer.Option("--model", help="federated, or local:NAME as in `compare`.")]
OutOption = Annotated[
    Path, typer.Option("--out", help="New file; its card goes beside it. Never replaced.", metavar="FILE")
]
PrivateOption = Annotated[
    bool,
    typer.Option(
        "--allow-private",
        help="A local model is made of rows without noise; the file stays inside this organisation.",
    ),
]


@command
def export(
    out: OutOption,
    format: Annotated[FormatName, typer.Option("--format", help="What to write.")] = FormatName.SAFETENSORS,
    directory: Dir = HERE,
    job: JobOption = None,
    model: ModelOption = "federated",
    allow_private: PrivateOption = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write the model of a job, or a local one, as tables or as an ONNX graph that scores like it.

    `user-onnx` and `index` are its two sides: users' vectors, and items' in one byte a value.

    Item number i is line i + 1 of the catalogue's file. ONNX needs the extra: pip install 'archipel[export]'.
    """
    from silo.export.exporting import export_model

    with progress("exporting"):
        done = export_model(directory, job, model, format.value, out, is_private_allowed=allow_private)
    _show(done)
    emit_json({"path": done.path, "card": done.card}, json_file)


@command
def compress(
    out: OutOption,
    int8: Annotated[bool, typer.Option("--int8", help="One byte a value instead of four.")] = False,
    prune: Annotated[
        float | None,
        typer.Option(help="Leave out this share of the dimensions, the least important ones; no networks."),
    ] = None,
    directory: Dir = HERE,
    job: JobOption = None,
    model: ModelOption = "federated",
    allow_private: PrivateOption = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write a smaller ONNX file of a model and measure what it lost. Needs pip install 'archipel[export]'.

    Size, time and lists on made-up histories go into the card beside the file; what is measured on this
    silo's own people goes into a file of its own, which does not travel.
    """
    from silo.export.exporting import FIGURES_STATEMENT, compress_model

    with progress("compressing") as advance:
        done = compress_model(
            directory, job, model, out, is_int8=int8, prune=prune, is_private_allowed=allow_private,
            notice=lambda what: advance(0, description=what),
        )  # fmt: skip
    _show(done)
    card = done.card
    share = card["bytes"] / card["bytes_before"]
    say(f"size: {card['bytes']:,} bytes, {share:.1%} of {card['bytes_before']:,}")
    say(f"time: {card['milliseconds_a_user']:.3f} ms a user, before {card['milliseconds_a_user_before']:.3f}")
    say(f"lists: {card['top_10_overlap']:.1%} of the first ten are the same, on made-up histories")
    if done.figures is None:
        say("no rows are held out here, so nothing was measured on people")
    else:
        say(f"  of this silo's people: {done.figures.overlap:.1%}")
        for name, value in done.figures.after.items():
            say(f"  {name}: {value:.4f}, before {done.figures.before[name]:.4f}")
        say(f"{done.figures_path}: {FIGURES_STATEMENT}")
    # What is measured on people stands in a file of its own mode; this one may go anywhere.
    emit_json({"path": done.path, "card": card, "figures_path": done.figures_path}, json_file)


def _show(done: Exported) -> None:
    say(f"{done.path}: {done.card['model']}, {done.card['items']:,} items, {done.card['bytes']:,} bytes")
    say(f"{done.card_path}: what may be said of it")
    if done.card["is_private_to_silo"]:
        say.warn(done.card["statement"])
