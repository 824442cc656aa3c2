"""Whether this silo takes its slots: its policy's word, or that of somebody of its own people.

The coordinator has said that enough people are in common, and has handed out nothing yet. Where the job's
policy says ``alignment.approval: ask``, the agent waits until a decision lies beside the job
(``archipel align approve`` and ``refuse`` put it there); nobody else is told who waits for whom and why.
"""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import ClassVar

from federation.messages import Approval, Envelope, PostKind
from federation.steps import Step
from policies.files import write_atomically
from privacy.errors import DataError
from silo.jobs.context import JobContext
from silo.jobs.start import check_expiries, check_fingerprints
from silo.site import Site

DECISION_FILE = "approval.json"


class ApprovalFileError(DataError):
    """The decision that lies beside a job cannot be read."""

    code: ClassVar[str] = "approval_file"


async def approve(context: JobContext) -> Envelope | None:
    """Say yes or no, once; nothing yet while somebody here is asked.

    Raises:
        ApprovalFileError: there is a decision, and it is none.
    """
    if stored := context.said(PostKind.APPROVAL, in_round=True):
        return stored
    check_expiries(context)
    check_fingerprints(context)
    decided = read_decision(context.site, context.job) if asks(context.site, context.job) else True
    if decided is None:
        return None
    return context.say(Approval(approved=decided), Step.APPROVAL_STORED, in_round=True)


def asks(site: Site, job: str) -> bool:
    """Whether the policy under which a job was accepted wants somebody to approve its alignment."""
    policy = site.policy_of(job)
    return policy is not None and policy.alignment is not None and policy.alignment.approval == "ask"


def is_awaited(site: Site, job: str) -> bool:
    """Whether somebody here is asked about a job and has not decided."""
    return asks(site, job) and read_decision(site, job) is None


def read_decision(site: Site, job: str) -> bool | None:
    """What somebody here decided about a job; None before that.

    Raises:
        ApprovalFileError: the file holds no decision.
    """
    path = _path(site, job)
    if not path.exists():
        return None
    try:
        return bool({"approve": True, "refuse": False}[json.loads(path.read_bytes())["decision"]])
    except (ValueError, TypeError, KeyError) as error:
        raise ApprovalFileError(
            "this is no decision",
            where=str(path),
            remedy=f"decide again: archipel align approve {job[:8]}, or refuse",
        ) from error


def write_decision(site: Site, job: str, *, is_approved: bool) -> None:
    """Leave a decision for the agent, which may be running."""
    at = site.now().astimezone(UTC).isoformat(timespec="seconds")
    text = json.dumps({"decision": "approve" if is_approved else "refuse", "at": at}, indent=2)
    write_atomically(_path(site, job), text.encode())


def _path(site: Site, job: str) -> Path:
    return site.directory / "jobs" / job / DECISION_FILE
