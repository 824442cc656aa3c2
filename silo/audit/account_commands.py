"""``archipel audit budget`` and ``audit ledger``: what stands in a record, verified or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say
from silo.audit.options import Bundle, Since, Until, is_within, moment

if TYPE_CHECKING:
    from privacy.events import Event
    from privacy.ledger.chain import Entry
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
    from silo.audit.evidence import open_evidence

    first, last = moment(since), moment(until)
    known = _known_kinds(kind)
    entries = []
    with open_evidence(bundle or directory) as evidence, evidence.open_ledger() as ledger:
        for entry in ledger.entries():
            about = entry.payload.get
            if (
                (job is None or str(about("job", "")).startswith(job))
                and (account is None or about("account") == account)
                and (known is None or entry.kind in known)
                and is_within(entry.at, first, last)
            ):
                entries.append(entry)
    emit_json([_entry_json(entry) for entry in entries], json_file)
    rows = [
        {
            "seq": entry.seq,
            "at": entry.at[:19] + "Z",
            "kind": entry.kind,
            "account": entry.payload.get("account", ""),
            "job": str(entry.payload.get("job", ""))[:12],
            "what": _what(entry),
        }
        for entry in entries
    ]
    say(table(("seq", "at", "kind", "account", "job", "what"), rows))


def _known_kinds(kinds: list[str] | None) -> frozenset[str] | None:
    from privacy.errors import UsageError
    from privacy.ledger.records import RECORDS

    if not kinds:
        return None
    unknown = sorted(set(kinds) - set(RECORDS))
    if unknown:
        raise UsageError(
            f"there are no entries of kind {', '.join(unknown)}",
            where="--kind",
            remedy=f"choose of: {', '.join(RECORDS)}",
        )
    return frozenset(kinds)


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


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": entry.at,
        "kind": entry.kind,
        "payload": dict(entry.payload),
        "previous": entry.previous,
        "hash": entry.hash,
        "key_id": entry.key_id,
        "signature": entry.signature,
    }


def _what(entry: Entry) -> str:
    from privacy.ledger import records

    try:
        body = records.read_record(entry)
    except records.UnknownRecordError as error:
        return error.message
    if isinstance(body, records.AccountTerms):
        terms = f"epsilon {body.budget.epsilon:.6g}, delta {body.budget.delta:.6g}"
        return f"{terms}, policy version {body.policy_version}"
    if isinstance(body, records.Committed):
        return f"round {body.round}, attempt {body.attempt}: {event_text(body.event)}"
    if isinstance(body, records.Witnessed):
        return "receipts by " + ", ".join(sorted({item.by for item in body.receipts}))
    if isinstance(body, records.Reserved | records.Released):
        listed = (f"{item.count} x {event_text(item.event)}" for item in body.events)
        return ", ".join(listed) or "nothing was left to release"
    return ""


def event_text(event: Event) -> str:
    """An event in a few words."""
    if event.kind == "self_composed":
        return f"{event.count} steps of {event_text(event.event)}"
    if event.kind == "pure":
        return f"pure (epsilon {event.epsilon:.6g})"
    text = f"{event.kind} (noise_multiplier {event.noise_multiplier:.6g}"
    if event.kind == "poisson_sampled_gaussian":
        text += f", sample_rate {event.sample_rate:.6g}"
    return text + ")"


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
