"""The two duties of a leg: make, announce and send what is due; fetch, check and take in what has come.

The order is the guarantee, as in a round of sums. What a leg costs is charged before its content is made; the
bytes are durable before their manifest is signed, and the manifest before it is posted, so a resend is
byte-identical. A silo says that it has received something only once that is durable here. A silo without its
record of what it has said ends the job: a leg has one attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from functools import partial
from pathlib import Path

from federation.legs.legs import Leg, LegPurpose, leg_at, price_of
from federation.messages import BlobKind, BlobRef, Envelope, Matched, PostKind, Received, Stream
from federation.steps import Step, durable
from federation.store import sync_directory
from privacy.agreement import Purpose, length_prefixed, received_mac, require_equal
from privacy.errors import ProtocolError
from privacy.ledger.ledger import Charge
from privacy.sealing import SealContext, open_file, seal_file
from silo.jobs.context import JobContext
from silo.jobs.start import check_expiries, check_fingerprints, start_key
from silo.release import announce_leg, release_leg
from silo.site import JobRecordLostError
from silo.tensor_files import sha256_of
from silo.vertical.contents import CONTENTS


async def send(context: JobContext) -> Envelope:
    """Write this leg's content, seal it if it is for one reader, and announce it.

    Raises:
        ChargeRefusedError: the job may not pay for it; nothing leaves.
        DisagreementError: another silo was shown other bytes in the leg before.
    """
    if stored := context.said(PostKind.STREAM, in_round=True):
        return stored
    _check(context)
    leg, path = context.state.leg, context.site.outbox.path(context.job, "stream", *context.at)
    charge = charge_leg(context, leg)
    if not path.exists():
        await _write(context, leg, path)
    sha256, num_bytes = await asyncio.to_thread(sha256_of, path), path.stat().st_size
    body = Stream(sha256=sha256, num_bytes=num_bytes, num_frames=leg.parcels[context.me].records)
    build = partial(announce_leg, leg=leg) if charge is None else partial(release_leg, charge=charge, leg=leg)
    envelope = build(
        body, context.authorization, job=context.job, sender=context.me, identity=context.site.party.identity
    )
    with durable(Step.LEG_STORED):
        context.site.outbox.store_post(envelope)
    return envelope


async def fetch(context: JobContext) -> Envelope:
    """Fetch what is for this silo, check it against the signed manifests, take it in, and say so.

    Raises:
        SealError: a sender's bytes do not open.
        LegContentError: they are not what the leg carries.
    """
    if stored := context.said(PostKind.RECEIVED, in_round=True):
        return stored
    _check(context)
    leg = context.state.leg
    received = {sender: await _fetch(context, leg, sender) for sender in leg.received_from(context.me)}
    charge_leg(context, leg)
    with durable(Step.PARCEL_READ):
        await CONTENTS[leg.purpose].read(context, leg, received)
    mac = received_of(context, context.me, context.state.round)
    return context.say(Received(mac=mac.hex()), Step.PARCEL_STORED, in_round=True)


async def conclude(context: JobContext) -> None:
    """Check every leg and make what the job leaves here: a silo that had no part in a leg looks at it too.

    Raises:
        DisagreementError: in some leg silos were shown different bytes.
    """
    last = context.state.num_rounds
    for number in range(1, last + 1):
        check_received(context, number)
    leg = leg_at(context.state.plan, last, context.state.spine_slots)
    await CONTENTS[leg.purpose].conclude(context)


def charge_leg(context: JobContext, leg: Leg) -> Charge | None:
    """The ledger's charge for a leg, charged already or from now on; None where it costs this silo nothing.

    Raises:
        ChargeRefusedError: the job may not pay for it.
    """
    event = price_of(context.state.plan, leg, context.me)
    if event is None:
        return None
    with durable(Step.CHARGED):
        return context.site.ledger.commit(context.job, round=leg.number, attempt=1, event=event)


def received_of(context: JobContext, reader: str, number: int) -> bytes:
    """What ``reader`` says once it has its parcels of a leg: alike for all who saw the same posts."""
    leg = leg_at(context.state.plan, number, context.state.spine_slots)
    hashes = (bytes.fromhex(_manifest(context, leg, sender)[1]) for sender in leg.received_from(reader))
    _, group_key = context.secrets()
    received = hashlib.sha256(length_prefixed(*hashes)).digest()
    return received_mac(group_key, context.job_id, number, 1, sender=reader, sum_sha256=received)


def check_received(context: JobContext, number: int) -> None:
    """Every reader of a leg that is over received what this silo saw announced.

    Raises:
        DisagreementError: one did not: somebody has signed two manifests, and the coordinator showed both.
    """
    for post in context.state.roster_posts(PostKind.RECEIVED, round=number, attempt=1):
        received = bytes.fromhex(post.content(Received).mac)
        require_equal(received_of(context, post.sender, number), received, sender=post.sender)


def _check(context: JobContext) -> None:
    """Nobody's policy has expired, all hold the same keys and received the same; forget what is over."""
    check_expiries(context)
    check_fingerprints(context)
    number = context.state.round
    if number > 1:
        check_received(context, number - 1)
    context.site.outbox.forget_rounds_before(context.job, number)


