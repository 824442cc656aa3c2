"""``archipel silo status``: how one silo stands, for its operator only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from federation.transport.connection import Patience
from federation.transport.grpc_client import connect
from policies.trust import days_left
from privacy.errors import ArchipelError
from silo.config import load_config
from silo.progress import read_progress
from silo.running import endpoint_of
from silo.site import Site

PATIENCE_SECONDS = 3.0


async def gather(directory: Path) -> dict[str, Any]:
    """Everything that ``describe`` shows; works while the agent runs."""
    with Site(directory) as site:
        law = site.law()
        policy = law.policy
        accounts = site.ledger.state().accounts.values()
        return {
            "silo": site.name,
            "charter": {"name": site.charter.name, "days_left": days_left(site.charter.expires, site.now())},
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
            "jobs": [note | _local(site, note["job"]) for note in site.job_notes()],
        }


def _local(site: Site, job: str) -> dict[str, Any]:
    """What only this silo knows of a job."""
    progress = read_progress(site.directory / "jobs" / job)
    return {"rows": site.remarks(job), "repairs": site.repairs(job), "progress": progress}


async def _reach(site: Site) -> dict[str, Any]:
    endpoint = endpoint_of(site, load_config(site.directory))
    connection = connect(
        endpoint, patience=Patience(total_seconds=PATIENCE_SECONDS, call_seconds=PATIENCE_SECONDS)
    )
    try:
        info = await connection.info()
        return {"address": f"{endpoint.host}:{endpoint.port}", "reachable": True, "name": info.name}
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
        f"charter {charter['days_left']} days left",
        *_trouble(found),
        f"coordinator at {coordinator['address']} {reach}",
    ]
    if found["budgets"]:
        table = Table("account", "epsilon", "spent", "reserved", "remaining", "delta")
        for account in found["budgets"]:
            figures = [f"{account[name]:.3f}" for name in ("epsilon", "spent", "reserved", "remaining")]
            table.add_row(account["account"], *figures, f"{account['delta']:g}")
        lines.append(table)
    for job in found["jobs"]:
        state = job["outcome"] or f"{job['phase']}, round {job['round']} of {job['num_rounds']}"
        lines.append(f"job {job['job']}: {state}")
        if job.get("absent"):
            lines.append("  the others went on without this silo; it comes back as soon as it has caught up")
        if job["progress"]:
            lines.append(f"  loss of this silo's own users, {_losses(job['progress'])} (stays here)")
        lines += [f"  {remark}" for remark in (*job["repairs"], *job["rows"])]
        if job["problem"]:
            lines.append(f"  waits: {job['problem']}")
    return lines


def _trouble(found: dict[str, Any]) -> Iterator[str]:
    """What an administrator has to see first."""
    if found["policy"]["refused"]:
        version, why = found["policy"]["version"], found["policy"]["refused"]
        yield f"policy.yaml is not in force, version {version} stays: {why}"
    if found["frozen"]:
        yield f"takes no new job: {found['frozen']['why']} ({found['frozen']['remedy']})"


def _losses(progress: list[dict[str, Any]]) -> str:
    """The first and the latest figure."""
    shown = progress[:1] + progress[1:][-1:]
    return ", ".join(f"after round {entry['round']}: {entry['local_loss']:.4f}" for entry in shown)
