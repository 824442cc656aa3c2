"""``archipel policy``: what administrators type."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

policy_app = typer.Typer(
    no_args_is_help=True, help="What our own data may be used for: check, sign and explain the policy."
)
key_app = typer.Typer(no_args_is_help=True, help="Keys of this silo's administrators.")
policy_app.add_typer(key_app, name="key")

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="Administrator key; keys/administrator.pem by default.", dir_okay=False),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Holds the key's passphrase; asked for at a terminal.", metavar="FILE", dir_okay=False),
]


@policy_app.command("check")
@command
def policy_check(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Read policy.yaml as the agent would: every problem at once, and what deserves a second look."""
    from policies.administration import check_policy
    from policies.documents import PolicyFileError

    path = directory / "policy.yaml"
    try:
        found = check_policy(directory, _now())
    except PolicyFileError as error:
        emit_json(_check_json(error.problems, (), is_signed=False), json_file)
        raise
    for warning in found.warnings:
        say.warn(warning)
    emit_json(_check_json(found.problems, found.warnings, is_signed=found.is_signed), json_file)
    if found.problems:
        raise PolicyFileError(str(path), found.problems)
    say(f"{path}: version {found.policy.version} of {found.policy.silo} is well formed.")
    if not found.is_signed:
        say(f"It is not signed yet: archipel policy sign --dir {directory}")


