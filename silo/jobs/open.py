"""From the coordinator's sum to integers that every silo of the roster agrees on."""

from __future__ import annotations

import secrets
from pathlib import Path

import structlog

from federation.aggregation import SumWorker
from federation.messages import BlobKind, BlobRef, Envelope, Failed, Opened, PostKind, Received, Stream, Sum
from federation.steps import Step, durable
from privacy.encryption.frames import FrameError
from privacy.errors import TrustError
from privacy.securesum import SumRejectedError
from silo.jobs.aggregates import fetch_sum, open_sum_of, received_hash, sum_manifest, sum_path
from silo.jobs.context import JobContext
from silo.site import RecordLostError
from silo.tensor_files import sha256_of

log = structlog.get_logger("silo")


class ForgedSumError(TrustError):
    """The coordinator's sum is not the sum of the signed streams."""

    code = "forged_sum"


async def receive(context: JobContext) -> Envelope:
    """Fetch the sum once, and commit to what was received before anybody decrypts."""
    if stored := context.said(PostKind.RECEIVED, in_round=True):
        return stored
    _check_own_stream(context, sum_manifest(context, *context.at))
    await fetch_sum(context, *context.at)
    mac = received_hash(context, context.me, *context.at)
    return context.say(Received(mac=mac.hex()), Step.RECEIVED_STORED, in_round=True)


async def open_sum(context: JobContext) -> Envelope:
    """Perhaps recompute the sum; compare what all received, decrypt, and agree on the integers.

    Every failure is answered by the same word; why stays in this silo's own log.
    """
    if stored := context.said(PostKind.OPENED, in_round=True) or context.said(PostKind.FAILED, in_round=True):
        return stored
    round_, _ = context.at
    try:
        if _is_checked(context):
            await _recompute(context)
        digest = await open_sum_of(context, *context.at)
    except (TrustError, SumRejectedError) as error:
        log.error("sum_rejected", job=context.job, round=round_, code=error.code, what=error.message)
        return context.say(Failed(), Step.FAILED_STORED, in_round=True)
    return context.say(Opened(digest=digest.hex()), Step.OPENED_STORED, in_round=True)


def _is_checked(context: JobContext) -> bool:
    """This silo's own secret coin, tossed once, after the sum is fixed; heads where there is one round.

    It is kept: a coordinator that withholds the streams must not see it tossed again.
    """
    if context.state.num_rounds == 1:
        return True
    round_, attempt = context.at
    name, outbox = f"coin-{round_}-{attempt}", context.site.outbox
    if outbox.secret(context.job, name) is None:
        is_heads = secrets.randbelow(1 << 53) < context.authorization.verify_sums * (1 << 53)
        with durable(Step.COIN_TOSSED):
            outbox.store_secret(context.job, name, bytes([is_heads]))
    return outbox.secret(context.job, name) == b"\x01"


async def _recompute(context: JobContext) -> None:
    """Add all contributors' signed streams once more and compare with the very bytes that will be opened.

    Raises:
        ForgedSumError: it is another sum.
    """
    round_, attempt = context.at
    outbox = context.site.outbox
    paths: list[Path] = []
    for post in context.state.roster_posts(PostKind.STREAM, round=round_, attempt=attempt):
        kind = "stream" if post.sender == context.me else f"stream-of-{post.sender}"
        path = outbox.path(context.job, kind, round_, attempt)
        manifest = post.content(Stream)
        if not path.exists():
            ref = BlobRef(
                job=context.job, kind=BlobKind.STREAM, round=round_, attempt=attempt, sender=post.sender
            )
            await context.connection.download(ref, path, sha256=manifest.sha256, num_bytes=manifest.num_bytes)
        paths.append(path)
    target = outbox.path(context.job, "recomputed", round_, attempt)
    worker = SumWorker()
    try:
        written = await worker.sum(paths, context.shape.layout.num_frames, target)
    except FrameError as error:
        raise ForgedSumError("the signed streams cannot be added") from error
    finally:
        worker.close()
    if written.sha256 != sha256_of(sum_path(context, *context.at)):
        raise ForgedSumError("the coordinator's sum is not the sum of the signed streams")
    for path in (*paths, target):
        if path != outbox.path(context.job, "stream", round_, attempt):
            path.unlink(missing_ok=True)


def _check_own_stream(context: JobContext, manifest: Sum) -> None:
    mine = context.said(PostKind.STREAM, in_round=True)
    if mine is None:
        raise RecordLostError("this silo has no record of the stream it sent")
    if manifest.streams.get(context.me) != mine.content(Stream).sha256:
        raise ForgedSumError("the sum does not contain what this silo sent")
