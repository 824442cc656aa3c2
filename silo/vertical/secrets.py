"""What a silo keeps secret in a vertical job, and how errors of what peers sent end it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from federation.steps import Step, durable
from policies.silo_policy import Dataset
from privacy.errors import ProtocolError
from silo.jobs.context import JobContext
from silo.jobs.leg_contents import LegContentError
from silo.site import JobRecordLostError

BLINDING, MOMENTS_KEY = "blinding", "moments-key"
_NUM_BYTES = {BLINDING: 32, MOMENTS_KEY: 64}


def make_secret(context: JobContext, name: str) -> bytes:
    """A secret of this job, drawn where there is none yet; the same until the job ends."""
    outbox = context.site.outbox
    if outbox.secret(context.job, name) is None:
        with durable(Step.SECRETS_STORED):
            outbox.store_secret(context.job, name, os.urandom(_NUM_BYTES[name]))
    return stored_secret(context, name)


def stored_secret(context: JobContext, name: str) -> bytes:
    """A secret of this job.

    Raises:
        JobRecordLostError: it is gone, and nothing that was made with it can be continued.
    """
    stored = context.site.outbox.secret(context.job, name)
    if stored is None:
        raise JobRecordLostError(f"this silo has lost its {name} of the job")
    return stored


def dataset_of(context: JobContext) -> Dataset:
    """The one dataset that the job may use."""
    return context.site.dataset(context.job, context.authorization)


def spine_of(context: JobContext) -> int:
    """Slots of the matched spine."""
    slots = context.state.spine_slots
    if slots is None:
        raise ProtocolError("a leg after the slots, and no spine")
    return slots


@contextmanager
def as_content_error(sender: str) -> Iterator[None]:
    """What a peer signed and sent is no such content: nobody can mend it by trying again."""
    try:
        yield
    except ProtocolError as error:
        raise LegContentError(error.message, where=sender, remedy=error.remedy) from error