@policy_app.command("sign")
@command
def policy_sign(
    directory: Dir = HERE,
    key: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Sign policy.yaml as one of this silo's administrators; the signature goes to policy.sig.json."""
    from policies.administration import early_renewals, sign_policy
    from policies.canonical import digest
    from policies.passphrases import passphrase_of

    passphrase = passphrase_of(key or directory / "keys" / "administrator.pem", passphrase_file)
    state = sign_policy(directory, _now(), key_file=key, passphrase=passphrase)
    for warning in (*state.policy.warnings(), *early_renewals(state.policy, _now())):
        say.warn(warning)
    threshold = state.administrators.threshold
    count = f"{len(state.signers)} of {threshold} signatures"
    say(f"Version {state.policy.version} of {state.policy.silo} has {count}.")
    if not state.is_complete:
        say("The other administrators sign the same directory with --key.")
    emit_json(
        {
            "silo": state.policy.silo,
            "version": state.policy.version,
            "sha256": digest(state.policy),
            "signers": sorted(signer.key_id for signer in state.signers),
            "threshold": threshold,
        },
        json_file,
    )


@policy_app.command("verify")
@command
def policy_verify(
    directory: Dir = HERE,
    charter: Annotated[
        Path | None,
        typer.Option(help="Your own copy; charter.yaml of --dir by default.", metavar="FILE", dir_okay=False),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Say who signed policy.yaml, whether that is enough, and whether it is frozen; 8 if not trusted."""
    from policies.verification import verify_policy

    found = verify_policy(directory, _now(), charter_file=charter)
    have, needed = len(found.signers), found.threshold
    say(f"Version {found.policy.version} of {found.policy.silo}, SHA-256 {found.sha256}")
    say(f"{have} of {needed} signatures: {', '.join(key.key_id for key in found.signers) or 'none'}")
    if have < needed:
        say(f"It may be signed by: {', '.join(key.key_id for key in found.missing)}")
    if found.in_force is not None:
        say(f"The agent has taken version {found.in_force}.")
    if found.freeze is not None:
        say.warn(
            f"frozen since {found.freeze.frozen_at}; a version above {found.freeze.policy_version} thaws it"
        )
    emit_json(
        {
            "silo": found.policy.silo,
            "version": found.policy.version,
            "sha256": found.sha256,
            "threshold": needed,
            "signers": [key.key_id for key in found.signers],
            "missing": [key.key_id for key in found.missing],
            "version_in_force": found.in_force,
            "trusted": found.problem is None,
            "problem": None if found.problem is None else found.problem.code,
            "freeze": found.freeze,
        },
        json_file,
    )
    if found.problem is not None:
        raise found.problem
    say(f"It is to be trusted until {found.policy.expires}.")


@policy_app.command("freeze")
@command
def policy_freeze(
    directory: Dir = HERE,
    key: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    stop: Annotated[bool, typer.Option("--stop", help="Cancel running jobs as well.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for this silo's own people.")] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Take no new job from now on. One administrator suffices; only a newer signed policy lifts it."""
    from policies.administration import freeze_policy
    from policies.passphrases import passphrase_of

    passphrase = passphrase_of(key or directory / "keys" / "administrator.pem", passphrase_file)
    freeze = freeze_policy(
        directory, _now(), key_file=key, passphrase=passphrase, stop_jobs=stop, reason=reason
    )
    say(f"{freeze.silo} is frozen: a running agent takes no new job from now on.")
    say("Running jobs are cancelled." if stop else "Running jobs go on; --stop cancels them.")
    say(f"To go on: write version: {freeze.policy_version + 1} into policy.yaml and have it signed.")
    emit_json(freeze, json_file)


@policy_app.command("publish")
@command
def policy_publish(
    directory: Dir = HERE,
    out: Annotated[
        Path | None,
        typer.Option(help="Where it goes; requirements.json of --dir by default.", dir_okay=False),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write what the signed policy demands of plans, without its budget, for the other members' forecasts."""
    from policies.administration import publish_requirements
    from policies.requirements import REQUIREMENTS_FILE

    target = out or directory / REQUIREMENTS_FILE
    published = publish_requirements(directory, target, _now())
    silo, version = published.silo, published.policy_version
    say(f"{target}: what version {version} of {silo} demands of plans, signed by its identity.")
    say("Hand it to the other members; archipel plan forecast --requirements reads it. It says:")
    for purpose, terms in published.purposes.items():
        people = f"people in {terms.max_silos_per_user} silos"
        say(f"  {purpose}: delta at most {terms.max_delta:g}, {people}, counted by {terms.filter}")
    say(f"  partners {', '.join(published.with_members) or '(none)'}")
    say(f"  epsilon at most {published.max_epsilon_per_plan:g} a plan")
    say(f"  {published.min_silos} silos or more, {published.min_colluding_silos} colluders or more covered")
    emit_json(published, json_file)


@key_app.command("new")
@command
def key_new(
    file: Annotated[Path, typer.Argument(help="Where the private key goes.", dir_okay=False)],
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Whoever reads the file can sign.")
    ] = False,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make an administrator's key, behind a passphrase; its public half goes to `policy administrators`."""
    from policies.passphrases import new_passphrase
    from policies.signing import PrivateKey

    key = PrivateKey.generate()
    key.save(file, None if no_passphrase else new_passphrase(passphrase_file))
    say(f"{file} is the private key {key.key_id}; keep it where only its administrator gets.")
    say(f"Its public half: {key.public_key}")
    emit_json({"key_id": key.key_id, "public_key": str(key.public_key)}, json_file)


@key_app.command("protect")
@command
def key_protect(
    file: Annotated[Path, typer.Argument(help="A private key.", dir_okay=False)],
    passphrase_file: PassphraseFile = None,
    debug: Debug = False,
) -> None:
    """Put a key that has none behind a passphrase, in place."""
    from policies.passphrases import new_passphrase, protect

    key = protect(file, new_passphrase(passphrase_file))
    say(f"{file}, key {key.key_id}, needs its passphrase from now on. Erase older copies and backups of it.")


@policy_app.command("administrators")
@command
def policy_administrators(
    key: Annotated[
        list[str],
        typer.Option(help="Public key of an administrator, once for each; all others go.", metavar="KEY"),
    ],
    threshold: Annotated[int, typer.Option(help="How many of them must sign a policy.", min=1)] = 1,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write who may sign this silo's policy into card.json; in force once a charter has that card."""
    from policies.administration import name_administrators

    card = name_administrators(directory, key, threshold)
    ids = ", ".join(public.key_id for public in card.administrators.keys) if card.administrators else ""
    say(f"The card of {card.name} says: {threshold} of the administrators {ids}.")
    say("A charter that is in force keeps the former ones until it is amended: archipel charter amend")
    emit_json(card, json_file)


@policy_app.command("explain")
@command
def policy_explain(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Say in plain words who may learn what from this silo, at which cost, and until when."""
    from policies.explain import explain_policy
    from policies.files import load_yaml
    from policies.silo_policy import SiloPolicy

    paragraphs = explain_policy(load_yaml(directory / "policy.yaml", SiloPolicy), _now())
    for paragraph in paragraphs:
        say(paragraph.heading, style="bold")
        for sentence in paragraph.sentences:
            say(f"  {sentence}")
    emit_json({paragraph.heading: list(paragraph.sentences) for paragraph in paragraphs}, json_file)


@policy_app.command("diff")
@command
def policy_diff(
    old: Annotated[
        Path | None,
        typer.Argument(help="The older policy; default: the newest that was in force here.", dir_okay=False),
    ] = None,
    new: Annotated[
        Path | None, typer.Argument(help="The newer policy; default: policy.yaml of --dir.", dir_okay=False)
    ] = None,
    plan: Annotated[
        list[Path] | None, typer.Option(help="A plan to ask both about; repeatable.", metavar="FILE")
    ] = None,
    days: Annotated[int, typer.Option(help="Ask again about plans of so many days.", min=0)] = 90,
    strict: Annotated[bool, typer.Option("--strict", help="End with 4 where anything is weaker.")] = False,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Compare two policies by what follows: what is weaker, budgets, and which plans would flip."""
    from policies.policy_diff import compare, describe, policy_in_force, refuse_weaker

    found = compare(
        old or policy_in_force(directory),
        new or directory / "policy.yaml",
        directory,
        _now(),
        days=days,
        plans=plan or (),
    )
    for line, style in describe(found):
        say(line, style=style)
    emit_json(found, json_file)
    if strict:
        refuse_weaker(found)


@policy_app.command("schema")
@command
def policy_schema(
    kind: Annotated[str, typer.Option(help="policy, plan, charter, freeze or requirements.")] = "policy",
    out: Annotated[
        Path | None, typer.Option(help="Where it goes; KIND.schema.json of --dir by default.", dir_okay=False)
    ] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write the JSON Schema that editors complete and check these files with."""
    from policies.schema import write_schema

    target = out or directory / f"{kind}.schema.json"
    schema = write_schema(kind, target)
    say(f"Written to {target}. Editors find it by the line")
    say(f"  # yaml-language-server: $schema={target.name}")
    emit_json(schema, json_file)


def _now() -> datetime:
    return datetime.now(UTC)


def _check_json(problems: Any, warnings: tuple[str, ...], *, is_signed: bool) -> dict[str, Any]:
    return {
        "ok": not problems,
        "signed": is_signed,
        "problems": [
            {"line": item.line, "field": item.field, "message": item.message, "remedy": item.remedy}
            for item in problems
        ],
        "warnings": list(warnings),
    }
