"""``archipel consent …``: what a feature silo's people do about tokens of persons in session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

consent_app = typer.Typer(no_args_is_help=True, help="Let another silo score one person, as they agreed.")


@consent_app.command()
@command
def issue(
    user: Annotated[str, typer.Argument(help="User id of who is logged in here and agreed, as in the data.")],
    audience: Annotated[str, typer.Option("--for", help="The label silo that may bring the token.")],
    purpose: Annotated[str, typer.Option(help="Purpose of the plan whose model it is for.")],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make a token for one person, once: they take it to the label silo, which may ask with it one time."""
    from silo.vertical.serving.issuing import issue_consent

    issued = issue_consent(directory, user, audience=audience, purpose=purpose)
    say(issued.token)
    say(f"valid once, for {issued.audience} and {issued.purpose}, until {issued.expires:%H:%M:%S} UTC; "
        "it is shown now only")  # fmt: skip
    emit_json(
        {
            "token": issued.token,
            "issuer": issued.issuer,
            "audience": issued.audience,
            "purpose": issued.purpose,
            "expires": issued.expires.isoformat(timespec="seconds"),
        },
        json_file,
    )


@consent_app.command()
@command
def show(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Count what other silos asked in the last 30 days and what became of it; nobody is named."""
    from rich.table import Table

    from federation.identity import Party
    from silo.vertical.serving.consent import CONSENT_FILE, DAYS_SHOWN, ConsentBook

    Party.load(directory)
    since = datetime.now(UTC).date() - timedelta(days=DAYS_SHOWN)
    with ConsentBook(directory / CONSENT_FILE) as book:
        counts = book.counts(since)
    table = Table("day", "silo", "outcome", "questions")
    for day, silo, outcome, count in counts:
        table.add_row(day, silo, outcome, f"{count:,}")
    say(table if counts else f"no silo has asked since {since.isoformat()}")
    emit_json([{"day": d, "silo": s, "outcome": o, "questions": n} for d, s, o, n in counts], json_file)
