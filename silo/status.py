"""``archipel silo status``: how one silo stands, for its operator only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from federation.transport.connection import Patience
from federation.transport.grpc_client import connect
from policies.canonical import digest
from policies.silo_policy import SiloPolicy
from policies.trust import days_left
from privacy.errors import ArchipelError
from silo.config import load_config
from silo.jobs.approval import is_awaited
from silo.progress import read_progress
from silo.running import endpoint_of
from silo.site import Site
from silo.vertical.serving.consent import CONSENT_FILE, DAYS_SHOWN, ConsentBook

PATIENCE_SECONDS = 3.0


async def gather(directory: Path) -> dict[str, Any]:
    """Everything that ``describe`` shows; works while the agent runs."""
    with Site(directory) as site:
        law = site.law()
        policy = law.policy
        accounts = site.ledger.state().accounts.values()
        return {
            "silo": site.name,
            "charter": {
                "name": site.charter.name,
                "version": site.charter.version,
                "days_left": days_left(site.charter.expires, site.now()),
            },
            "policy": {
                "version": policy.version,
                "days_left": days_left(policy.expires, site.now()),
                "refused": None if law.refused is None else f"[{law.refused.code}] {law.refused}",
            },
            "frozen": None if law.hold is None else {"why": law.hold.why, "remedy": law.hold.remedy},
            "paused": site.is_paused,
            "coordinator": await _reach(site),
            "budgets": [
                {
                    "account": account.account,
                    "epsilon": account.budget.epsilon,
                    "delta": account.budget.delta,
                    "spent": account.epsilon_spent,
                    "reserved": account.epsilon_reserved,
                    "remaining": account.epsilon_remaining,
                    "frozen": account.frozen,
                }
                for account in accounts
            ],
            "serving": _serving(site, policy),
            "jobs": [note | _local(site, note["job"]) for note in site.job_notes()],
        }


def _serving(site: Site, policy: SiloPolicy) -> dict[str, Any]:
    """Whom the policy answers about people who consent, and what their questions came to lately."""
    path = site.directory / CONSENT_FILE
    counts: Counter[str] = Counter()
    if path.exists():
        with ConsentBook(path) as book:
            for _, _, outcome, count in book.counts(site.now().date() - timedelta(days=DAYS_SHOWN)):
                counts[outcome] += count
    answers = {silo: list(purposes) for silo, purposes in policy.serving.answers.items()}
    return {"mode": policy.serving.mode, "answers": answers, "questions": dict(counts)}


def _local(site: Site, job: str) -> dict[str, Any]:
    """What only this silo knows of a job."""
    progress = read_progress(site.directory / "jobs" / job)
    is_asked = site.job_note(job).get("phase") == "approving" and is_awaited(site, job)
    return {
        "rows": site.remarks(job),
        "repairs": site.repairs(job),
        "progress": progress,
        "approval_awaited": is_asked,
    }


async def _reach(site: Site) -> dict[str, Any]:
    endpoint = endpoint_of(site, load_config(site.directory))
    connection = connect(
        endpoint, patience=Patience(total_seconds=PATIENCE_SECONDS, call_seconds=PATIENCE_SECONDS)
    )
    try:
        info = await connection.info()
        return {
            "address": f"{endpoint.host}:{endpoint.port}",
            "reachable": True,
            "name": info.name,
            "same_charter": info.charter_sha256 == digest(site.charter),
        }
    except ArchipelError as error:
        return {"address": f"{endpoint.host}:{endpoint.port}", "reachable": False, "why": error.message}
    finally:
        await connection.close()


def describe(found: dict[str, Any]) -> list[object]:
    """The status for people."""
    policy, charter, coordinator = found["policy"], found["charter"], found["coordinator"]
    reach = "answers" if coordinator["reachable"] else f"does not answer: {coordinator['why']}"
    lines: list[object] = [
        f"{found['silo']}{' (paused)' if found['paused'] else ''} in {charter['name']}",
        f"policy version {policy['version']}, {policy['days_left']} days left; "
        f"charter version {charter['version']}, {charter['days_left']} days left",
        *_trouble(found),
        f"coordinator at {coordinator['address']} {reach}",
    ]
    if found["budgets"]:
        table = Table("account", "epsilon", "spent", "reserved", "remaining", "delta")
        for account in found["budgets"]:
            figures = [f"{account[name]:.3f}" for name in ("epsilon", "spent", "reserved", "remaining")]
            table.add_row(account["account"], *figures, f"{account['delta']:g}")
        lines.append(table)
    lines += _serving_lines(found["serving"])
    for job in found["jobs"]:
        place = job.get("leg") or f"round {job['round']} of {job['num_rounds']}"
        state = job["outcome"] or f"{job['phase']}, {place}"
        why = f" ({job['reason']})" if job["reason"] and job["outcome"] != "completed" else ""
        lines.append(f"job {job['job']}: {state}{why}")
        lines += [f"  {count} attempts given up by {silo}; what they cost is spent"
                  for silo, count in job.get("given_up_by", {}).items()]  # fmt: skip
        if job.get("absent"):
            lines.append("  the others went on without this silo; it comes back as soon as it has caught up")
        if job["progress"]:
            lines.append(f"  loss of this silo's own users, {_losses(job['progress'])} (stays here)")
        lines += [f"  {remark}" for remark in (*job["repairs"], *job["rows"])]
        if job.get("approval_awaited"):
            lines.append(f"  somebody here has to decide: archipel align approve {job['job'][:8]}, or refuse")
        if job["problem"]:
            lines.append(f"  waits: {job['problem']}")
    return lines


def _serving_lines(serving: dict[str, Any]) -> Iterator[str]:
    said = "answers {} about people who bring it their token"
    if serving["mode"] == "user_side_merge":
        said = "gives people their own numbers for lists of {} on their own device"
    for silo, purposes in serving["answers"].items():
        yield f"{said.format(silo)}, for {', '.join(purposes)}"
    if serving["questions"]:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(serving["questions"].items()))
        yield f"  questions in the last {DAYS_SHOWN} days: {counts}"


def _trouble(found: dict[str, Any]) -> Iterator[str]:
    """What an administrator has to see first."""
    if found["policy"]["refused"]:
        version, why = found["policy"]["version"], found["policy"]["refused"]
        yield f"policy.yaml is not in force, version {version} stays: {why}"
    if not found["coordinator"].get("same_charter", True):
        yield "the coordinator runs under another version of the charter: install the newest on both sides"
    if found["frozen"]:
        yield f"takes no new job: {found['frozen']['why']} ({found['frozen']['remedy']})"


def _losses(progress: list[dict[str, Any]]) -> str:
    """The first and the latest figure."""
    shown = progress[:1] + progress[1:][-1:]
    return ", ".join(f"after round {entry['round']}: {entry['local_loss']:.4f}" for entry in shown)
