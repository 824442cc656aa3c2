"""From a proposal to keys that every silo of the roster has proved to hold."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from weakref import WeakValueDictionary

from federation.messages import (
    Acceptance,
    BlobKind,
    BlobRef,
    Envelope,
    Ephemeral,
    Fingerprint,
    Keys,
    PostKind,
)
from federation.steps import Step, durable
from policies.decisions.decision import Authorization, PolicyDeniedError, Reason, authorize, reauthorize
from policies.trust import require_unexpired
from privacy.agreement import EphemeralKey, Purpose, WrapError, key_fingerprint, require_equal, unwrap, wrap
from privacy.errors import ArchipelError, BudgetExceededError, DataError, ProtocolError, UsageError
from silo.checkpoints import CheckpointMissingError
from silo.data.catalogue import MAX_CATALOGUE_BYTES, Catalogue
from silo.extras import MissingExtraError
from silo.jobs.context import GROUP_KEY_BYTES, JOB_SECRETS, START_KEY, JobContext
from silo.language.files import TextEncoderError
from silo.language.store import TextEncoderMissingError
from silo.release import refuse
from silo.rows import ItemListError
from silo.site import JobRecordLostError
from silo.tasks import PrepareTask

MAX_PROPOSAL_AGE = timedelta(days=7)
_FETCHING: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
"""Jobs that are proposed together often rank the same catalogue, and write to one file."""


async def answer(context: JobContext) -> Envelope:
    """Accept the plan exactly as proposed, with its whole cost reserved, or deny it with every reason."""
    outbox, job = context.site.outbox, context.job
    stored = outbox.post(job, PostKind.ACCEPTANCE) or outbox.post(job, PostKind.DENIAL)
    if stored:
        return stored
    try:
        _authorise(context)
        await _check_catalogue(context)
        await _check_model(context)
        authorization = _authorise(context)  # policy, freeze or account may have changed meanwhile
        accepted = _reserve(context, authorization)
    except PolicyDeniedError as denied:
        context.site.remember_denial(job, context.state.plan, [asdict(reason) for reason in denied.reasons])
        envelope = refuse(
            denied, plan_sha256=context.state.plan_sha256, job=job, sender=context.me,
            identity=context.site.party.identity,
        )  # fmt: skip
        with durable(Step.ANSWER_STORED):
            outbox.store_post(envelope)
        return envelope
    return context.say(accepted, Step.ANSWER_STORED)


def _authorise(context: JobContext) -> Authorization:
    """Ask the policy before anything is fetched for somebody; an answer once reserved for stays."""
    site, state = context.site, context.state
    policy, reserved = site.policy_of(context.job), site.ledger.state().jobs.get(context.job)
    if policy is not None and reserved is not None:
        return reauthorize(state.plan, policy, reserved)
    submitted = datetime.fromisoformat(state.proposal.submitted_at)
    if site.now() - submitted > MAX_PROPOSAL_AGE:
        raise PolicyDeniedError((_stale(submitted),))
    law = site.law()
    policy = law.policy
    accounts = site.ledger_state(policy)
    authorization = authorize(
        state.plan,
        policy,
        accounts,
        site.now(),
        charter=site.charter,
        proposer=state.proposer,
        hold=law.hold,
        rosters=site.rosters(policy, accounts),
        recent_alignments=site.recent_alignments(state.plan),
    )
    with durable(Step.TERMS_STORED):
        site.remember_job(context.job, state.plan, policy)
    return authorization


async def _check_catalogue(context: JobContext) -> None:
    """Fetch what the plan ranks, and count it: every size of the job is derived from that number."""
    if context.state.proposal.catalogue_bytes > MAX_CATALOGUE_BYTES:
        raise PolicyDeniedError((_other_catalogue("more bytes than a catalogue may have", "a smaller one"),))
    path, wanted = await fetch_catalogue(context), context.state.plan.catalogue.items
    found = len(Catalogue.load(path, context.state.plan.catalogue.sha256))
    if found != wanted:
        raise PolicyDeniedError((_other_catalogue(f"{wanted} items", f"the {found} that its file has"),))


async def _check_model(context: JobContext) -> None:
    """Try the model before anything is reserved: a round may be paid for before the first step is taken.

    A plan that starts from earlier weights needs the very same file in every silo; nobody sends it.
    """
    wanted = getattr(context.state.plan.model, "start_from", None)
    try:
        await _prepare(context)
    except UsageError as error:
        raise PolicyDeniedError((_untrainable(error),)) from error
    except (ItemListError, TextEncoderError, TextEncoderMissingError, MissingExtraError) as error:
        raise PolicyDeniedError((_no_own_items(error),)) from error
    except DataError as error:
        if wanted is None:
            raise
        missing = isinstance(error, CheckpointMissingError)
        code = CheckpointMissingError.code if missing else "checkpoint_mismatch"
        found = "not here" if missing else error.message
        remedy = "archipel silo checkpoint add FILE" if missing else "propose a plan that fits the checkpoint"
        raise PolicyDeniedError(
            (Reason(code, "model.start_from", found, f"the checkpoint {wanted[:16]}…", remedy),)
        ) from error


async def _prepare(context: JobContext) -> None:
    await fetch_catalogue(context)
    if context.state.plan.is_vertical:
        return  # nothing is built before people are aligned
    await context.worker.prepare(PrepareTask(context.site.directory, context.directory, context.state.plan))


def _untrainable(error: UsageError) -> Reason:
    remedy = "propose another model, or a catalogue of which more is public"
    return Reason("model_untrainable", "model", error.message, "a model that learns from its users", remedy)


def _no_own_items(error: ArchipelError) -> Reason:
    remedy = "take the remedy of this code at that silo (docs/reference-errors.md)"
    return Reason(error.code, "catalogue", error.message, "an item list and a text encoder", remedy)


def _stale(submitted: datetime) -> Reason:
    return Reason(
        "proposal_stale", "submitted_at", submitted.isoformat(), f"within {MAX_PROPOSAL_AGE.days} days",
        "propose the plan anew",
    )  # fmt: skip


def _other_catalogue(found: str, allowed: str) -> Reason:
    return Reason("catalogue_mismatch", "catalogue", found, allowed, "make the plan with plan new")


def _reserve(context: JobContext, authorization: Authorization) -> Acceptance:
    site, state = context.site, context.state
    with durable(Step.RESERVED):
        try:
            site.ledger.reserve(
                account=authorization.account,
                job=context.job,
                dataset=authorization.dataset,
                plan_sha256=authorization.plan_sha256,
                policy_sha256=authorization.policy_sha256,
                requested_by=state.proposer,
                events=authorization.events,
            )
        except BudgetExceededError as error:
            raise PolicyDeniedError.from_budget(error) from error
    return Acceptance(
        plan_sha256=authorization.plan_sha256,
        policy_sha256=authorization.policy_sha256,
        policy_version=authorization.policy_version,
    )


async def fetch_catalogue(context: JobContext) -> Path:
    """The plan's catalogue in ``catalogues/``, fetched where it is missing; whoever reads it checks it."""
    wanted = context.state.plan.catalogue
    directory = context.site.directory / "catalogues"
    directory.mkdir(exist_ok=True)
    path = directory / f"{wanted.sha256}.jsonl"
    one_at_a_time = _FETCHING.setdefault(path, asyncio.Lock())
    async with one_at_a_time:
        if not path.exists():
            ref = BlobRef(job=context.job, kind=BlobKind.CATALOGUE, sender=context.state.proposer)
            num_bytes = context.state.proposal.catalogue_bytes
            with durable(Step.CATALOGUE_FETCHED):
                await context.connection.download(ref, path, sha256=wanted.sha256, num_bytes=num_bytes)
    return path


