"""The label silo's worker in a job with a private encoder: its models on what feature silos released."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from policies.plans.plan import Plan
from policies.plans.vertical.encoder_price import encoder_release_event, private_encoder
from policies.silo_policy import Dataset
from privacy.embedding import GRID, VALUE_BYTES, vectors_of
from privacy.errors import ProtocolError
from silo.evaluation import NothingToEvaluateError
from silo.rows import load_rows
from silo.vertical.alignment.people import People
from silo.vertical.alignment.tasks import SlotsTask, slots_of_people
from silo.vertical.artefacts import LabelModel
from silo.vertical.encoder.top_files import save_top_model
from silo.vertical.joint.model import FeatureMoments, ItemSide, JointModel, Matrix
from silo.vertical.joint.selection import LabelUsers, random_halves
from silo.vertical.moments.label_tasks import most_frequent, own_weights


class NumbersError(ProtocolError):
    """Bytes of a feature silo that are not numbers of every slot."""

    code = "numbers"


@dataclass(frozen=True)
class TopTask:
    """What is needed to make the label silo's models.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: from the policy.
        spine_slots: as matched.
        slots: where everybody stands.
        numbers: kept file of each partner, in the roster's order.
        joint: file for the closed-form model.
        top: file for the trained one.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    spine_slots: int
    slots: SlotsTask
    numbers: Mapping[str, Path]
    joint: Path
    top: Path


def read_numbers(path: Path, plan: Plan, spine_slots: int, *, where: str | None = None) -> Matrix:
    """Read what a feature silo released: slots × k float64, in units of vectors of norm 1.

    Raises:
        NumbersError: another number of bytes.
    """
    dimensions = private_encoder(plan).dimensions
    expected = spine_slots * dimensions * VALUE_BYTES
    if path.stat().st_size != expected:
        raise NumbersError(
            f"{path.stat().st_size} bytes where {expected} are numbers of {spine_slots} slots", where=where
        )
    return vectors_of(np.fromfile(path, dtype="<i4").astype(np.int32).reshape(spine_slots, dimensions))


def make_models(task: TopTask) -> None:
    """Write the closed-form model on everybody's numbers, and the network trained on them."""
    people, slots = slots_of_people(task.slots)
    rows = people.rows_of(load_rows(task.directory, task.plan, task.dataset).train)
    items = most_frequent(rows, private_encoder(task.plan).label_items)
    chosen = sp.csr_matrix(rows[:, items])
    brought = {
        name: _of_people(read_numbers(path, task.plan, task.spine_slots, where=name), slots)
        for name, path in task.numbers.items()
    }
    model = LabelModel(
        plan=task.plan,
        items=items,
        item_gram=np.asarray((chosen.T @ chosen).toarray(), dtype=np.float64),
        counts=np.diff(sp.csc_matrix(chosen).indptr).astype(np.float64),
        partners={name: _moments(task.plan, name, chosen, numbers) for name, numbers in brought.items()},
        weights=own_weights(task.directory, task.plan, task.dataset, people, items, chosen),
    )
    model.save(task.joint)
    _make_top_model(task, people, model, chosen, np.hstack(list(brought.values())))


def _of_people(numbers: Matrix, slots: npt.NDArray[np.int64]) -> Matrix:
    """Each person's numbers; zeros for whoever has no slot."""
    found = numbers[slots]
    found[slots < 0] = 0.0
    return found


def _moments(plan: Plan, partner: str, rows: sp.csr_matrix, numbers: Matrix) -> FeatureMoments:
    """Moments of what the numbers are without their noise, whose size is known: sessions bring that."""
    has_numbers = int(np.count_nonzero(numbers.any(axis=1)))
    gram = numbers.T @ numbers - has_numbers * _noise_variance(plan, partner) * np.eye(numbers.shape[1])
    values, vectors = np.linalg.eigh(gram)
    positive: Matrix = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return FeatureMoments(np.asarray(rows.T @ numbers, dtype=np.float64), positive)


def _noise_variance(plan: Plan, partner: str) -> float:
    terms = plan.roles.features[partner] if plan.roles else None
    degree = (terms.max_degree if terms else None) or 0
    return encoder_release_event(plan).noise_multiplier ** 2 * (1 + 4 * degree) + 1 / (12 * GRID**2)


def _make_top_model(
    task: TopTask, people: People, model: LabelModel, rows: sp.csr_matrix, numbers: Matrix
) -> None:
    from silo.vertical.encoder.top_model import TopModel, train_top_model, trained_tables

    alone = JointModel(ItemSide.of_gram(model.item_gram, model.weights.item_ridge), (), model.weights)
    held_out = load_rows(task.directory, task.plan, task.dataset).held_out
    wanted = sp.csr_matrix(people.rows_of(held_out)[:, model.items])
    try:
        users = LabelUsers(rows, wanted, random_halves(rows.shape[0], seed=0))
        top = train_top_model(users, alone, numbers)
    except NothingToEvaluateError:
        top = TopModel(alone, trained_tables(rows, numbers))
    save_top_model(task.top, top, people, numbers)
