"""Does this silo's disk know what this silo has said? After a restore from a backup it may not."""

from __future__ import annotations

from federation.legs.legs import leg_at, price_of
from federation.messages import PostKind
from federation.rounds import JobState, Phase
from privacy.events import Event
from silo.jobs.context import JobContext
from silo.site import JobRecordLostError, RecordLostError

_LEFT = (PostKind.EPHEMERAL, PostKind.STREAM)
_OF_JOB = (PostKind.ACCEPTANCE, PostKind.EPHEMERAL, PostKind.KEYS, PostKind.FINGERPRINT)
_KEYS_ARE_NEEDED = frozenset(Phase) - {Phase.PROPOSED, Phase.CLOSING, Phase.WITNESSING, Phase.ENDED}


def charge_what_left(context: JobContext) -> None:
    """Charge every attempt in which this silo's people may have been released, here or elsewhere.

    Of what this silo has posted, all is charged already, unless the ledger was restored from a backup: then
    it does not know what has left, and must before anything is given back.

    Raises:
        ChargeRefusedError: the restored ledger does not even know the reservation.
        BudgetExceededError: the budget was lowered meanwhile, and this does not fit any more.
    """
    for round_, attempt in places_that_left(context.state, context.me):
        for event in _events_at(context, round_):
            context.site.ledger.commit(context.job, round=round_, attempt=attempt, event=event)


def _events_at(context: JobContext, round_: int) -> tuple[Event, ...]:
    """What an attempt costs, or a leg: nothing, where it has no price."""
    state = context.state
    if not state.plan.is_vertical:
        return (state.shapes[round_ - 1].event,)
    event = price_of(state.plan, leg_at(state.plan, round_, state.spine_slots), context.me)
    return () if event is None else (event,)


def places_that_left(state: JobState, silo: str) -> tuple[tuple[int, int], ...]:
    """The (round, attempt) of which the board shows that people of ``silo`` may be in a contribution.

    Its own ones; in a vertical job what its legs sent or, of what was made from what they brought, may send.
    Where the plan says that one person may be in several silos, those of every silo: whoever is
    in two was released by the other while this one was absent, and card and account speak of that person.
    """
    if state.plan.is_vertical:
        said = (PostKind.STREAM, PostKind.RECEIVED)
        return tuple(
            sorted({(at.round, at.attempt) for at in state.posts if at.sender == silo and at.kind in said})
        )
    is_shared = state.plan.privacy.max_silos_per_user > 1
    left = {
        (place.round, place.attempt)
        for place in state.posts
        if place.round > 0 and place.kind in _LEFT and (is_shared or place.sender == silo)
    }
    return tuple(sorted(left))


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
            ends_job = of_job or state.plan.is_vertical  # a leg has one attempt
            lost = JobRecordLostError if ends_job else RecordLostError
            raise lost(f"the board shows a {place.kind} of this silo that its outbox does not know")