async def start(context: JobContext) -> Envelope:
    """Post the ephemeral key of the job's start; what takes long to build is built before any round waits."""
    if stored := context.said(PostKind.EPHEMERAL):
        return stored
    await _prepare(context)
    outbox = context.site.outbox
    if outbox.secret(context.job, START_KEY) is None:
        with durable(Step.START_KEY_STORED):
            outbox.store_secret(context.job, START_KEY, EphemeralKey.generate().private_bytes())
    key = EphemeralKey.from_bytes(start_key(context))
    return context.say(context.ephemeral_body(key, os.urandom(32)), Step.START_STORED)


async def wrap_keys(context: JobContext) -> Envelope:
    """The leader makes the job's keys and seals them to each other silo; a vertical job has no BFV key."""
    if stored := context.said(PostKind.KEYS):
        return stored
    check_expiries(context)
    outbox = context.site.outbox
    if outbox.secret(context.job, JOB_SECRETS) is None:
        is_vertical = context.state.plan.is_vertical
        secret = b"" if is_vertical else await context.worker.make_secret_key()
        with durable(Step.SECRETS_STORED):
            outbox.store_secret(context.job, JOB_SECRETS, secret + os.urandom(GROUP_KEY_BYTES))
    secrets = b"".join(context.secrets())
    keys = context.pair_keys(start_key(context), Purpose.WRAP)
    wrapped = {
        peer: base64.b64encode(wrap(key, secrets, _wrap_context(context, peer))).decode()
        for peer, key in keys.items()
    }
    return context.say(Keys(wrapped=wrapped), Step.KEYS_STORED)


