"""What a party does with jobs, as functions: dial, read the board, submit, watch, pause, resume, cancel.

A client believes nobody's summary: it verifies every post against the charter and folds them itself with
:mod:`federation.rounds`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from federation.identity import Party
from federation.messages import (
    BlobKind,
    BlobRef,
    Cancel,
    Envelope,
    Pause,
    PostKind,
    Proposal,
    Resume,
    parse_envelope,
    proposal_id,
    seal,
    verify_envelope,
)
from federation.rounds import JobState, Phase, advance, propose
from federation.transport.base import Connection
from federation.transport.connection import Patience, WireConnection
from federation.transport.handshake import Endpoint
from federation.transport.tls import PinnedCertificates
from policies.canonical import digest
from policies.charters.charter import Charter
from policies.plans.plan import Plan
from privacy.errors import ArchipelError, DataError, TrustError, UsageError

WATCH_SECONDS = 20.0


class CatalogueOfOtherPlanError(DataError):
    """The catalogue file is not the one that the plan names."""

    code: ClassVar[str] = "catalogue_of_other_plan"


def endpoint_of(party: Party, charter: Charter) -> Endpoint:
    """The charter's coordinator, as ``party`` dials it."""
    return Endpoint(
        host=charter.coordinator.host,
        port=charter.coordinator.port,
        party=party.name,
        identity=party.tls,
        pinned=PinnedCertificates.of(charter),
    )


def dial(party: Party, charter: Charter, *, patience: Patience | None = None) -> WireConnection:
    """A connection of ``party`` to the charter's coordinator. Needs a running event loop.

    Raises:
        TrustError: the party's own certificate is not the pinned one, or not valid now.
    """
    from federation.transport.grpc_client import connect

    return connect(endpoint_of(party, charter), patience=patience)


class Board:
    """The jobs of one party, folded from signed posts.

    Args:
        charter: says whose signatures count.

    Attributes:
        jobs: state of every job by its id, oldest first.
        problems: posts that were refused and why; they changed nothing.
    """

    def __init__(self, charter: Charter) -> None:
        self.jobs: dict[str, JobState] = {}
        self.problems: list[ArchipelError] = []
        self._coordinator = charter.coordinator.name
        self._keys = charter.identity_keys()
        self._after = 0

    async def refresh(self, connection: Connection, *, wait_seconds: float = 0.0) -> bool:
        """Read what is new, waiting up to ``wait_seconds`` for it; returns whether anything was."""
        posts = await connection.posts(self._after, wait_seconds)
        has_news = bool(posts)
        while posts:
            for seq, raw in posts:
                self._after = seq
                try:
                    self._admit(raw)
                except ArchipelError as error:
                    self.problems.append(error)
            posts = await connection.posts(self._after, 0.0)
        return has_news

    def find(self, job: str) -> JobState:
        """The job whose id is, or alone begins with, ``job``.

        Raises:
            UsageError: none, or several.
        """
        found = [state for name, state in self.jobs.items() if name.startswith(job)] if job else []
        if len(found) == 1:
            return found[0]
        raise UsageError(
            f"{len(found)} jobs begin with that id" if found else "no job of this party has that id",
            where=job or "(empty)",
            remedy="job list shows the ids; eight characters are usually enough",
        )

    def _admit(self, raw: bytes) -> None:
        envelope = parse_envelope(raw)
        key = self._keys.get(envelope.sender)
        if key is None:
            raise TrustError(f"a post of {envelope.sender}, who is not in the charter")
        verify_envelope(envelope, key)
        if envelope.kind is PostKind.PROPOSAL:
            self.jobs.setdefault(proposal_id(envelope), propose(envelope, self._coordinator))
        else:
            known = self.find(envelope.job)
            self.jobs[known.job] = advance(known, envelope)


