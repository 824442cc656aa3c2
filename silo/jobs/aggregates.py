"""The opened sums of a job's rounds: where they lie, and how a silo that lost some gets them back.

The coordinator keeps every sum until the job ends. A silo that fell behind opens it again and believes the
integers only if their keyed digest is the one that every contributor signed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from federation.messages import BlobKind, BlobRef, PostKind, Received, Sum
from federation.steps import Step, durable
from privacy.agreement import received_mac, require_equal, round_digest, tag_key
from silo.jobs.context import JobContext
from silo.session import Course, OpenedSum, SumMissingError
from silo.site import RecordLostError
from silo.tasks import OpenTask
from silo.tensor_files import sha256_of

log = structlog.get_logger("silo")

R = TypeVar("R")


def aggregate_path(context: JobContext, round: int, attempt: int) -> Path:
    """The file of one opened sum."""
    return context.directory / f"aggregate-{round}-{attempt}.npy"


def course_of(context: JobContext, num_rounds: int) -> Course:
    """The job up to a round, as its worker has to know it.

    Raises:
        RecordLostError: a round that nobody opened.
    """
    _, group_key = context.secrets()
    return Course(
        directory=context.site.directory,
        job=context.job,
        job_id=context.job_id,
        group_key=group_key,
        plan=context.state.plan,
        sums=tuple(_opened_sum(context, number) for number in range(1, num_rounds + 1)),
    )


async def with_sums(context: JobContext, call: Callable[[], Awaitable[R]]) -> R:
    """Do what needs opened sums; each that is missing or damaged is fetched and opened once more.

    Raises:
        SumMissingError: a sum that was opened again is still not there.
        DisagreementError: the coordinator's sum is not the one that the contributors opened.
    """
    fetched: set[int] = set()
    while True:
        try:
            return await call()
        except SumMissingError as error:
            if error.round in fetched:
                raise
            if error.was_damaged:
                note_rebuilt(context, error.round, error.message)
            await _open_again(context, error.round)
            fetched.add(error.round)


async def bring_up_to_date(context: JobContext, num_rounds: int) -> Course:
    """Replay what the kept state lacks of the first ``num_rounds`` rounds; what was damaged is rebuilt."""
    course = course_of(context, num_rounds)
    with durable(Step.STATE_STORED):
        repairs = await with_sums(context, lambda: context.worker.catch_up(course))
    for repair in repairs:
        note_rebuilt(context, num_rounds, repair)
    return course


def note_rebuilt(context: JobContext, round: int, what: str) -> None:
    """Say in the log and in ``silo status`` that something of this silo's was damaged."""
    log.warning("rebuilt", job=context.job, round=round, what=what)
    context.site.remember_repair(context.job, f"round {round}: {what}; rebuilt")


async def open_sum_of(context: JobContext, round: int, attempt: int) -> bytes:
    """Decrypt the fetched sum of one (round, attempt) into its file; returns the keyed digest.

    No bytes are decrypted of which not every contributor says that it received the same: whether a sum opens
    is an answer, and each round has one question.

    Raises:
        DisagreementError: a contributor received other bytes; nothing was decrypted.
        SumRejectedError: tag, range or padding do not fit.
    """
    _compare_received(context, round, attempt)
    secret, group_key = context.secrets()
    shape = context.state.shapes[round - 1]
    with durable(Step.AGGREGATE_STORED):
        opened = await context.worker.open(
            OpenTask(
                job_directory=context.directory,
                path=sum_path(context, round, attempt),
                target=aggregate_path(context, round, attempt),
                layout=shape.layout,
                contributors=len(context.state.contributors_of(round, attempt)),
                offset=shape.offset,
                tag_key=tag_key(group_key, context.job_id, round, attempt),
                secret=secret,
            )
        )
    return round_digest(group_key, context.job_id, round, _agreed(context, round - 1), opened)


async def fetch_sum(context: JobContext, round: int, attempt: int) -> Path:
    """The coordinator's sum as its signed manifest announced it; fetched once.

    Raises:
        RecordLostError: it is not on the board.
        ProtocolError: the bytes are others than announced.
    """
    manifest = sum_manifest(context, round, attempt)
    path = sum_path(context, round, attempt)
    if not path.exists():
        ref = BlobRef(
            job=context.job, kind=BlobKind.SUM, round=round, attempt=attempt, sender=context.state.coordinator
        )
        with durable(Step.SUM_FETCHED):
            await context.connection.download(ref, path, sha256=manifest.sha256, num_bytes=manifest.num_bytes)
    return path


def received_hash(context: JobContext, sender: str, round: int, attempt: int) -> bytes:
    """What ``sender`` has to say that it received, if it holds the bytes that this silo fetched."""
    _, group_key = context.secrets()
    sha256 = bytes.fromhex(sha256_of(sum_path(context, round, attempt)))
    return received_mac(group_key, context.job_id, round, attempt, sender=sender, sum_sha256=sha256)


def sum_path(context: JobContext, round: int, attempt: int) -> Path:
    """Where a fetched sum lies."""
    return context.site.outbox.path(context.job, "sum", round, attempt)


def sum_manifest(context: JobContext, round: int, attempt: int) -> Sum:
    """What the coordinator announced.

    Raises:
        RecordLostError: nothing yet.
    """
    posted = context.state.post(PostKind.SUM, context.state.coordinator, round=round, attempt=attempt)
    if posted is None:
        raise RecordLostError("the sum is not on the board")
    return posted.content(Sum)


def forget_opening(context: JobContext, round: int, attempt: int) -> None:
    """Delete a fetched sum and its integers, so that both are made again."""
    for path in (sum_path(context, round, attempt), aggregate_path(context, round, attempt)):
        path.unlink(missing_ok=True)


async def _open_again(context: JobContext, round: int) -> None:
    attempt = _attempt_of(context, round)
    forget_opening(context, round, attempt)
    await fetch_sum(context, round, attempt)
    try:
        digest = await open_sum_of(context, round, attempt)
        for sender, signed in context.state.opened_digests(round, attempt).items():
            require_equal(digest, bytes.fromhex(signed), sender=sender)
    except BaseException:
        forget_opening(context, round, attempt)
        raise


def _compare_received(context: JobContext, round: int, attempt: int) -> None:
    for post in context.state.roster_posts(PostKind.RECEIVED, round=round, attempt=attempt):
        expected = received_hash(context, post.sender, round, attempt)
        require_equal(expected, bytes.fromhex(post.content(Received).mac), sender=post.sender)


def _opened_sum(context: JobContext, round: int) -> OpenedSum:
    attempt = _attempt_of(context, round)
    return OpenedSum(
        path=aggregate_path(context, round, attempt),
        contributors=len(context.state.contributors_of(round, attempt)),
        digest=_agreed(context, round),
    )


def _attempt_of(context: JobContext, round: int) -> int:
    attempt = context.state.opened_attempt(round)
    if attempt is None:
        raise RecordLostError(f"round {round} was never opened")
    return attempt


def _agreed(context: JobContext, round: int) -> bytes:
    """What every contributor of a round signed for its integers; empty before the first."""
    return bytes.fromhex(context.state.agreed_digest(round) or "")
