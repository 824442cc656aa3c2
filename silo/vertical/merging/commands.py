"""``archipel merge …``: a list made on the person's own device, of what each silo gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

merge_app = typer.Typer(
    no_args_is_help=True,
    help="Make a list on the person's own device: no silo sees what another gave them.",
)

Device = Annotated[
    str, typer.Option("--device", help="The device's key, as the person's device itself said it.")
]
Out = Annotated[Path, typer.Option("--out", help="Write the part for the device here.", metavar="FILE")]


@merge_app.command()
@command
def key(
    out: Annotated[Path, typer.Option("--out", help="Keep the device's private key here.", metavar="FILE")],
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """The person: make this device's key, once. What silos seal for it opens here alone."""
    from silo.vertical.merging.person import make_device_key

    address = str(make_device_key(out).address)
    say(address)
    say(f"The private half is in {out} and stays there. Tell each silo the line above.")
    emit_json({"device": address, "key_file": out}, json_file)


@merge_app.command()
@command
def start(
    user: Annotated[str, typer.Argument(help="User id of who is logged in here, as in the data.")],
    device: Device,
    out: Out,
    ticket: Annotated[Path, typer.Option(help="Write the ticket for partners here.", metavar="FILE")],
    job: Annotated[str | None, typer.Option(help="Use this job's model; default: the newest.")] = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """The label silo: give one person their scores, partners' terms masked, and a ticket for partners."""
    from policies.files import write_atomically
    from privacy.devices import DeviceAddress
    from silo.vertical.merging.label import start_merge
    from silo.vertical.serving.desk import LabelDesk, require_vertical_job

    desk = LabelDesk(directory, require_vertical_job(directory, job))
    started = start_merge(desk, user, DeviceAddress.parse(device))
    write_atomically(out, started.part)
    write_atomically(ticket, started.ticket.to_bytes())
    partners, ends = ", ".join(desk.partners), f"{started.ticket.ends:%H:%M:%S}"
    say(f"{out} is for the person's device; {ticket} goes with them to {partners}, until {ends} UTC.")
    say("Neither names the person. What partners give for it does not come back here.")
    emit_json(
        {
            "job": desk.job,
            "partners": list(desk.partners),
            "expires": started.ticket.ends.isoformat(timespec="seconds"),
            "ticket": ticket,
            "part": out,
        },
        json_file,
    )


@merge_app.command()
@command
def give(
    user: Annotated[str, typer.Argument(help="User id of who is logged in here and agreed, as in the data.")],
    ticket: Annotated[Path, typer.Option(help="The label silo's ticket, as brought.", metavar="FILE")],
    device: Device,
    out: Out,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """A feature silo: give one person their own numbers for one list; a ticket is worth one part."""
    from policies.files import read_limited, write_atomically
    from privacy.devices import DeviceAddress
    from silo.vertical.merging.documents import MergeTicket
    from silo.vertical.merging.feature import give_part

    read = MergeTicket.parse(read_limited(ticket))
    write_atomically(out, give_part(directory, user, read, DeviceAddress.parse(device)))
    say(f"{out} is for the person's device, for a list of {read.label}. {read.label} is told nothing.")
    emit_json({"job": read.job, "label": read.label, "part": out}, json_file)


@merge_app.command("list")
@command
def list_(
    parts: Annotated[list[Path], typer.Argument(help="The parts that silos gave for one ticket.")],
    key_file: Annotated[Path, typer.Option("--key", help="This device's private key.", metavar="FILE")],
    charter: Annotated[Path, typer.Option(help="The federation's charter.yaml.", metavar="FILE")],
    k: Annotated[int, typer.Option("-k", help="Length of the list.")] = 20,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """The person: merge the parts into a list, on this device. Nothing is sent to anybody."""
    from rich.table import Table

    from policies.files import load_charters
    from silo.vertical.merging.person import load_device_key, merge_list, read_part

    in_force = load_charters(charter, datetime.now(UTC))[-1]
    found = merge_list([read_part(path) for path in parts], load_device_key(key_file), in_force, k)
    know = "knows" if len(found.merged) == 1 else "know"
    say(f"for you, by {found.label}'s job {found.job}, with what {' and '.join(found.merged)} {know} of you")
    for silo in found.missing:
        say(f"  {silo} gave no part: made without it")
    table = Table("rank", "item_id", "title", "score")
    for row in found.rows:
        table.add_row(str(row.rank), row.item_id, row.title, f"{row.score:.4g}")
    say(table)
    emit_json(found.to_json(), json_file)
