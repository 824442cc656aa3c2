"""``archipel audit``: what was spent on what, and whether anything was altered. Reads, never writes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, say

if TYPE_CHECKING:
    from privacy.events import Event, EventCount
    from privacy.ledger.chain import Entry
    from privacy.ledger.state import AccountStatus

UNIT = "user"
NEIGHBORING_RELATION = "add_or_remove_one"
SCOPE = "one person's whole history, over all silos that each plan says a person may be in"

audit_app = typer.Typer(
    name="audit", help="What was spent on what, and whether anything was altered.", no_args_is_help=True
)

CharterFile = Annotated[
    Path, typer.Option("--charter", help="The auditor's own copy of the charter.", metavar="FILE")
]
Silo = Annotated[
    str | None, typer.Option("--silo", help="Whose directory it is; default: what its card says.")
]
ReceiptFiles = Annotated[
    list[Path] | None,
    typer.Option("--receipts", help="A receipts.json that a peer handed out; repeatable.", metavar="FILE"),
]


@audit_app.command("verify")
@command
def verify_command(
    charter: CharterFile,
    directory: Dir = HERE,
    silo: Silo = None,
    receipts: ReceiptFiles = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Verify chain, signatures, charges, receipts and digests of a ledger (exit code 4 on findings)."""
    from silo.audit.verify import verify

    report = verify(directory, charter, now=datetime.now(UTC), silo=silo, receipts=receipts or ())
    emit_json(report, json_file)
    say(
        f"{report.silo}: entries: {report.entries}, charges: {report.charges}, head: {report.head_hash[:16]}…"
    )
    say(f"{report.receipts} valid receipts by peers, the newest covers entry {report.witnessed_seq}")
    for item in report.findings:
        say(f"{item.severity}[{item.code}] {item.where}: {item.text}")
    report.accepted()
    say("nothing was found: every entry is signed, in its place, paid for and witnessed")


@audit_app.command("budget")
@command
def budget_command(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """Show what each population's account has spent, reserved and left, recomputed from the entries."""
    from privacy.ledger.chain import read_entries
    from privacy.ledger.fold import Fold

    fold, problems = Fold.of(read_entries(directory / "ledger.db"))
    rows = [_account_row(status) for status in fold.state().accounts.values()]
    emit_json(
        {
            "unit": UNIT,
            "neighboring_relation": NEIGHBORING_RELATION,
            "scope": SCOPE,
            "accounts": rows,
            "problems": len(problems),
        },
        json_file,
    )
    columns = ("account", "epsilon", "spent", "reserved", "remaining", "delta", "filter", "policy", "frozen")
    say(_table(columns, rows))
    say(f"epsilon per {UNIT} ({SCOPE}); relation: {NEIGHBORING_RELATION}")
    if problems:
        say.warn(f"{len(problems)} entries are not as a ledger writes them; run: archipel audit verify")


@audit_app.command("ledger")
@command
def ledger_command(directory: Dir = HERE, json_file: Json = None, debug: Debug = False) -> None:
    """List the ledger's entries (nothing is verified here)."""
    from privacy.ledger.chain import read_entries

    entries = list(read_entries(directory / "ledger.db"))
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
    say(_table(("seq", "at", "kind", "account", "job", "what"), rows))


def _account_row(status: AccountStatus) -> dict[str, Any]:
    filter_ = status.budget.filter
    orders = getattr(filter_, "orders", None)
    return {
        "account": status.account,
        "epsilon": status.budget.epsilon,
        "spent": _finite(status.epsilon_spent),
        "reserved": _finite(status.epsilon_reserved),
        "remaining": status.epsilon_remaining,
        "delta": status.budget.delta,
        "filter": filter_.kind if orders is None else f"{filter_.kind} {list(orders)}",
        "policy": status.policy_version,
        "policy_sha256": status.policy_sha256,
        "frozen": status.frozen,
        "events_committed": _events_json(status.committed),
        "events_reserved": _events_json(status.outstanding),
    }


def _finite(epsilon: float) -> float | None:
    """JSON has no infinity: null stands for an epsilon that nothing bounds (delta is overdrawn)."""
    return epsilon if epsilon < float("inf") else None


def _events_json(events: Iterable[EventCount]) -> list[dict[str, Any]]:
    return [{"event": event.model_dump(mode="json"), "count": count} for event, count in events]


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
        return f"round {body.round}, attempt {body.attempt}: {_event_text(body.event)}"
    if isinstance(body, records.Witnessed):
        return "receipts by " + ", ".join(sorted({item.by for item in body.receipts}))
    if isinstance(body, records.Reserved | records.Released):
        listed = (f"{item.count} x {_event_text(item.event)}" for item in body.events)
        return ", ".join(listed) or "nothing was left to release"
    return ""


def _event_text(event: Event) -> str:
    scale = "epsilon" if event.kind == "pure" else "noise_multiplier"
    return f"{event.kind} ({scale} {getattr(event, scale):.6g})"


def _table(columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name != "what", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
