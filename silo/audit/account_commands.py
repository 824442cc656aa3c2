"""``archipel audit budget`` and ``audit ledger``: what stands in a record, verified or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say
from silo.audit.options import Bundle, Since, Until

if TYPE_CHECKING:
    from silo.audit.spending import Overview

Job = Annotated[str | None, typer.Option("--job", help="Of this job; its first characters suffice.")]
AccountName = Annotated[str | None, typer.Option("--account", help="Of this population.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Of this kind; repeatable.")]


@command
def budget_command(
    bundle: Bundle = None, directory: Dir = HERE, json_file: Json = None, debug: Debug = False
) -> None:
    """Show what was spent, reserved and left: by population, purpose and partner, and over time."""
    from silo.audit.evidence import open_evidence
    from silo.audit.spending import overview

    with open_evidence(bundle or directory) as evidence:
        found = overview(evidence)
    emit_json(found, json_file)
    _say_accounts(found)
    _say_shares(found)
    say(f"epsilon per {found.unit} ({found.scope}); relation: {found.neighboring_relation}")
    say("epsilon does not add up: a purpose or partner is what its own releases come to, composed alone")
    if found.problems:
        say.warn(f"{found.problems} entries are not as a ledger writes them; run: archipel audit verify")


@command
def ledger_command(
    bundle: Bundle = None,
    job: Job = None,
    account: AccountName = None,
    kind: Kinds = None,
    since: Since = None,
    until: Until = None,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """List the ledger's entries (nothing is verified here)."""
    from silo.audit.entries import entry_json, selection, what
    from silo.audit.evidence import open_evidence

    chosen = selection(job=job, account=account, kinds=kind, since=since, until=until)
    with open_evidence(bundle or directory) as evidence, evidence.open_ledger() as ledger:
        entries = [entry for entry in ledger.entries() if chosen.has(entry)]
    emit_json([entry_json(entry) for entry in entries], json_file)
    rows = [
        {
            "seq": entry.seq,
            "at": entry.at[:19] + "Z",
            "kind": entry.kind,
            "account": entry.payload.get("account", ""),
            "job": str(entry.payload.get("job", ""))[:12],
            "what": what(entry),
        }
        for entry in entries
    ]
    say(table(("seq", "at", "kind", "account", "job", "what"), rows))


def _say_accounts(found: Overview) -> None:
    from silo.audit.burndown import burn_down

    columns = ("account", "epsilon", "spent", "reserved", "remaining", "delta", "filter", "policy", "frozen")
    say(table(columns, (account.model_dump() for account in found.accounts)))
    for account in found.accounts:
        say("")
        say(f"{account.account}: epsilon spent (full) and reserved (shaded), budget (dashed)")
        say(burn_down(account))
    say("")


def _say_shares(found: Overview) -> None:
    columns = ("account", "name", "jobs", "releases", "spent", "counted")
    for title, shares in (("purpose", found.purposes), ("partner", found.partners)):
        if shares:
            rows = [{**share.model_dump(), title: share.name} for share in shares]
            say(table(("account", title, *columns[2:]), rows))
            say("")


def table(columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> Any:
    """A plain table of the named columns; the column ``what`` may wrap."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for name in columns:
        drawn.add_column(name, no_wrap=name != "what", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(row[name]) for name in columns))
    return drawn


def _cell(value: Any) -> str:
    if value is None:
        return "unbounded"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
