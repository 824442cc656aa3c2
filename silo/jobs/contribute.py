"""A silo's contribution: draw, charge, store, then give it a key, mask it, encrypt it, send it.

The order is the guarantee. Noise is drawn before the ledger is charged because the charge is for the event
that the noise itself reports; the integers are durable before the key exists that masks them; the frames are
durable as a whole before the first one leaves. A crash in between leaves a charge without a release, never a
release without a charge. How long drawing took depends on the rows, so the key leaves at a fixed time.
"""

from __future__ import annotations

import asyncio
import os

from federation.messages import BlobKind, BlobRef, Burn, Envelope, PostKind, Stream
from federation.steps import Step, durable
from privacy.agreement import EphemeralKey, Purpose, tag_key
from privacy.ledger.ledger import Charge
from silo.jobs.aggregates import bring_up_to_date
from silo.jobs.context import JobContext
from silo.jobs.legs import check_upload
from silo.jobs.start import check_expiries, check_fingerprints, fetch_catalogue
from silo.outbox import Contribution
from silo.release import release_stream
from silo.site import RecordLostError
from silo.tasks import ContributionTask, ProtectTask

LEAVING_SECONDS = 0.25
"""Contributions leave this long after they were begun, or twice, four times … as long: peers see which."""


async def contribute(context: JobContext) -> Envelope:
    """Make this attempt's integers and post the ephemeral key that will mask them.

    A new attempt is always drawn anew: the same integers under other contributors would tell them apart.

    Raises:
        RecordLostError: what is stored for this attempt was drawn for other contributors.
    """
    found = _stored(context)
    if stored := context.said(PostKind.EPHEMERAL, in_round=True):
        return stored
    check_expiries(context)
    check_fingerprints(context)
    outbox, (round_, attempt) = context.site.outbox, context.at
    if found is not None and found.private_key is not None:
        return _post_key(context, EphemeralKey.from_bytes(found.private_key))
    if found is None:
        begun = asyncio.get_running_loop().time()
        await _draw(context)
        await asyncio.sleep(seconds_to_leave(asyncio.get_running_loop().time() - begun))
    key = EphemeralKey.generate()
    with durable(Step.MASK_KEY_STORED):
        outbox.attach_key(context.job, round_, attempt, key.private_bytes())
    return _post_key(context, key)


def seconds_to_leave(taken_seconds: float) -> float:
    """How long a finished contribution still waits for the next fixed time."""
    due = LEAVING_SECONDS
    while due < taken_seconds:
        due *= 2
    return due - taken_seconds


async def _draw(context: JobContext) -> None:
    """Catch up, read rows, sum, clip and noise in the worker; charge what the noise says it was; store."""
    await fetch_catalogue(context)
    site, (round_, attempt) = context.site, context.at
    site.outbox.forget_rounds_before(context.job, round_)
    task = ContributionTask(
        course=await bring_up_to_date(context, round_ - 1),
        dataset=site.dataset(context.job, context.authorization),
        contributors=len(context.contributors),
    )
    drawn = await context.worker.contribute(task)
    site.remember_remarks(context.job, drawn.remarks)
    with durable(Step.CHARGED):
        site.ledger.commit(context.job, round=round_, attempt=attempt, event=drawn.event)
    with durable(Step.CONTRIBUTION_STORED):
        site.outbox.store_contribution(context.job, round_, attempt, drawn.levels, context.contributors)


def _stored(context: JobContext) -> Contribution | None:
    """This attempt's contribution, if one was drawn.

    Each silo's share of the noise, and so the promise, is for just so many silos. Before a crash the board
    may have shown this attempt with others; what was drawn then is burned, however it came to that.

    Raises:
        RecordLostError: it was drawn for other contributors.
    """
    found = context.site.outbox.contribution(context.job, *context.at)
    if found is not None and found.contributors != context.contributors:
        raise RecordLostError("the contribution of this attempt was drawn for other contributors")
    return found


def _post_key(context: JobContext, key: EphemeralKey) -> Envelope:
    return context.say(context.ephemeral_body(key, os.urandom(32)), Step.EPHEMERAL_STORED, in_round=True)


async def protect(context: JobContext) -> Envelope:
    """Mask and encrypt the stored integers into a stream, and announce it.

    Raises:
        RecordLostError: they are not there, or were drawn for other contributors.
    """
    found = _stored(context)
    if stored := context.said(PostKind.STREAM, in_round=True):
        return stored
    site, (round_, attempt) = context.site, context.at
    if found is None or found.private_key is None:
        raise RecordLostError("this silo has lost the contribution of this attempt")
    secret, group_key = context.secrets()
    task = ProtectTask(
        job_directory=context.directory,
        levels=found.levels,
        layout=context.shape.layout,
        contributors=len(context.contributors),
        me=context.me,
        pair_keys=context.pair_keys(found.private_key, Purpose.MASK, in_round=True),
        tag_key=tag_key(group_key, context.job_id, round_, attempt),
        secret=secret,
        path=site.outbox.path(context.job, "stream", round_, attempt),
    )
    with durable(Step.STREAM_WRITTEN):
        written = await context.worker.protect(task)
    body = Stream(
        sha256=written.sha256, num_bytes=written.num_bytes, num_frames=context.shape.layout.num_frames
    )
    envelope = release_stream(
        body, context.authorization, charge_of(context), job=context.job, sender=context.me,
        identity=site.party.identity,
    )  # fmt: skip
    with durable(Step.STREAM_STORED):
        site.outbox.store_post(envelope)
    return envelope


async def upload(context: JobContext) -> None:
    """Send the announced stream, from where the coordinator stands."""
    round_, attempt = context.at
    if context.state.plan.is_vertical:
        check_upload(context)
    else:
        charge_of(context)
    ref = BlobRef(job=context.job, kind=BlobKind.STREAM, round=round_, attempt=attempt, sender=context.me)
    with durable(Step.STREAM_UPLOADED):
        await context.connection.upload(ref, context.site.outbox.path(context.job, "stream", round_, attempt))


def burn(context: JobContext) -> Envelope:
    """Give up the current attempt because its record is lost; its charge stays spent."""
    stored = context.said(PostKind.BURN, in_round=True)
    return stored or context.say(Burn(reason="record_lost"), Step.BURN_STORED, in_round=True)


def charge_of(context: JobContext) -> Charge:
    """The ledger's charge for the current attempt: charged already, or from now on.

    Raises:
        ChargeRefusedError: the job may not pay for it; nothing leaves.
    """
    round_, attempt = context.at
    return context.site.ledger.commit(context.job, round=round_, attempt=attempt, event=context.shape.event)
