"""A silo that was away comes back; one that opened something else than all others opens it again."""

from __future__ import annotations

import structlog

from federation.messages import Envelope, PostKind, Repaired, Return
from federation.steps import Step
from privacy.errors import TrustError
from privacy.securesum import SumRejectedError
from silo.jobs.aggregates import bring_up_to_date, fetch_sum, forget_opening, open_sum_of
from silo.jobs.context import JobContext
from silo.jobs.contribute import burn
from silo.jobs.records import charge_what_left
from silo.jobs.start import check_expiries

log = structlog.get_logger("silo")


async def come_back(context: JobContext) -> Envelope:
    """Replay every sum that was opened without this silo, then say that it takes part again.

    Its people may have been in those sums, through another silo: that is charged first. Said only when it is
    true: the others count on this silo's contribution from the next attempt on.
    """
    if stored := context.said(PostKind.RETURN, in_round=True):
        return stored
    check_expiries(context)
    charge_what_left(context)
    await bring_up_to_date(context, len(context.state.opened))
    return context.say(Return(), Step.RETURN_STORED, in_round=True)


async def repair(context: JobContext) -> Envelope:
    """Fetch the sum again, open it again, and compare with what all others signed; recorded either way.

    The trained state is replayed as well: whatever altered the integers may have altered it. If the integers
    still differ, the attempt is burned.
    """
    if stored := context.said(PostKind.REPAIRED, in_round=True):
        return stored
    round_, attempt = context.at
    opened = context.state.opened_digests(round_, attempt)
    (agreed,) = {digest for silo, digest in opened.items() if silo != context.me}
    forget_opening(context, round_, attempt)
    await context.worker.forget_state(context.directory)
    await fetch_sum(context, round_, attempt)
    try:
        digest = (await open_sum_of(context, round_, attempt)).hex()
    except (TrustError, SumRejectedError) as error:
        log.error("sum_rejected", job=context.job, round=round_, code=error.code, what=error.message)
        digest = ""
    if digest != agreed:
        log.error("not_repaired", job=context.job, round=round_, attempt=attempt)
        context.site.remember_repair(context.job, f"round {round_}: opened another sum, twice; burned")
        return burn(context)
    log.warning("repaired", job=context.job, round=round_, attempt=attempt)
    context.site.remember_repair(context.job, f"round {round_}: opened another sum than all others; repaired")
    return context.say(Repaired(digest=digest), Step.REPAIRED_STORED, in_round=True)
