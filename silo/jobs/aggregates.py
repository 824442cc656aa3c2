"""The opened sums of a job's rounds: where they lie, and how a silo that lost some gets them back.

The coordinator keeps every sum until the job ends. A silo that fell behind opens it again and believes the
integers only if their keyed digest is the one that every silo of the roster signed.
"""

from __future__ import annotations

from pathlib import Path

from federation.messages import BlobKind, BlobRef, Opened, PostKind, Sum
from federation.steps import Step, durable
from privacy.agreement import require_equal, round_digest, tag_key
from silo.jobs.context import JobContext
from silo.site import RecordLostError
from silo.worker import OpenTask


def aggregate_path(context: JobContext, round: int, attempt: int) -> Path:
    """The file of one opened sum."""
    return context.directory / f"aggregate-{round}-{attempt}.npy"


async def open_aggregates(context: JobContext, num_rounds: int) -> tuple[str, ...]:
    """Files of the opened sums of the first ``num_rounds`` rounds; what is missing is opened again.

    Raises:
        RecordLostError: a round that nobody opened.
        DisagreementError: the coordinator's sum is not the one that the roster opened.
    """
    paths = []
    for number in range(1, num_rounds + 1):
        attempt = context.state.opened_attempt(number)
        if attempt is None:
            raise RecordLostError(f"round {number} was never opened")
        path = aggregate_path(context, number, attempt)
        if not path.exists():
            await _open_again(context, number, attempt)
        paths.append(str(path))
    return tuple(paths)


async def open_sum_of(context: JobContext, round: int, attempt: int) -> bytes:
    """Decrypt the fetched sum of one (round, attempt) into its file; returns the keyed digest.

    Raises:
        SumRejectedError: tag, range or padding do not fit.
    """
    secret, group_key = context.secrets()
    shape = context.state.shapes[round - 1]
    with durable(Step.AGGREGATE_STORED):
        opened = await context.worker.open(
            OpenTask(
                path=sum_path(context, round, attempt),
                target=aggregate_path(context, round, attempt),
                layout=shape.layout,
                contributors=len(context.state.roster),
                offset=shape.offset,
                tag_key=tag_key(group_key, context.job_id, round, attempt),
                secret=secret,
            )
        )
    return round_digest(group_key, context.job_id, round, _digest_before(context, round), opened)


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


async def _open_again(context: JobContext, round: int, attempt: int) -> None:
    await fetch_sum(context, round, attempt)
    try:
        digest = await open_sum_of(context, round, attempt)
        for post in context.state.roster_posts(PostKind.OPENED, round=round, attempt=attempt):
            require_equal(digest, bytes.fromhex(post.content(Opened).digest), sender=post.sender)
    except BaseException:
        aggregate_path(context, round, attempt).unlink(missing_ok=True)
        raise


def _digest_before(context: JobContext, round: int) -> bytes:
    """What this silo signed for the round before, in the attempt that everybody opened."""
    attempt = context.state.opened_attempt(round - 1)
    if attempt is None:
        return b""
    signed = context.state.post(PostKind.OPENED, context.me, round=round - 1, attempt=attempt)
    return bytes.fromhex(signed.content(Opened).digest) if signed else b""
