"""The pages: each a value that is shown as HTML or told as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from privacy.errors import ArchipelError
from privacy.ledger import records
from privacy.ledger.chain import LogReader
from privacy.ledger.paging import read_page
from silo.audit.entries import entry_json, selection, what
from silo.audit.evidence import LEDGER
from silo.audit.findings import MEANINGS
from silo.audit.render import charts_of, pages, verdict
from silo.audit.spending import JobLine
from silo.dashboard.snapshot import Snapshot

ENTRIES_A_PAGE = 50
WORST_FINDINGS = 5

NAVIGATION = (
    ("/", "Overview"),
    ("/budgets", "Budgets"),
    ("/ledger", "Ledger"),
    ("/jobs", "Jobs"),
    ("/policy", "Policy"),
    ("/findings", "Findings"),
)


class Page(NamedTuple):
    """One page.

    Attributes:
        template: what it is drawn with.
        title: its heading.
        here: the link of the navigation that leads here.
        data: what it says, as JSON values.
        shown: what only the drawing needs.
    """

    template: str
    title: str
    here: str
    data: Mapping[str, Any]
    shown: Mapping[str, Any]


def overview_page(now: Snapshot) -> Page:
    """How the silo stands."""
    report, spending = now.report, now.report.spending
    data = {
        "standing": standing(now),
        "accounts": [item.model_dump(mode="json") for item in spending.accounts] if spending else [],
        "findings": [item.model_dump(mode="json") for item in report.findings[:WORST_FINDINGS]],
        "num_findings": len(report.findings),
        "unreadable": list(report.unreadable),
    }
    return Page("overview.html", "Overview", "/", data, {"charts": charts_of(report)})


def budgets_page(now: Snapshot) -> Page:
    """What was spent, reserved and left."""
    spending = now.report.spending
    data = {
        "spending": spending.model_dump(mode="json", exclude={"jobs"}) if spending else None,
        "guarantees": [item.model_dump(mode="json") for item in now.report.guarantees],
        "unreadable": list(now.report.unreadable),
    }
    return Page("budgets.html", "Budgets", "/budgets", data, {"charts": charts_of(now.report)})


def jobs_page(now: Snapshot) -> Page:
    """Every job that the ledger or the agent knows, newest first."""
    return Page("jobs.html", "Jobs", "/jobs", {"jobs": _jobs(now)}, {})


def job_page(now: Snapshot, name: str) -> Page | None:
    """One job with its model's card; None where there is none of this name."""
    job = next((job for job in _jobs(now) if job["job"] == name), None)
    if job is None:
        return None
    card = now.cards.get(name)
    return Page("job.html", f"Job {name[:12]}", "/jobs", {"job": job, "model_card": card}, {})


def policy_page(now: Snapshot) -> Page:
    """The policy in force, in plain words."""
    data = {
        "policy": standing(now)["policy"],
        "explained": [item._asdict() for item in now.policy],
        "versions": [item.model_dump(mode="json") for item in now.report.versions],
    }
    return Page("policy.html", "Policy in force", "/policy", data, {})


def findings_page(now: Snapshot) -> Page:
    """Everything found, and what it means."""
    report = now.report
    data = {
        "verification": report.verification.model_dump(mode="json"),
        "findings": [item.model_dump(mode="json") for item in report.findings],
        "meanings": {item.code: MEANINGS[item.code][1] for item in report.findings},
        "unreadable": list(report.unreadable),
    }
    return Page("findings.html", "Findings", "/findings", data, {})


