"""The model a job leaves at this silo: of all its rounds, or of those that were opened before it ended."""

from __future__ import annotations

import json
from functools import partial

from federation.steps import Step, durable
from policies.files import write_atomically
from privacy.events import EventCount
from silo.checkpoints import FILE_NAME as CHECKPOINT_FILE
from silo.finished import MODEL_FILE
from silo.jobs.aggregates import course_of, note_rebuilt, with_sums
from silo.jobs.context import JOB_SECRETS, JobContext
from silo.model_card import model_card
from silo.session import NoNextStateError, SumMissingError
from silo.tasks import ModelTask

CARD_FILE = "model-card.json"


async def write_model(context: JobContext) -> None:
    """Write model, checkpoint and card of every round that was opened.

    Raises:
        NoNextStateError: a round led nowhere; the job ends and :func:`leave_usable_model` takes those before.
    """
    await with_sums(context, partial(_write, context, len(context.state.opened)))


async def leave_usable_model(context: JobContext) -> None:
    """Where a job has ended without a model here, write that of the rounds this silo has, if one trained.

    The coordinator keeps no sums of an ended job, so a silo that was away has fewer rounds than the others;
    the card says how many.
    """
    is_written = context.state.outcome == "completed" and (context.directory / MODEL_FILE).exists()
    is_erased = context.site.outbox.secret(context.job, JOB_SECRETS) is None
    rounds = 0 if is_written or is_erased else len(context.state.opened)
    while num_training_rounds(context, rounds):
        try:
            await _write(context, rounds)
            break
        except (SumMissingError, NoNextStateError) as error:
            rounds = error.round - 1


def num_training_rounds(context: JobContext, rounds: int) -> int:
    """How many of the first ``rounds`` secure sums were rounds of the training."""
    return sum(shape.purpose == "training" for shape in context.state.shapes[:rounds])


async def _write(context: JobContext, rounds: int) -> None:
    course = course_of(context, rounds)
    for repair in await context.worker.catch_up(course):
        note_rebuilt(context, rounds, repair)
    model, checkpoint = context.directory / MODEL_FILE, context.directory / CHECKPOINT_FILE
    events = committed_events(context)
    task = ModelTask(
        course=course,
        model=model.with_name("model.part"),
        checkpoint=checkpoint.with_name("checkpoint.part"),
        events=events,
    )
    with durable(Step.MODEL_WRITTEN):
        built = await context.worker.write_model(task)
        card = model_card(
            context.state,
            context.site.charter.name,
            built,
            events,
            num_opened=num_training_rounds(context, rounds),
        )
        write_atomically(context.directory / CARD_FILE, json.dumps(card, indent=2).encode())
        if built.checkpoint_sha256 is not None:
            with durable(Step.CHECKPOINT_WRITTEN):
                task.checkpoint.replace(checkpoint)
        task.model.replace(model)


def committed_events(context: JobContext) -> tuple[EventCount, ...]:
    """What this silo's ledger has charged for the job."""
    allowances = context.site.ledger.state().jobs[context.job].allowances
    return tuple(EventCount(item.event, item.committed) for item in allowances if item.committed)
