"""A feature silo's worker in a job with a private encoder: train, freeze, release every slot once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.plans.plan import Plan
from policies.plans.vertical.encoder_price import encoder_release_event
from policies.silo_policy import Dataset
from privacy.embedding import EmbeddingNoise
from silo.tensor_files import load_tables, save_tables
from silo.vertical.alignment.tasks import SlotsTask, slots_of_people
from silo.vertical.artefacts import save_basis
from silo.vertical.columns import column_map, feature_interactions
from silo.vertical.encoder.encoding import numbers_of

ENCODER_KIND = "archipel-private-encoder/v1"


@dataclass(frozen=True)
class EncoderTask:
    """What is needed to train an encoder and to release everybody's numbers.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: from the policy.
        me: this silo.
        spine_slots: as matched.
        slots: where everybody stands.
        encoder: kept file of the frozen encoder; trained where it is missing.
        target: file for the noised numbers, slots × k int32, little-endian.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    me: str
    spine_slots: int
    slots: SlotsTask
    encoder: Path
    target: Path


def release_numbers(task: EncoderTask) -> None:
    """Train if that is not done, make everybody's numbers, noise every slot, write.

    What a crash interrupts is drawn anew: nothing of it has left, and it was paid for before.

    Raises:
        EncoderError: rows with more columns than the plan pays for.
        DataError: the tables cannot be read.
    """
    people, slots = slots_of_people(task.slots)
    interactions = feature_interactions(task.directory, task.plan, task.dataset)
    rows = people.rows_of(interactions)
    is_public = task.dataset.item_list is not None
    columns = column_map(interactions.catalogue.item_ids, is_public_list=is_public)
    if not task.encoder.exists():
        from silo.vertical.encoder.training import train_encoder

        trained = train_encoder(task.plan, task.me, rows, interactions.catalogue, columns)
        save_tables(task.encoder, ENCODER_KIND, {"weight": trained.weight}, {})
    tables, _ = load_tables(task.encoder, ENCODER_KIND)
    numbers = numbers_of(rows, columns, tables["weight"])
    terms = task.plan.roles.features[task.me] if task.plan.roles else None
    degree = (terms.max_degree if terms else None) or 0
    noise = EmbeddingNoise(encoder_release_event(task.plan), max_degree=degree)
    released = noise.release(numbers, slots, task.spine_slots)
    task.target.write_bytes(np.ascontiguousarray(released.values, dtype="<i4").tobytes())


def keep_encoder(encoder: Path, target: Path) -> None:
    """Write what is needed to serve people later."""
    tables, _ = load_tables(encoder, ENCODER_KIND)
    save_basis(target, tables["weight"])