async def fingerprint(context: JobContext) -> Envelope:
    """Unwrap the job's secrets and prove to each peer that this silo holds them."""
    if stored := context.said(PostKind.FINGERPRINT):
        return stored
    check_expiries(context)
    private = start_key(context)
    if context.me != context.state.leader:
        posted = context.state.post(PostKind.KEYS, context.state.leader)
        if posted is None:
            raise ProtocolError("the leader's keys are not on the board")
        wrapped = base64.b64decode(posted.content(Keys).wrapped[context.me])
        key = context.pair_keys(private, Purpose.WRAP)[context.state.leader]
        secrets = unwrap(key, wrapped, _wrap_context(context, context.me))
        await _check_secrets(context, secrets)
        with durable(Step.SECRETS_STORED):
            context.site.outbox.store_secret(context.job, JOB_SECRETS, secrets)
    macs = {peer: mac.hex() for peer, mac in _fingerprints(context, sender=context.me).items()}
    return context.say(Fingerprint(macs=macs), Step.FINGERPRINT_STORED)


async def _check_secrets(context: JobContext, secrets: bytes) -> None:
    """What the leader wrapped is what a job of this kind has.

    Raises:
        WrapError: a vertical job's secrets are not a group key alone.
    """
    if not context.state.plan.is_vertical:
        await context.worker.check_secret_key(secrets[:-GROUP_KEY_BYTES])
    elif len(secrets) != GROUP_KEY_BYTES:
        raise WrapError("the leader wrapped something else than the job's group key")


def check_fingerprints(context: JobContext) -> None:
    """Every silo of the roster has proved to this one that it holds the same secrets.

    Raises:
        DisagreementError: one holds others.
    """
    keys = context.pair_keys(start_key(context), Purpose.FINGERPRINT)
    secrets = b"".join(context.secrets())
    for post in context.state.roster_posts(PostKind.FINGERPRINT):
        if post.sender != context.me:
            expected = key_fingerprint(keys[post.sender], context.job_id, post.sender, secrets)
            received = bytes.fromhex(post.content(Fingerprint).macs[context.me])
            require_equal(expected, received, sender=post.sender)


def check_expiries(context: JobContext) -> None:
    """No silo of the roster takes part under an expired policy, and the charter is in force.

    Raises:
        ExpiredError: one does.
    """
    now = context.site.now()
    require_unexpired("charter", context.site.charter.expires, now)
    for post in context.state.roster_posts(PostKind.EPHEMERAL):
        require_unexpired(f"policy of {post.sender}", post.content(Ephemeral).expires, now)


def _fingerprints(context: JobContext, *, sender: str) -> dict[str, bytes]:
    keys = context.pair_keys(start_key(context), Purpose.FINGERPRINT)
    secrets = b"".join(context.secrets())
    return {peer: key_fingerprint(key, context.job_id, sender, secrets) for peer, key in keys.items()}


def start_key(context: JobContext) -> bytes:
    """The private key that this silo made for the job's start.

    Raises:
        JobRecordLostError: it is gone.
    """
    private = context.site.outbox.secret(context.job, START_KEY)
    if private is None:
        raise JobRecordLostError("this silo has lost its job-start key")
    return private


def _wrap_context(context: JobContext, receiver: str) -> bytes:
    return f"{context.job_id}\0{context.state.leader}\0{receiver}".encode()
