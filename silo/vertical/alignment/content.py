"""The legs that align people: lists blinded in turn, then slots."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from federation.legs.legs import SLOT_BYTES, Leg, LegPurpose, alignment_of, origin
from privacy.agreement import pepper
from silo.jobs.context import JobContext
from silo.jobs.leg_contents import LegContentError
from silo.vertical.alignment import tasks as alignment_tasks
from silo.vertical.kept import Kept
from silo.vertical.secrets import (
    BLINDING,
    as_content_error,
    dataset_of,
    make_secret,
    spine_of,
    stored_secret,
)


class AlignmentContent:
    """Lists of people on their way round the ring, and the slots that the coordinator gives in exchange."""

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        """In the first hop this silo's own list; later what came last, under this silo's layer."""
        kept = Kept(context)
        if leg.purpose is LegPurpose.BLINDED:
            secret = stored_secret(context, BLINDING)
            last = kept.list_after(context.state.plan.num_silos - 1)
            await asyncio.to_thread(_write_finished, secret, context.job_id, last, target)
        elif leg.index == 1:
            _, group_key = context.secrets()
            task = alignment_tasks.OwnListTask(
                directory=context.site.directory,
                plan=context.state.plan,
                dataset=dataset_of(context),
                me=context.me,
                pepper=pepper(group_key, context.job_id),
                secret=make_secret(context, BLINDING),
                run=context.job_id,
                people=kept.people,
                target=target,
            )
            remarks = await context.worker.run(alignment_tasks.blind_own, task)
            if remarks:
                context.site.remember_remarks(context.job, remarks)
        else:
            await asyncio.to_thread(shutil.copyfile, kept.list_after(leg.index - 1), target)

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        """Put this silo's layer on a peer's list, or keep the slots."""
        kept = Kept(context)
        for sender, path in received.items():
            if leg.purpose is LegPurpose.SLOTS:
                await asyncio.to_thread(_check_slots, context, path)
                path.replace(kept.slots)
                continue
            owner = origin(context.state.plan, leg, sender)
            task = alignment_tasks.LayerTask(
                source=path,
                target=kept.list_after(leg.index),
                count=alignment_of(context.state.plan).capacities[owner],
                secret=stored_secret(context, BLINDING),
                run=context.job_id,
                sender=sender,
            )
            with as_content_error(sender):
                await context.worker.run(alignment_tasks.put_layer, task)

    async def conclude(self, context: JobContext) -> None:
        """Leave nothing: lists, people and slots go with the job."""


def slots_task(context: JobContext) -> alignment_tasks.SlotsTask:
    """Where everybody of this silo stands."""
    kept = Kept(context)
    return alignment_tasks.SlotsTask(
        people=kept.people,
        slots=kept.slots,
        capacity=alignment_of(context.state.plan).capacities[context.me],
        secret=stored_secret(context, BLINDING),
        run=context.job_id,
    )


def _write_finished(secret: bytes, run: str, last: Path, target: Path) -> None:
    """This silo's veil, then the list that it was the last to blind: for the coordinator alone."""
    from privacy.alignment.blinding import Blinding

    target.write_bytes(Blinding(secret, run).veil() + last.read_bytes())


def _check_slots(context: JobContext, path: Path) -> None:
    """Every place has a slot of its own on the spine, or none where only common people have one.

    Raises:
        LegContentError: another number of slots, one beyond the spine, or one given twice.
    """
    from privacy.alignment.spine import NO_SLOT

    terms, spine_slots = alignment_of(context.state.plan), spine_of(context)
    content = path.read_bytes()
    slots = np.frombuffer(content[: len(content) // SLOT_BYTES * SLOT_BYTES], dtype="<u8")
    given = slots[slots != NO_SLOT]
    is_whole = len(content) == terms.capacities[context.me] * SLOT_BYTES
    is_full = terms.reveal == "both" or given.size == slots.size
    if not (is_whole and is_full and (given < spine_slots).all() and np.unique(given).size == given.size):
        raise LegContentError("slots that are none of this spine", where=context.state.coordinator)
