"""The legs that carry moments: a public key, encrypted rows, noised sums.

The label silo encrypts a block while the others take in the one before; a feature silo adds a block while
the next is on its way. A block whose bytes are no ciphertexts shows when the next one comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from federation.legs.legs import Leg, LegPurpose
from privacy.agreement import Purpose
from silo.jobs.context import JobContext
from silo.jobs.start import start_key
from silo.vertical import artefacts
from silo.vertical.alignment.content import slots_task
from silo.vertical.card import write_card
from silo.vertical.kept import Kept
from silo.vertical.merging.keys import save_merge_keys
from silo.vertical.moments import feature_tasks, label_tasks
from silo.vertical.moments import files as moments_files
from silo.vertical.secrets import (
    MOMENTS_KEY,
    as_content_error,
    dataset_of,
    make_secret,
    spine_of,
    stored_secret,
)


class MomentsContent:
    """A public key, the label silo's rows under it, and what each feature silo makes of them."""

    def __init__(self) -> None:
        self._begun: dict[Path, asyncio.Task[None]] = {}

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        """At the label silo the key and blocks, at a feature silo its noised sums."""
        if leg.purpose is LegPurpose.KEY:
            await context.worker.run(label_tasks.fix_labels, _label_key_task(context, target))
        elif leg.purpose is LegPurpose.BLOCK:
            await self._write_block(context, leg, target)
        else:
            await self._finish_begun(context)
            task = _sums_task(context, num_blocks=_num_blocks(context))
            with as_content_error(context.state.leader):
                await context.worker.run(feature_tasks.release, task, target)

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        """Keep what came, and let the worker begin with it."""
        kept = Kept(context)
        if leg.purpose is LegPurpose.MOMENTS:
            for sender, path in received.items():
                shape = moments_files.moments_shape(context.state.plan, spine_of(context), sender)
                with as_content_error(sender):
                    await asyncio.to_thread(moments_files.read_moments, path, shape, where=sender)
                path.replace(kept.moments_of(sender))
            return
        (path,) = received.values()
        if leg.purpose is LegPurpose.KEY:
            path.replace(kept.public_key)
            await context.worker.run(feature_tasks.fix_features, _basis_task(context))
        else:
            await self._finish_begun(context)
            path.replace(kept.block(leg.index))
            task = _sums_task(context, num_blocks=leg.index)
            self._begin(context, context.worker.run(feature_tasks.absorb, task))

    async def conclude(self, context: JobContext) -> None:
        """Leave the joint model at the label silo, a basis at a feature silo, and keys to merge lists."""
        self._begun.pop(context.directory, None)
        if context.me == context.state.leader:
            await context.worker.run(label_tasks.join, _join_task(context))
        else:
            target = context.directory / artefacts.BASIS_FILE
            await context.worker.run(feature_tasks.keep_basis, Kept(context).features, target)
        pairs = context.pair_keys(start_key(context), Purpose.MERGE)
        label = context.state.leader
        save_merge_keys(
            context.directory, {silo: key for silo, key in pairs.items() if label in (silo, context.me)}
        )
        await write_card(context)

    async def _write_block(self, context: JobContext, leg: Leg, target: Path) -> None:
        await self._finish_begun(context)
        ahead = Kept(context).ahead(leg.index)
        if not ahead.exists():
            await context.worker.run(label_tasks.encrypt_block, _encrypt_task(context, leg.index))
        ahead.replace(target)
        if leg.index < leg.count:
            task = _encrypt_task(context, leg.index + 1)
            self._begin(context, context.worker.run(label_tasks.encrypt_block, task))

    def _begin(self, context: JobContext, work: Coroutine[Any, Any, None]) -> None:
        self._begun[context.directory] = asyncio.create_task(work)

    async def _finish_begun(self, context: JobContext) -> None:
        """Wait for what was begun in the last leg. What a crash has ended is simply begun anew."""
        begun = self._begun.pop(context.directory, None)
        if begun is not None:
            with as_content_error(context.state.leader):
                await begun


def _label_key_task(context: JobContext, target: Path) -> label_tasks.LabelKeyTask:
    return label_tasks.LabelKeyTask(
        directory=context.site.directory,
        plan=context.state.plan,
        dataset=dataset_of(context),
        spine_slots=spine_of(context),
        slots=slots_task(context),
        secret=make_secret(context, MOMENTS_KEY),
        labels=Kept(context).labels,
        target=target,
    )


def _encrypt_task(context: JobContext, index: int) -> label_tasks.EncryptTask:
    kept = Kept(context)
    return label_tasks.EncryptTask(
        plan=context.state.plan,
        spine_slots=spine_of(context),
        index=index,
        secret=stored_secret(context, MOMENTS_KEY),
        labels=kept.labels,
        target=kept.ahead(index),
    )


def _basis_task(context: JobContext) -> feature_tasks.BasisTask:
    return feature_tasks.BasisTask(
        directory=context.site.directory,
        plan=context.state.plan,
        dataset=dataset_of(context),
        me=context.me,
        spine_slots=spine_of(context),
        slots=slots_task(context),
        features=Kept(context).features,
        failed=Kept(context).no_basis,
    )


def _sums_task(context: JobContext, *, num_blocks: int) -> feature_tasks.SumsTask:
    kept = Kept(context)
    return feature_tasks.SumsTask(
        job_directory=context.directory,
        plan=context.state.plan,
        me=context.me,
        spine_slots=spine_of(context),
        public_key=kept.public_key,
        features=kept.features,
        blocks=tuple(kept.block(index) for index in range(1, num_blocks + 1)),
    )


def _join_task(context: JobContext) -> label_tasks.JoinTask:
    kept, plan = Kept(context), context.state.plan
    return label_tasks.JoinTask(
        directory=context.site.directory,
        plan=plan,
        dataset=dataset_of(context),
        spine_slots=spine_of(context),
        secret=stored_secret(context, MOMENTS_KEY),
        people=kept.people,
        labels=kept.labels,
        moments={partner: kept.moments_of(partner) for partner in plan.silos[1:]},
        target=context.directory / artefacts.MODEL_FILE,
    )


def _num_blocks(context: JobContext) -> int:
    return context.state.leg.number - context.state.plan.num_silos - 3
