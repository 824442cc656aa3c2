"""``archipel audit``: what was spent on what, and whether anything was altered. Reads, never writes.

Every command takes a silo's directory (``--dir``), also while its agent runs, or a bundle exported from one.
Times are UTC. Whatever is found ends the command with exit code 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say
from silo.audit.account_commands import budget_command, ledger_command, table
from silo.audit.attack_commands import attack_command
from silo.audit.options import Bundle, CharterFile, EarlierBundle, ReceiptFiles, Silo, TrailFile

if TYPE_CHECKING:
    from silo.audit.findings import Finding

audit_app = typer.Typer(
    name="audit", help="What was spent on what, and whether anything was altered.", no_args_is_help=True
)
audit_app.command("budget")(budget_command)
audit_app.command("ledger")(ledger_command)
audit_app.command("attack")(attack_command)


@audit_app.command("verify")
@command
def verify_command(
    charter: CharterFile,
    bundle: Bundle = None,
    directory: Dir = HERE,
    silo: Silo = None,
    receipts: ReceiptFiles = None,
    trail: TrailFile = None,
    earlier: EarlierBundle = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Verify chain, charges, policies, plans and receipts of a record (exit code 4 on findings)."""
    from silo.audit.verify import verify

    report = verify(
        bundle or directory,
        charter,
        now=datetime.now(UTC),
        silo=silo,
        receipts=receipts or (),
        trail=trail,
        earlier=earlier,
    )
    emit_json(report, json_file)
    say(
        f"{report.silo}: entries: {report.entries}, charges: {report.charges}, head: {report.head_hash[:16]}…"
    )
    say(f"{report.receipts} valid receipts by peers, the newest covers entry {report.witnessed_seq}")
    _say_findings(report.findings)
    report.accepted()
    say("nothing was found: every entry is signed, in its place, paid for and witnessed")


@audit_app.command("replay")
@command
def replay_command(
    bundle: Bundle = None, directory: Dir = HERE, json_file: Json = None, debug: Debug = False
) -> None:
    """Recompute epsilon from the record alone with a second accountant (exit code 4 on findings)."""
    from silo.audit.evidence import open_evidence
    from silo.audit.replay import replay

    with open_evidence(bundle or directory) as evidence, _watched() as advance:
        found = replay(evidence, advance=advance)
    emit_json(found, json_file)
    figures = ("delta", "claimed", "pld", "rdp", "promised")
    rows = [
        {"kind": row.kind, "name": row.name[:12], "releases": row.releases}
        | {name: _figure(getattr(row, name)) for name in figures}
        for row in found.rows
    ]
    say(table(("kind", "name", "releases", *figures), rows))
    say(f"epsilon per {found.unit}; relation: {found.neighboring_relation}; claimed: by the ledger's filter")
    say(f"pld, rdp: upper bounds by dp_accounting; tolerance {found.tolerance:g}, absolute and relative")
    _say_findings(found.findings)
    found.accepted()
    say("nothing was found: no claim is lower than what the second accountant finds")


@audit_app.command("report")
@command
def report_command(
    charter: CharterFile,
    out: Annotated[Path, typer.Option("--out", help="The page to write.", metavar="FILE", dir_okay=False)],
    bundle: Bundle = None,
    directory: Dir = HERE,
    silo: Silo = None,
    receipts: ReceiptFiles = None,
    trail: TrailFile = None,
    earlier: EarlierBundle = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write the whole audit as one page that prints well (exit code 4 on findings)."""
    from policies.files import write_atomically
    from policies.plans.summary import counted
    from silo.audit.render import render
    from silo.audit.report import make_report
    from silo.audit.verify import Elsewhere

    with _watched() as advance:
        report = make_report(
            bundle or directory,
            charter,
            now=datetime.now(UTC),
            silo=silo,
            elsewhere=Elsewhere(receipts or (), trail, earlier),
            advance=advance,
        )
    write_atomically(out, render(report).encode())
    emit_json(report, json_file)
    say(f"{out}: {counted(len(report.findings), 'finding')} in {report.verification.entries} entries")
    _say_findings(report.findings)
    report.accepted()


@audit_app.command("export")
@command
def export_command(
    out: Annotated[Path, typer.Option("--out", help="The bundle to write.", metavar="FILE", dir_okay=False)],
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Write a bundle that outsiders verify with nothing but the charter. No rows, models or keys."""
    from silo.audit.export import export_bundle

    done = export_bundle(directory, out, now=datetime.now(UTC))
    manifest = done.manifest
    say(f"{out}: {len(manifest.files)} files, {done.num_bytes} bytes, entries up to {manifest.head_seq}")
    say(f"SHA-256 {done.sha256}")
    say(f"Whoever has the charter verifies it: archipel audit verify {out.name} --charter charter.yaml")
    emit_json(
        {
            "path": str(out),
            "sha256": done.sha256,
            "num_bytes": done.num_bytes,
            "silo": manifest.silo,
            "head": {"seq": manifest.head_seq, "hash": manifest.head_hash},
            "files": sorted(manifest.files),
        },
        json_file,
    )


@contextmanager
def _watched() -> Iterator[Callable[[int, int], None]]:
    """A progress bar of the second accountant, which takes its time over sampled releases."""
    with progress("second accountant") as advance:

        def seen(done: int, total: int) -> None:
            advance.total(total)
            advance(1, description=f"second accountant, {done} of {total}")

        yield seen


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _say_findings(findings: tuple[Finding, ...]) -> None:
    for item in findings:
        say(f"{item.severity}[{item.code}] {item.where}: {item.text}")
