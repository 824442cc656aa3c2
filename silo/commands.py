"""``archipel silo …`` and ``plan forecast``: what an institution types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say
from silo.encoder_commands import adopt, encoder_app

POLICY_DAYS = 365

silo_app = typer.Typer(no_args_is_help=True, help="Run this organisation's silo agent.")
checkpoint_app = typer.Typer(no_args_is_help=True, help="Weights that a later job can start from.")
silo_app.add_typer(checkpoint_app, name="checkpoint")
silo_app.add_typer(encoder_app, name="encoder")
silo_app.command("adopt")(adopt)

Name = Annotated[str, typer.Option(help="The organisation's name in the federation, such as shop-a.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Holds the key's passphrase; asked for at a terminal.", metavar="FILE", dir_okay=False),
]


@silo_app.command()
@command
def init(
    name: Name,
    directory: Dir = HERE,
    template: Annotated[str, typer.Option(help="Policy to start from.")] = "retailer",
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make this organisation's keys, a commented policy.yaml and a public card.json."""
    from federation.identity import make_party
    from policies.catalog import render_template
    from policies.files import write_atomically
    from policies.schema import write_schema
    from silo.config import DEFAULT_AGENT_TOML

    expires = datetime.now(UTC).date() + timedelta(days=POLICY_DAYS)
    policy = render_template(template, silo=name, expires=expires)
    directory.mkdir(parents=True, exist_ok=True)
    party = make_party(directory, name, "silo")
    for path, text in ((directory / "policy.yaml", policy), (directory / "agent.toml", DEFAULT_AGENT_TOML)):
        if not path.exists():
            write_atomically(path, text.encode())
    write_schema("policy", directory / "policy.schema.json")
    say(f"{name}: keys are in {directory / 'keys'} and never leave it.")
    say(f"Next: edit {directory / 'policy.yaml'}; send {directory / 'card.json'} to the charter's drafter;")
    say(f"when the charter comes back: archipel charter sign charter.yaml --dir {directory}")
    say(f"and when all members have signed: archipel silo join charter.yaml --dir {directory}")
    emit_json(
        {"name": name, "identity_key": str(party.identity.public_key), "directory": directory}, json_file
    )


@silo_app.command()
@command
def join(
    charter: Annotated[Path, typer.Argument(help="The charter that every member signed.")],
    directory: Dir = HERE,
    passphrase_file: PassphraseFile = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check the charter and this silo's policy, then sign the policy: afterwards `silo run` works."""
    from policies.passphrases import passphrase_of
    from silo.joining import join as join_federation

    passphrase = passphrase_of(directory / "keys" / "administrator.pem", passphrase_file)
    joined = join_federation(directory, charter, passphrase)
    for line in joined.describe(directory):
        say(line)
    for warning in joined.warnings():
        say.warn(warning)
    emit_json(joined.values(), json_file)


@silo_app.command()
@command
def rekey(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Make this silo's next TLS key; the present one serves until an amendment pins the other."""
    from federation.commands import make_next_key

    make_next_key(directory, "--member", "archipel silo join", json_file)


@silo_app.command()
@command
def run(directory: Dir = HERE, debug: Debug = False) -> None:
    """Run the agent until it is stopped (SIGTERM, Ctrl-C); it dials out only and survives everything."""
    import asyncio

    from silo.running import run_agent

    asyncio.run(run_agent(directory))


@silo_app.command()
@command
def status(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Say how things stand: policy, days to expiry, budgets, jobs, and whether the coordinator answers."""
    import asyncio

    from silo.status import describe, gather

    found = asyncio.run(gather(directory))
    for part in describe(found):
        say(part)
    emit_json(found, json_file)


@silo_app.command()
@command
def pause(directory: Dir = HERE, debug: Debug = False) -> None:
    """Take no new steps in any job until `silo resume`; the agent keeps running."""
    from federation.identity import Party

    Party.load(directory)
    (directory / "paused").touch()
    say("Paused: running steps finish, no new ones begin. `archipel silo resume` goes on.")


@silo_app.command()
@command
def resume(directory: Dir = HERE, debug: Debug = False) -> None:
    """Go on after `silo pause`."""
    from federation.identity import Party

    Party.load(directory)
    (directory / "paused").unlink(missing_ok=True)
    say("Resumed.")


@silo_app.command()
@command
def dashboard(
    directory: Dir = HERE,
    host: Annotated[
        str, typer.Option(help="Listen here; only an address of this machine itself.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Listen on this port; 0 takes any free one.", min=0, max=65535)
    ] = 8440,
    charter: Annotated[
        Path | None,
        typer.Option(help="Hold the record against this charter; default: the silo's own.", metavar="FILE"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show budgets, ledger, jobs, policy and findings in a browser of this machine; only reads."""
    from silo.extras import require_extra

    require_extra("dashboard", "starlette", "uvicorn")
    from silo.dashboard.server import run

    def announce(link: str) -> None:
        say(f"{directory} is shown here until you stop it (Ctrl-C). The link works once:")
        say(link)

    run(directory, charter or directory / "charter.yaml", host=host, port=port, announce=announce)


@checkpoint_app.command("add")
@command
def add_checkpoint(
    file: Annotated[Path, typer.Argument(help="A checkpoint.safetensors of an earlier job.")],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Check a checkpoint and keep it here, for plans whose model.start_from names its SHA-256."""
    from federation.identity import Party
    from silo.checkpoints import add_checkpoint as keep

    Party.load(directory)
    sha256, path = keep(directory, file)
    say(f"{path} is ready for plans that say `start_from: {sha256}`.")
    say("Each silo of such a plan needs the same file; a job's own checkpoint is found without adding it.")
    emit_json({"sha256": sha256, "path": path}, json_file)


@command
def forecast(
    plan: Annotated[Path, typer.Argument(help="plan.yaml")],
    for_epsilon: Annotated[
        float | None, typer.Option(help="Which noise would the plan need to cost this epsilon?")
    ] = None,
    rounds_for_epsilon: Annotated[
        float | None, typer.Option(help="How many training rounds would cost this epsilon, at its noise?")
    ] = None,
    requirements: Annotated[
        list[Path] | None,
        typer.Option(help="What members published (policy publish): files, directories.", metavar="PATH"),
    ] = None,
    probe: Annotated[
        bool, typer.Option(help="Time some of a trained or vertical plan's work on this machine.")
    ] = True,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Show what a plan would cost and whether this silo would accept it, before anything is touched."""
    from silo.forecasts.forecast import Questions, forecast_plan
    from silo.forecasts.text import describe

    questions = Questions(
        for_epsilon=for_epsilon,
        rounds_for_epsilon=rounds_for_epsilon,
        is_timed=probe,
        requirements=tuple(requirements or ()),
    )
    found: dict[str, Any] = forecast_plan(directory, plan, questions)
    for part in describe(found):
        say(part)
    emit_json(found, json_file)
