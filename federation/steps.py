"""Every durable step of a job by name, and the point at which a test may kill the process.

A step is something that must be on the disk before the next thing happens. ``tests/e2e`` kills agent and
coordinator before and after each member of :class:`Step`, the simulator at those of long trainings too
(``TRAINING_STEPS``), ``tests/faults/test_leg_crashes.py`` at those of legs (``LEG_STEPS``), so a new durable
step is a new member here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

FAILPOINT_VARIABLE = "ARCHIPEL_FAILPOINT"


class Step(StrEnum):
    """Durable steps, each side's in the order in which a job takes them."""

    # the coordinator's
    POST_STORED = "post-stored"
    BLOB_COMPLETED = "blob-completed"
    SUM_WRITTEN = "sum-written"
    SUM_POSTED = "sum-posted"
    END_POSTED = "end-posted"
    SPOOL_ERASED = "spool-erased"
    # a silo's
    TERMS_STORED = "terms-stored"
    CATALOGUE_FETCHED = "catalogue-fetched"
    RESERVED = "reserved"
    ANSWER_STORED = "answer-stored"
    START_KEY_STORED = "start-key-stored"
    START_STORED = "start-stored"
    SECRETS_STORED = "secrets-stored"
    KEYS_STORED = "keys-stored"
    FINGERPRINT_STORED = "fingerprint-stored"
    CHARGED = "charged"
    CONTRIBUTION_STORED = "contribution-stored"
    MASK_KEY_STORED = "mask-key-stored"
    EPHEMERAL_STORED = "ephemeral-stored"
    STREAM_WRITTEN = "stream-written"
    STREAM_STORED = "stream-stored"
    STREAM_UPLOADED = "stream-uploaded"
    SUM_FETCHED = "sum-fetched"
    RECEIVED_STORED = "received-stored"
    AGGREGATE_STORED = "aggregate-stored"
    OPENED_STORED = "opened-stored"
    MODEL_WRITTEN = "model-written"
    REST_RELEASED = "rest-released"
    HEAD_STORED = "head-stored"
    RECEIPTS_STORED = "receipts-stored"
    WITNESSED = "witnessed"
    SECRETS_ERASED = "secrets-erased"
    JOB_FINISHED = "job-finished"
    # a silo's, where there are several rounds
    COIN_TOSSED = "coin-tossed"
    STATE_STORED = "state-stored"
    CHECKPOINT_WRITTEN = "checkpoint-written"
    # a silo's, where there are legs
    LEG_WRITTEN = "leg-written"
    LEG_STORED = "leg-stored"
    PARCEL_FETCHED = "parcel-fetched"
    PARCEL_READ = "parcel-read"
    PARCEL_STORED = "parcel-stored"
    APPROVAL_STORED = "approval-stored"
    # the coordinator's, where there are legs
    RELAYED_POSTED = "relayed-posted"
    SLOTS_WRITTEN = "slots-written"
    MATCHED_POSTED = "matched-posted"
    # a silo's, where an attempt goes wrong
    FAILED_STORED = "failed-stored"
    BURN_STORED = "burn-stored"
    RETURN_STORED = "return-stored"
    REPAIRED_STORED = "repaired-stored"


_ALL = tuple(Step)
COORDINATOR_STEPS = _ALL[: _ALL.index(Step.TERMS_STORED)]
LEG_STEPS = _ALL[_ALL.index(Step.LEG_WRITTEN) : _ALL.index(Step.FAILED_STORED)]
TROUBLE_STEPS = tuple(step for step in _ALL[_ALL.index(Step.COIN_TOSSED) :] if step not in LEG_STEPS)
TRAINING_STEPS = (Step.STATE_STORED, Step.CHECKPOINT_WRITTEN, Step.RETURN_STORED, Step.REPAIRED_STORED)
LEADER_STEPS = (Step.KEYS_STORED,)
SILO_STEPS = tuple(step for step in _ALL if step not in (*COORDINATOR_STEPS, *TROUBLE_STEPS, *LEG_STEPS))


@contextmanager
def durable(step: Step) -> Iterator[None]:
    """Mark the block that makes ``step`` durable."""
    _failpoint("before", step)
    yield
    _failpoint("after", step)


def _failpoint(when: str, step: Step) -> None:
    """Die as by ``kill -9`` where the test said so: a process can only name itself."""
    if os.environ.get(FAILPOINT_VARIABLE) == f"{when}:{step}":
        os.kill(os.getpid(), signal.SIGKILL)
