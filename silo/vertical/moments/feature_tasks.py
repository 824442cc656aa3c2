"""A feature silo's worker: its basis and everybody's numbers, and the encrypted sums over the spine.

The sums live in this process alone. A process that died makes them anew from the blocks, which stay on the
disk until what is made from them is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from federation.legs.legs import block_slots
from policies.files import write_atomically
from policies.plans.plan import Plan
from policies.plans.vertical.price import basis_event, moments_event
from policies.silo_policy import Dataset
from privacy.errors import DeniedError
from privacy.moments import BasisError, Features, GramNoise, private_basis, public_basis
from silo.data.catalogue import Catalogue
from silo.models.features import public_basis as public_item_basis
from silo.tensor_files import load_tables, save_tables
from silo.vertical.alignment.people import on_spine
from silo.vertical.alignment.tasks import SlotsTask, slots_of_people
from silo.vertical.artefacts import feature_columns, save_basis
from silo.vertical.columns import MAX_COLUMNS, feature_interactions
from silo.vertical.joint.model import Matrix
from silo.vertical.moments.files import cross_moments, moments_shape, read_block, write_moments

if TYPE_CHECKING:
    from privacy.encryption.crossmoments.feature import FeatureHalf

FEATURES_KIND = "archipel-spine-features/v1"


class PublicBasisError(DeniedError):
    """A plan asks for public item vectors that this silo does not have: the job's policy names none."""

    code = "public_basis"


class NoBasisError(DeniedError):
    """Under its noise a silo's rows give no basis; the noise was drawn once, so the job ends."""

    code = "no_basis"


@dataclass(frozen=True)
class BasisTask:
    """What is needed to fix a feature silo's rows, and to draw the noise of their Gram.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: from the policy.
        me: this silo.
        spine_slots: as matched.
        slots: where everybody stands.
        features: kept file of basis, Gram and numbers.
        failed: kept file that says that the noise was drawn and no basis came of it.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    me: str
    spine_slots: int
    slots: SlotsTask
    features: Path
    failed: Path


@dataclass(frozen=True)
class SumsTask:
    """What is needed to add encrypted blocks, or to return their sums.

    Attributes:
        job_directory: the job's, under which this process keeps the sums.
        plan: the job's.
        me: this silo.
        spine_slots: as matched.
        public_key: kept file.
        features: kept file.
        blocks: kept files of all blocks so far, the first one first.
    """

    job_directory: Path
    plan: Plan
    me: str
    spine_slots: int
    public_key: Path
    features: Path
    blocks: tuple[Path, ...]


@dataclass
class Sums:
    """The sums of one job in this process, and how many blocks are in them."""

    half: FeatureHalf
    numbers: Matrix
    num_blocks: int = 0


_SUMS: dict[Path, Sums] = {}


def fix_features(task: BasisTask) -> None:
    """Read the rows, draw the Gram's noise, make the basis, put everybody's numbers on the spine; once.

    Raises:
        NoBasisError: under the noise there is no basis of so many dimensions. Trying again until there is one
            would look at the rows as often, for the price of once.
        PublicBasisError: see there.
        DataError: the tables cannot be read.
    """
    if task.features.exists():
        return
    if task.failed.exists():
        raise NoBasisError(
            "under its noise this silo's rows gave no basis", remedy="propose a plan of a larger epsilon"
        )
    people, slots = slots_of_people(task.slots)
    interactions = feature_interactions(task.directory, task.plan, task.dataset)
    rows = feature_columns(people.rows_of(interactions), interactions, task.dataset)
    try:
        made = _basis(task, rows)
    except BasisError as error:
        write_atomically(task.failed, b"")  # durable before anybody can notice
        raise NoBasisError(error.message, remedy=error.remedy) from error
    numbers = on_spine(made.project(rows), slots, task.spine_slots)
    tables = {"basis": made.basis, "gram": made.gram, "numbers": numbers}
    save_tables(task.features, FEATURES_KIND, tables, {})


def absorb(task: SumsTask) -> None:
    """Add every block that is not in the sums yet.

    Raises:
        FrameError: a block's bytes, or the key's, are none.
    """
    sums = _SUMS.pop(task.job_directory, None) or _begin(task)
    step = block_slots(task.plan)
    for path in task.blocks[sums.num_blocks :]:
        start = sums.num_blocks * step
        numbers = sums.numbers[start : start + step]
        sums.half.absorb(read_block(path, len(numbers), where=task.plan.leader), numbers)
        sums.num_blocks += 1
    _SUMS[task.job_directory] = sums  # only whole blocks: what ended early is begun anew


def release(task: SumsTask, target: Path) -> None:
    """Add the noise and write what the label silo gets: the noised Gram and the noised sums.

    Raises:
        FrameError: a block's bytes are none.
        MomentsShapeError: a block is missing.
    """
    from privacy.encryption.crossmoments.noise import MomentsNoiseSource

    absorb(task)
    sums = _SUMS.pop(task.job_directory)
    noise = MomentsNoiseSource(moments_event(task.plan), sums.half.shape)
    tables, _ = load_tables(task.features, FEATURES_KIND)
    write_moments(target, tables["gram"], sums.half.release(noise).frames)


def keep_basis(features: Path, target: Path) -> None:
    """Write what is needed to serve people later."""
    tables, _ = load_tables(features, FEATURES_KIND)
    save_basis(target, tables["basis"])


def forget(job_directory: Path) -> None:
    """Drop the sums of a job that has ended."""
    _SUMS.pop(job_directory, None)


def _begin(task: SumsTask) -> Sums:
    from privacy.encryption.crossmoments.feature import FeatureHalf

    tables, _ = load_tables(task.features, FEATURES_KIND)
    shape = moments_shape(task.plan, task.spine_slots, task.me)
    half = FeatureHalf(shape, task.public_key.read_bytes(), where=task.plan.leader)
    return Sums(half, tables["numbers"])


def _basis(task: BasisTask, rows: Matrix) -> Features:
    """The basis that the plan asks for, with one noised Gram."""
    model = cross_moments(task.plan)
    terms = task.plan.roles.features[task.me] if task.plan.roles else None
    noise = GramNoise(basis_event(task.plan), rows_per_person=terms.rows_per_unit if terms else 1)
    if model.basis == "public":
        return public_basis(_public_vectors(task, model.dimensions), rows, noise)
    return private_basis(noise.noised_gram(rows), model.dimensions)


def _public_vectors(task: BasisTask, dimensions: int) -> Matrix:
    item_list = task.dataset.item_list
    items = Catalogue.load(task.directory / item_list) if item_list else None
    if items is None or len(items) > MAX_COLUMNS:
        raise PublicBasisError(
            f"a public basis needs a public list of at most {MAX_COLUMNS} items",
            where="item_list",
            remedy="name one in the policy's dataset, or ask for a plan with basis: dp_pca",
        )
    vectors: Matrix = np.asarray(public_item_basis(items, dimensions))
    return vectors