def ledger_page(directory: Path, query: Mapping[str, str], number: int, upto: int | None) -> Page:
    """Entries, newest first, read from the ledger now.

    Args:
        directory: whose ledger.
        query: ``job``, ``account``, ``kind``, ``since``, ``until``; empty ones stand for all.
        number: which page, from 1 on.
        upto: what is newer is left out, so that pages stand still while the agent writes; None = nothing is.

    Raises:
        UsageError: no such kind, or a time that is none.
        DataError, LogCorruptError: the ledger cannot be read.
    """
    asked = {name: query.get(name, "").strip() for name in ("job", "account", "kind", "since", "until")}
    given = {name: value for name, value in asked.items() if value}
    kind = given.pop("kind", None)
    chosen = selection(kinds=[kind] if kind else None, **given)
    with LogReader.open(directory / LEDGER) as ledger:
        found = read_page(ledger, chosen, size=ENTRIES_A_PAGE, number=number, upto=upto)
    data = {
        "asked": asked,
        "page_number": number,
        "pages": max(1, -(-found.total // ENTRIES_A_PAGE)),
        "total": found.total,
        "upto": found.upto,
        "num_newer": found.head - found.upto,
        "entries": [entry_json(entry) for entry in found.entries],
    }
    shown = {"words": [what(entry) for entry in found.entries], "kinds": list(records.RECORDS)}
    return Page("ledger.html", "Ledger", "/ledger", data, shown)


def standing(now: Snapshot) -> dict[str, Any]:
    """What an administrator has to know first."""
    law, verification = now.law, now.report.verification
    refused, hold = (law.refused, law.hold) if law else (now.lawless, None)
    return {
        "silo": verification.silo,
        "at": now.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "verdict": verdict(now.report),
        "paused": now.is_paused,
        "charter": {
            "name": now.charter.name,
            "expires": now.charter.expires.isoformat(),
            "days_left": now.charter_days,
        },
        "policy": {
            "in_force": law is not None,
            "version": law.policy.version if law else None,
            "expires": law.policy.expires.isoformat() if law else None,
            "days_left": now.policy_days,
            "refused": None if refused is None else f"[{refused.code}] {refused}",
            "frozen": None if hold is None else {"why": hold.why, "remedy": hold.remedy},
        },
        "entries": verification.entries,
        "charges": verification.charges,
        "witnessed_seq": verification.witnessed_seq,
        "jobs_running": sum(1 for job in _jobs(now) if job["state"] == "running"),
    }


def _jobs(now: Snapshot) -> list[dict[str, Any]]:
    spending = now.report.spending
    lines = {line.job: line for line in (spending.jobs if spending else ())}
    known = [*reversed(lines), *(job for job in reversed(list(now.notes)) if job and job not in lines)]
    return [_job(now, job, lines.get(job)) for job in known]


def _job(now: Snapshot, job: str, line: JobLine | None) -> dict[str, Any]:
    """A job by the ledger, and beside it what the agent last noted."""
    note = now.notes.get(job, {})
    outcome = note.get("outcome")
    state = outcome or ("running" if line is None or line.open else "ended")
    return {
        "job": job,
        "state": str(state),
        "ledger": line.model_dump(mode="json") if line else None,
        "phase": note.get("phase"),
        "round": note.get("round"),
        "num_rounds": note.get("num_rounds"),
        "problem": note.get("problem"),
        "has_card": job in now.cards,
    }


class Drawing:
    """Draws pages; reads its templates once."""

    def __init__(self) -> None:
        self._environment: Environment = pages("silo.dashboard")
        self.style = "\n".join(
            files(package).joinpath("templates", name).read_text(encoding="utf-8")
            for package, name in (("silo.audit", "report.css"), ("silo.dashboard", "dashboard.css"))
        )

    def page(self, page: Page, now: Snapshot) -> str:
        """The HTML of a page; whatever comes from the record is escaped."""
        values = {"standing": standing(now), **page.data, **page.shown}
        return self._environment.get_template(page.template).render(
            page=page, now=now, navigation=NAVIGATION, **values
        )

    def trouble(self, title: str, error: ArchipelError) -> str:
        """The HTML of what went wrong."""
        return self._environment.get_template("trouble.html").render(
            title=title, error=error, navigation=NAVIGATION
        )