async def submit(
    connection: Connection, party: Party, charter: Charter, plan: Plan, catalogue: Path, *, now: datetime
) -> str:
    """Propose ``plan`` and hand in its catalogue; returns the job's id.

    A plan of this party's that still waits for answers is not proposed twice: its upload is completed.

    Args:
        connection: to the coordinator.
        party: who proposes.
        charter: the charter in force.
        plan: as every silo will accept or deny it.
        catalogue: the file whose SHA-256 the plan names.
        now: time of the proposal, aware.

    Raises:
        CatalogueOfOtherPlanError: the file is another one.
        ArchipelError: the coordinator's refusal.
    """
    num_bytes = _check_catalogue(catalogue, plan)
    board = Board(charter)
    await board.refresh(connection)
    job = _waiting_job(board, party.name, plan)
    if job is None:
        proposal = make_proposal(party, plan, num_bytes, now)
        await connection.post(proposal.to_bytes())
        job = proposal_id(proposal)
    await connection.upload(BlobRef(job=job, kind=BlobKind.CATALOGUE, sender=party.name), catalogue)
    return job


def make_proposal(party: Party, plan: Plan, catalogue_bytes: int, now: datetime) -> Envelope:
    """A signed proposal of ``plan``; each is a job of its own."""
    body = Proposal(
        plan=plan.model_dump(mode="json", exclude_unset=True),
        catalogue_bytes=catalogue_bytes,
        submitted_at=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        nonce=secrets.token_hex(16),
    )
    return seal(body, job="", sender=party.name, identity=party.identity)


async def watch(connection: Connection, board: Board, job: str) -> AsyncIterator[JobState]:
    """States of a job, each time it changes, until it has ended.

    Raises:
        UsageError: no such job.
    """
    await board.refresh(connection)
    state = board.find(job)
    yield state
    while state.phase is not Phase.ENDED:
        await board.refresh(connection, wait_seconds=WATCH_SECONDS)
        latest = board.jobs[state.job]
        if latest is not state:
            state = latest
            yield state


async def cancel(connection: Connection, party: Party, job: str) -> None:
    """Stop a job for everybody.

    Args:
        connection: to the coordinator.
        party: its proposer, or a silo of its roster.
        job: its full id.

    Raises:
        ProtocolError: the party may not, or the job has ended.
    """
    envelope = seal(Cancel(), job=job, sender=party.name, identity=party.identity)
    await connection.post(envelope.to_bytes())


async def pause(connection: Connection, party: Party, state: JobState) -> bool:
    """Let no further round of a job begin; attempts of the round that runs go on.

    Args:
        connection: to the coordinator.
        party: the job's proposer, or a silo of its roster.
        state: the job as it is now.

    Returns:
        Whether that changed anything: a job that is paused stays so.

    Raises:
        ProtocolError: the party may not, the last round has begun, or the job has ended.
    """
    return await _lift_or_set(connection, party, state, Pause())


async def resume(connection: Connection, party: Party, state: JobState) -> bool:
    """Let a paused job go on; arguments, answer and errors as for :func:`pause`."""
    return await _lift_or_set(connection, party, state, Resume())


async def _lift_or_set(connection: Connection, party: Party, state: JobState, body: Pause | Resume) -> bool:
    if state.phase is not Phase.ENDED and state.is_paused == isinstance(body, Pause):
        return False
    round_, attempt = state.pause_place
    envelope = seal(
        body, job=state.job, sender=party.name, identity=party.identity, round=round_, attempt=attempt
    )
    await connection.post(envelope.to_bytes())
    return True


def _check_catalogue(catalogue: Path, plan: Plan) -> int:
    try:
        with catalogue.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            num_bytes = file.tell()
    except FileNotFoundError as error:
        raise DataError(
            "there is no such catalogue", where=str(catalogue), remedy="name the file with --catalogue"
        ) from error
    if found != plan.catalogue.sha256:
        raise CatalogueOfOtherPlanError(
            f"its SHA-256 is {found[:16]}…, the plan names {plan.catalogue.sha256[:16]}…",
            where=str(catalogue),
            remedy="submit the catalogue that the plan was made for, or make a new plan",
        )
    return num_bytes


def _waiting_job(board: Board, proposer: str, plan: Plan) -> str | None:
    plan_sha256 = digest(plan)
    for job, state in board.jobs.items():
        is_same = state.proposer == proposer and state.plan_sha256 == plan_sha256
        if is_same and state.phase is Phase.PROPOSED and state.close is None:
            return job
    return None