async def _write(context: JobContext, leg: Leg, path: Path) -> None:
    """Make the content, seal it, and give it its name once it is whole and durable."""
    parcel, outbox = leg.parcels[context.me], context.site.outbox
    plain = outbox.path(context.job, "plain", *context.at)
    part = outbox.path(context.job, "sealing", *context.at)
    await CONTENTS[leg.purpose].write(context, leg, plain)
    if leg.is_sealed:
        reader = parcel.readers[0]
        key = context.pair_keys(start_key(context), Purpose.LEG)[reader]
        await asyncio.to_thread(seal_file, key, plain, part, _seal_context(context, leg, context.me, reader))
        plain.unlink()
    else:
        plain.replace(part)
    if part.stat().st_size > parcel.max_bytes:
        raise ProtocolError(f"{leg.in_words} may have {parcel.max_bytes} bytes, not {part.stat().st_size}")
    with durable(Step.LEG_WRITTEN):
        await asyncio.to_thread(_make_durable, part, path)


async def _fetch(context: JobContext, leg: Leg, sender: str) -> Path:
    """One sender's bytes, unsealed, in the outbox."""
    kind, sha256, num_bytes = _manifest(context, leg, sender)
    path = context.site.outbox.path(context.job, f"stream-of-{sender}", *context.at)
    round_, attempt = context.at
    ref = BlobRef(job=context.job, kind=kind, round=round_, attempt=attempt, sender=sender)
    with durable(Step.PARCEL_FETCHED):
        await context.connection.download(ref, path, sha256=sha256, num_bytes=num_bytes)
    if not leg.is_sealed:
        return path
    opened = context.site.outbox.path(context.job, f"opened-of-{sender}", *context.at)
    key = context.pair_keys(start_key(context), Purpose.LEG)[sender]
    await asyncio.to_thread(open_file, key, path, opened, _seal_context(context, leg, sender, context.me))
    return opened


def _manifest(context: JobContext, leg: Leg, sender: str) -> tuple[BlobKind, str, int]:
    """Kind, SHA-256 and size of what a sender announced; slots stand by the silo that they are for."""
    state = context.state
    if leg.purpose is LegPurpose.SLOTS:
        matched = state.post(PostKind.MATCHED, state.coordinator, round=leg.number - 1, attempt=1)
        if matched is None:
            raise ProtocolError("slots that nobody has announced")
        file = matched.content(Matched).slots[sender]
        return BlobKind.SLOTS, file.sha256, file.num_bytes
    post = state.post(PostKind.STREAM, sender, round=leg.number, attempt=1)
    if post is None:
        raise ProtocolError(f"{sender} has announced nothing in {leg.in_words}")
    stream = post.content(Stream)
    return BlobKind.STREAM, stream.sha256, stream.num_bytes


def _seal_context(context: JobContext, leg: Leg, sender: str, receiver: str) -> SealContext:
    return SealContext(context.job_id, leg.number, sender, receiver, leg.parcels[sender].records)


def _make_durable(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)


def check_upload(context: JobContext) -> None:
    """What is announced may be sent: it is here, and paid for if it has a price.

    Raises:
        JobRecordLostError: its bytes are gone.
        ChargeRefusedError: the ledger does not know the charge and may not pay.
    """
    charge_leg(context, context.state.leg)
    if not context.site.outbox.path(context.job, "stream", *context.at).exists():
        raise JobRecordLostError("this silo has lost the bytes that it announced")
