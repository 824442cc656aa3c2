"""The end of a job: the model, the ledger's head under everybody's eyes, and nothing secret left."""

from __future__ import annotations

import json

import structlog

from federation.messages import Envelope, LedgerHead, PostKind, Receipt, Receipts
from federation.steps import Step, durable
from policies.canonical import signed_bytes
from policies.files import write_atomically
from policies.signing import SignatureError
from privacy.errors import BudgetExceededError
from privacy.ledger import records
from silo.jobs import legs
from silo.jobs.context import JobContext
from silo.jobs.model import leave_usable_model, write_model
from silo.jobs.records import charge_what_left
from silo.session import STATE_FILE

log = structlog.get_logger("silo")


async def head(context: JobContext) -> Envelope:
    """Write the model, give back what was reserved and not used, and post where the ledger stands."""
    if stored := context.said(PostKind.HEAD):
        return stored
    charge_what_left(context)
    if context.state.plan.is_vertical:
        with durable(Step.MODEL_WRITTEN):
            await legs.conclude(context)
    else:
        await write_model(context)
    with durable(Step.REST_RELEASED):
        context.site.ledger.release_rest(context.job)
    current = context.site.ledger.head()
    return context.say(LedgerHead(seq=current.seq, hash=current.hash), Step.HEAD_STORED)


async def countersign(context: JobContext) -> Envelope:
    """Sign the ledger head of every other silo that posted one."""
    if stored := context.said(PostKind.RECEIPTS):
        return stored
    receipts = []
    for post in context.state.roster_posts(PostKind.HEAD):
        if post.sender != context.me:
            posted = post.content(LedgerHead)
            signed = _receipt_bytes(context.job, post.sender, posted, by=context.me)
            signature = context.site.party.identity.sign(signed)
            receipts.append(Receipt(silo=post.sender, seq=posted.seq, hash=posted.hash, signature=signature))
    return context.say(Receipts(receipts=tuple(receipts)), Step.RECEIPTS_STORED)


async def finish(context: JobContext) -> None:
    """File the receipts, release what is left of the reservation, erase every secret of the job.

    However it ended: what was opened and paid for stays usable as a model. Where the account cannot pay any
    more for what left, no model is written here: its card would claim too little.
    """
    site, job = context.site, context.job
    if job in site.ledger.state().jobs:
        if _is_charged(context) and not context.state.plan.is_vertical:
            await leave_usable_model(context)
        site.ledger.release_rest(job)
        receipts = _valid_receipts(context)
        if receipts:
            with durable(Step.WITNESSED):
                site.ledger.witness(job, receipts)
            text = json.dumps([item.model_dump(mode="json") for item in receipts], indent=2)
            write_atomically(context.directory / "receipts.json", text.encode())
    with durable(Step.SECRETS_ERASED):
        await context.worker.forget_job(context.directory)
        site.outbox.erase_secrets(job)
        for pattern in ("aggregate-*", "*.part", STATE_FILE):
            for path in context.directory.glob(pattern):
                path.unlink()


def _is_charged(context: JobContext) -> bool:
    """Charge what left; False where the budget was lowered below that meanwhile."""
    try:
        charge_what_left(context)
    except BudgetExceededError as error:
        log.error("not_charged", job=context.job, code=error.code, what=error.message)
        return False
    return True


def _valid_receipts(context: JobContext) -> list[records.Receipt]:
    """Every valid countersignature of a member's head, others' too: a peer keeps what an owner may delete."""
    state = context.state
    receipts = []
    for post in state.roster_posts(PostKind.RECEIPTS):
        for receipt in post.content(Receipts).receipts:
            head = state.post(PostKind.HEAD, receipt.silo)
            if head is None or head.content(LedgerHead) != LedgerHead(seq=receipt.seq, hash=receipt.hash):
                continue
            kept = records.Receipt(
                job=context.job,
                silo=receipt.silo,
                by=post.sender,
                head_seq=receipt.seq,
                head_hash=receipt.hash,
                signature=receipt.signature,
            )
            try:
                signed = signed_bytes("receipt", kept.statement())
                context.site.identity_of(post.sender).verify(signed, kept.signature)
            except SignatureError as error:
                log.error("receipt_refused", job=context.job, code=error.code, what=error.message)
                continue
            receipts.append(kept)
    return receipts


def _receipt_bytes(job: str, silo: str, posted: LedgerHead, *, by: str) -> bytes:
    return signed_bytes(
        "receipt", {"job": job, "silo": silo, "seq": posted.seq, "hash": posted.hash, "by": by}
    )
