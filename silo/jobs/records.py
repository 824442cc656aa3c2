"""Does this silo's disk know what this silo has said? After a restore from a backup it may not."""

from __future__ import annotations

from federation.messages import PostKind
from federation.rounds import Phase
from silo.jobs.context import JobContext
from silo.site import JobRecordLostError, RecordLostError

_OF_JOB = (PostKind.ACCEPTANCE, PostKind.EPHEMERAL, PostKind.KEYS, PostKind.FINGERPRINT)
_KEYS_ARE_NEEDED = frozenset(Phase) - {Phase.PROPOSED, Phase.CLOSING, Phase.WITNESSING, Phase.ENDED}


def check_records(context: JobContext) -> None:
    """Compare this silo's posts of the job's start and of the current attempt with its outbox.

    A silo that says something at a place must be able to repeat it: otherwise another contribution could go
    out under the same masks.

    Raises:
        JobRecordLostError: a post of the job's start is unknown here; its keys are gone with it.
        RecordLostError: one of the current attempt is.
    """
    state = context.state
    if state.phase not in _KEYS_ARE_NEEDED:
        return
    for place, envelope in state.posts.items():
        of_attempt = state.round > 0 and (place.round, place.attempt) == context.at
        of_job = place.round == 0 and place.kind in _OF_JOB
        if place.sender != context.me or not (of_attempt or of_job):
            continue
        if context.site.outbox.post(context.job, place.kind, place.round, place.attempt) != envelope:
            lost = JobRecordLostError if of_job else RecordLostError
            raise lost(f"the board shows a {place.kind} of this silo that its outbox does not know")
