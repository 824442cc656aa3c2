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
    key: Annotated[
        Path | None,
        typer.Option(help="Administrator key; keys/administrator.pem by default.", dir_okay=False),
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Sign policy.yaml as one of this silo's administrators; the signature goes to policy.sig.json."""
    from policies.administration import sign_policy
    from policies.canonical import digest

    state = sign_policy(directory, _now(), key_file=key)
    for warning in state.policy.warnings():
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
    kind: Annotated[str, typer.Option(help="policy, charter or plan.")] = "policy",
    out: Annotated[
        Path | None, typer.Option(help="Where it goes; KIND.schema.json of --dir by default.", dir_okay=False)
    ] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write the JSON Schema that editors complete and check these files with."""
    from policies.files import write_schema

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
