"""``archipel charter``: who the parties are to each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

if TYPE_CHECKING:
    from policies.charters.administration import CharterState
    from policies.charters.charter import Charter

charter_app = typer.Typer(
    no_args_is_help=True, help="Who we are to each other: draft, sign, merge and show the charter."
)
CharterFile = Annotated[
    Path | None, typer.Argument(help="The charter; charter.yaml of --dir by default.", dir_okay=False)
]
Expires = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Last day in force; a year from today by default."),
]


@charter_app.command("new")
@command
def charter_new(
    *,
    member: Annotated[list[Path], typer.Option(help="card.json of a silo; once for each.", metavar="CARD")],
    coordinator: Annotated[Path, typer.Option(help="card.json of the coordinator.", metavar="CARD")],
    name: Annotated[str, typer.Option(help="The federation's name.")] = "federation",
    expires: Expires = None,
    amendments: Annotated[
        int | None, typer.Option(help="Members who must agree to a change; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the charter goes.", dir_okay=False)] = Path("charter.yaml"),
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Draft a charter of these parties. It is in force once every member has signed it."""
    from policies.charters.administration import draft_charter
    from policies.files import save_yaml
    from policies.schema import editor_line, write_schema

    last_day = expires or _now() + timedelta(days=365)
    charter = draft_charter(
        member, coordinator, name=name, expires=last_day.date(), amendments_threshold=amendments
    )
    header = f"{editor_line('charter')}\nWho we are to each other. In force once every member has signed it."
    save_yaml(out, charter, header=header)
    write_schema("charter", out.with_name("charter.schema.json"))
    _say_parties(charter, tuple(entry.silo for entry in charter.members))
    say(f"Written to {out}. Let all members compare this SHA-256 over a way they trust; then each runs")
    say("  archipel charter sign --dir ITS-DIRECTORY " + str(out))
    emit_json(_charter_json(charter, [entry.silo for entry in charter.members]), json_file)


@charter_app.command("sign")
@command
def charter_sign(
    charter: CharterFile = None, directory: Dir = HERE, json_file: Json = None, debug: Debug = False
) -> None:
    """Sign a copy of the charter with this silo's identity key; the signature goes to charter.sig.json."""
    from policies.charters.administration import sign_charter

    path = charter or directory / "charter.yaml"
    state = sign_charter(directory, path, _now())
    _say_parties(state.charter, state.missing)
    _say_signed(state, path)
    emit_json(_charter_json(state.charter, list(state.missing)), json_file)


@charter_app.command("merge")
@command
def charter_merge(
    charters: Annotated[list[Path], typer.Argument(help="Signed copies of the charter.", dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Where the united copy goes.", dir_okay=False)] = Path(
        "charter.yaml"
    ),
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Unite the signatures of copies of one charter; all signatures present means in force."""
    from policies.charters.administration import merge_charters

    state = merge_charters(charters, out)
    _say_signed(state, out)
    emit_json(_charter_json(state.charter, list(state.missing)), json_file)


@charter_app.command("amend")
@command
def charter_amend(
    *,
    member: Annotated[
        list[Path] | None,
        typer.Option(help="card.json of a silo that joins, or whose card is new.", metavar="CARD"),
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A member that leaves.", metavar="SILO")] = None,
    coordinator: Annotated[
        Path | None, typer.Option(help="card.json of the coordinator, if it changes.", metavar="CARD")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Another last day in force.")
    ] = None,
    amendments: Annotated[
        int | None, typer.Option(help="Members who must agree to the changes after this one.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where it goes; amendment/charter.yaml of --dir by default.", dir_okay=False),
    ] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Draft the next version of the charter: silos that join or change, revoked keys, a later last day."""
    from policies.charters.administration import amend_charter

    target = out or directory / "amendment" / "charter.yaml"
    state = amend_charter(
        directory,
        target,
        _now(),
        members=member or (),
        remove=remove or (),
        coordinator=coordinator,
        expires=expires.date() if expires else None,
        threshold=amendments,
    )
    _say_parties(state.charter, state.missing)
    _say_signed(state, target)
    say(f"Send {target.parent}, the charters in it included, to all members; each runs charter sign on it.")
    emit_json(_charter_json(state.charter, list(state.missing)) | {"changes": list(state.changes)}, json_file)


@charter_app.command("install")
@command
def charter_install(
    charter: Annotated[Path, typer.Argument(help="A charter that is in force.", dir_okay=False)],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Put a coordinator under a charter, or under an amendment of it; one that runs takes it up by itself."""
    from policies.charters.administration import adopt_charter

    adopted = adopt_charter(directory, charter, _now())
    say(f"{directory} is under version {adopted.version} of {adopted.name}.")
    say("A coordinator that runs takes it up within seconds; then every silo installs it (silo join).")
    emit_json(_charter_json(adopted, []), json_file)


@charter_app.command("show")
@command
def charter_show(
    charter: CharterFile = None, directory: Dir = HERE, json_file: Json = None, debug: Debug = False
) -> None:
    """Show the parties, their keys, who has signed, and whether the charter is in force."""
    from policies.charters.administration import charter_state
    from policies.trust import days_left

    path = charter or directory / "charter.yaml"
    state = charter_state(path)
    _say_parties(state.charter, state.missing)
    left = days_left(state.charter.expires, _now())
    say(f"Last day in force: {state.charter.expires}" + (f" ({left} days left)" if left >= 0 else " (over)"))
    _say_signed(state, path)
    emit_json({**_charter_json(state.charter, list(state.missing)), "days_left": left}, json_file)


def _now() -> datetime:
    return datetime.now(UTC)


def _say_parties(charter: Charter, missing: tuple[str, ...]) -> None:
    """One block a party; ids in full, because people compare them by eye."""
    from policies.canonical import digest

    hub = charter.coordinator
    say(f"{charter.name}: {len(charter.members)} members, until {charter.expires}", style="bold")
    say(f"SHA-256 {digest(charter)}")
    say(f"{hub.name}: coordinator at {hub.host}:{hub.port}")
    say(f"  identity {hub.identity_key.key_id}, certificate {hub.certificate_sha256}")
    for member in charter.members:
        administrators = member.administrators
        keys = ", ".join(key.key_id for key in administrators.keys)
        say(f"{member.silo}: silo, {'not signed' if member.silo in missing else 'signed'}")
        say(f"  identity {member.identity_key.key_id}, certificate {member.certificate_sha256}")
        say(f"  its policy needs {administrators.threshold} of the administrators {keys}")


def _say_signed(state: CharterState, path: Path) -> None:
    if state.changes:
        say(f"Version {state.charter.version} changes:")
        for change in state.changes:
            say(f"  {change}")
    if state.lack is not None:
        say(f"{path}: not in force yet; it needs {state.lack}.")
    elif state.charter.amends is not None:
        say(f"{path}: agreed to. The coordinator installs it (charter install), then every silo (silo join).")
    elif state.missing:
        say(f"{path}: not in force yet; not signed by {', '.join(state.missing)}.")
    else:
        say(f"{path}: signed by all {len(state.charter.members)} members.")


def _charter_json(charter: Charter, missing: list[str]) -> dict[str, Any]:
    from policies.canonical import digest

    return {
        "name": charter.name,
        "version": charter.version,
        "sha256": digest(charter),
        "expires": charter.expires.isoformat(),
        "coordinator": {"name": charter.coordinator.name, "key_id": charter.coordinator.identity_key.key_id},
        "members": [
            {"name": member.silo, "key_id": member.identity_key.key_id, "signed": member.silo not in missing}
            for member in charter.members
        ],
        "missing_signatures": missing,
    }
