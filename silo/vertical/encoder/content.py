"""The leg that carries numbers of a private encoder: from each feature silo to the label silo, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from federation.legs.legs import Leg
from silo.jobs.context import JobContext
from silo.vertical import artefacts
from silo.vertical.alignment.content import slots_task
from silo.vertical.card import write_card
from silo.vertical.encoder import tasks as encoder_tasks
from silo.vertical.encoder import top_files, top_tasks
from silo.vertical.kept import Kept
from silo.vertical.secrets import as_content_error, dataset_of, spine_of


class EncoderContent:
    """Noised numbers of every slot, and what the label silo makes of them; nothing flows back."""

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:  # noqa: ARG002
        """At a feature silo: train, freeze, release."""
        task = encoder_tasks.EncoderTask(
            directory=context.site.directory,
            plan=context.state.plan,
            dataset=dataset_of(context),
            me=context.me,
            spine_slots=spine_of(context),
            slots=slots_task(context),
            encoder=Kept(context).encoder,
            target=target,
        )
        await context.worker.run(encoder_tasks.release_numbers, task)

    async def read(
        self,
        context: JobContext,
        leg: Leg,  # noqa: ARG002
        received: Mapping[str, Path],
    ) -> None:
        """At the label silo: keep what came."""
        kept = Kept(context)
        for sender, path in received.items():
            with as_content_error(sender):
                await asyncio.to_thread(
                    top_tasks.read_numbers, path, context.state.plan, spine_of(context), where=sender
                )
            path.replace(kept.numbers_of(sender))

    async def conclude(self, context: JobContext) -> None:
        """Leave the models at the label silo, at a feature silo its encoder."""
        kept = Kept(context)
        if context.me != context.state.leader:
            target = context.directory / artefacts.BASIS_FILE
            await context.worker.run(encoder_tasks.keep_encoder, kept.encoder, target)
        else:
            await context.worker.run(top_tasks.make_models, _top_task(context))
        await write_card(context)


def _top_task(context: JobContext) -> top_tasks.TopTask:
    kept, plan = Kept(context), context.state.plan
    return top_tasks.TopTask(
        directory=context.site.directory,
        plan=plan,
        dataset=dataset_of(context),
        spine_slots=spine_of(context),
        slots=slots_task(context),
        numbers={partner: kept.numbers_of(partner) for partner in plan.silos[1:]},
        joint=context.directory / artefacts.MODEL_FILE,
        top=context.directory / top_files.TOP_FILE,
    )
