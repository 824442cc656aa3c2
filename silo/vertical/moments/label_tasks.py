"""The label silo's worker: its rows under its own key, and the joint model of what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from federation.legs.legs import block_slots
from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from silo.evaluation import NothingToEvaluateError
from silo.rows import load_rows
from silo.tensor_files import load_tables, save_tables
from silo.vertical.alignment.people import People, on_spine
from silo.vertical.alignment.tasks import SlotsTask, slots_of_people
from silo.vertical.artefacts import LabelModel, bounded_rows
from silo.vertical.joint.model import FeatureMoments, Weights
from silo.vertical.joint.selection import LabelUsers, choose_alone, random_halves
from silo.vertical.moments.files import cross_moments, moments_shape, read_moments

LABELS_KIND = "archipel-label-rows/v1"
DEFAULT_WEIGHTS = Weights(item_ridge=1e3, normalisation=0.5)
"""Where no rows are held out to choose them by."""


@dataclass(frozen=True)
class LabelKeyTask:
    """What is needed to fix the label silo's rows and make a public key.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: from the policy.
        spine_slots: as matched.
        slots: where everybody stands.
        secret: of the job's CKKS key.
        labels: kept file of the rows.
        target: file for the public key.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    spine_slots: int
    slots: SlotsTask
    secret: bytes
    labels: Path
    target: Path


@dataclass(frozen=True)
class EncryptTask:
    """What is needed to encrypt the rows of one block of the spine.

    Attributes:
        plan: the job's.
        spine_slots: as matched.
        index: of the block, counted from 1.
        secret: of the job's CKKS key.
        labels: kept file of the rows.
        target: file for the ciphertexts; written whole or not at all.
    """

    plan: Plan
    spine_slots: int
    index: int
    secret: bytes
    labels: Path
    target: Path


@dataclass(frozen=True)
class JoinTask:
    """What is needed to open the noised sums and make the joint model.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: from the policy.
        spine_slots: as matched.
        secret: of the job's CKKS key.
        people: kept file of who takes part.
        labels: kept file of the rows.
        moments: kept file of each partner, in the roster's order.
        target: the model.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    spine_slots: int
    secret: bytes
    people: Path
    labels: Path
    moments: dict[str, Path]
    target: Path


def fix_labels(task: LabelKeyTask) -> None:
    """Choose the items, bound every row, keep both, and write a public key.

    Which items and how long rows are is the label silo's own affair: neither leaves it.
    """
    from privacy.encryption.crossmoments.label import LabelHalf

    model = cross_moments(task.plan)
    if not task.labels.exists():
        people, slots = slots_of_people(task.slots)
        rows = people.rows_of(load_rows(task.directory, task.plan, task.dataset).train)
        items = most_frequent(rows, model.label_items)
        bounded = bounded_rows(sp.csr_matrix(rows[:, items]), model.label_norm)
        save_tables(
            task.labels,
            LABELS_KIND,
            {
                "items": items,
                "slots": slots,
                "indptr": bounded.indptr.astype(np.int64),
                "indices": bounded.indices.astype(np.int64),
                "data": bounded.data,
            },
            {},
        )
    shape = moments_shape(task.plan, task.spine_slots, task.plan.silos[1])
    task.target.write_bytes(LabelHalf(shape, task.secret).public_key())


def encrypt_block(task: EncryptTask) -> None:
    """Encrypt a block's rows, each slot afresh, whoever stands there."""
    from privacy.encryption.crossmoments.label import LabelHalf

    shape = moments_shape(task.plan, task.spine_slots, task.plan.silos[1])
    half = LabelHalf(shape, task.secret)
    _, slots, rows = load_labels(task.labels)
    start = (task.index - 1) * block_slots(task.plan)
    end = min(start + block_slots(task.plan), task.spine_slots)
    is_here = (slots >= start) & (slots < end)
    block = on_spine(rows[is_here].toarray(), slots[is_here] - start, end - start)
    part = task.target.with_name(f"{task.target.name}.new")
    with part.open("wb") as file:
        file.writelines(half.encrypt(block))
    part.replace(task.target)


def join(task: JoinTask) -> None:
    """Open what every partner sent, choose the item side's weights on held-out rows, write the model.

    Raises:
        FrameError: a partner's sums are none.
        JointModelError: moments from which no model comes.
    """
    items, _, bounded = load_labels(task.labels)
    people = People.load(task.people)
    model = LabelModel(
        plan=task.plan,
        items=items,
        item_gram=np.asarray((bounded.T @ bounded).toarray(), dtype=np.float64),
        counts=np.diff(sp.csc_matrix(bounded).indptr).astype(np.float64),
        partners={name: _opened(task, name, path) for name, path in task.moments.items()},
        weights=own_weights(task.directory, task.plan, task.dataset, people, items, bounded),
    )
    model.save(task.target)


def load_labels(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], sp.csr_matrix]:
    """Read kept label rows: chosen items, slot of each person (-1 for none), people × items."""
    tables, _ = load_tables(path, LABELS_KIND)
    rows = sp.csr_matrix(
        (tables["data"], tables["indices"], tables["indptr"]),
        shape=(tables["slots"].size, tables["items"].size),
    )
    return tables["items"], tables["slots"], rows


def most_frequent(rows: sp.csr_matrix, count: int) -> npt.NDArray[np.int64]:
    """Return the columns that most people have, ascending."""
    counts = np.asarray(rows.sum(axis=0)).ravel()
    return np.sort(np.argsort(-counts, kind="stable")[:count]).astype(np.int64)


def _opened(task: JoinTask, partner: str, path: Path) -> FeatureMoments:
    """What a partner sent, decrypted; to seven digits, because the rest depends on the key."""
    from privacy.encryption.crossmoments.label import LabelHalf

    shape = moments_shape(task.plan, task.spine_slots, partner)
    gram, frames = read_moments(path, shape, where=partner)
    values = LabelHalf(shape, task.secret).open(frames, where=partner).values
    return FeatureMoments(values.astype(np.float32).astype(np.float64), gram)


def own_weights(
    directory: Path,
    plan: Plan,
    dataset: Dataset,
    people: People,
    items: npt.NDArray[np.int64],
    rows: sp.csr_matrix,
) -> Weights:
    """The best of ridge and EASE for the label silo alone, on half of its held-out rows."""
    wanted = sp.csr_matrix(people.rows_of(load_rows(directory, plan, dataset).held_out)[:, items])
    try:
        users = LabelUsers(rows, wanted, random_halves(rows.shape[0], seed=0))
    except NothingToEvaluateError:
        return DEFAULT_WEIGHTS
    return choose_alone(users).weights
