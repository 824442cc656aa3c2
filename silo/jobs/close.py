"""The end of a job: the model, the ledger's head under everybody's eyes, and nothing secret left."""

from __future__ import annotations

import json

import structlog

from federation.messages import Envelope, LedgerHead, PostKind, Receipt, Receipts
from federation.steps import Step, durable
from policies.canonical import signed_bytes
from policies.files import write_atomically
from policies.signing import SignatureError
from privacy.ledger import records
from silo.jobs.aggregates import open_aggregates
from silo.jobs.context import JobContext
from silo.jobs.records import charge_what_left
from silo.model_card import model_card
from silo.worker import ModelTask

log = structlog.get_logger("silo")


async def head(context: JobContext) -> Envelope:
    """Write the model, give back what was reserved and not used, and post where the ledger stands."""
    if stored := context.said(PostKind.HEAD):
        return stored
    await _write_model(context)
    charge_what_left(context)
    with durable(Step.REST_RELEASED):
        context.site.ledger.release_rest(context.job)
    current = context.site.ledger.head()
    return context.say(LedgerHead(seq=current.seq, hash=current.hash), Step.HEAD_STORED)


async def _write_model(context: JobContext) -> None:
    state, target = context.state, context.directory / "model.safetensors"
    part = target.with_name("model.part")
    has_metrics = state.opened_attempt(state.num_rounds) is not None  # a burned metrics sum is not repeated
    task = ModelTask(
        directory=context.site.directory,
        plan=state.plan,
        aggregates=await open_aggregates(
            context, state.num_rounds if has_metrics else state.plan.training.rounds
        ),
        target=part,
    )
    with durable(Step.MODEL_WRITTEN):
        built = await context.worker.write_model(task)
        card = model_card(state, context.site.charter.name, built.facts, built.epsilon_pld)
        if built.metrics is not None:
            card["metrics"] = built.metrics
        write_atomically(context.directory / "model-card.json", json.dumps(card, indent=2).encode())
        part.replace(target)


async def countersign(context: JobContext) -> Envelope:
    """Sign every other member's ledger head."""
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
    """File the receipts, release what is left of the reservation, erase every secret of the job."""
    site, job = context.site, context.job
    if job in site.ledger.state().jobs:
        charge_what_left(context)
        site.ledger.release_rest(job)
        receipts = _valid_receipts(context)
        if receipts:
            with durable(Step.WITNESSED):
                site.ledger.witness(job, receipts)
            text = json.dumps([item.model_dump(mode="json") for item in receipts], indent=2)
            write_atomically(context.directory / "receipts.json", text.encode())
    with durable(Step.SECRETS_ERASED):
        site.outbox.erase_secrets(job)
        for path in (*context.directory.glob("aggregate-*"), *context.directory.glob("model.part*")):
            path.unlink()


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
