"""The worker's part of an alignment: reads who is here, and multiplies points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from federation.legs.legs import alignment_of
from policies.files import write_atomically
from policies.plans.plan import Plan
from policies.plans.vertical.price import entry_epsilon
from policies.silo_policy import Dataset
from silo.rows import load_rows
from silo.vertical.alignment.people import People
from silo.vertical.alignment.shards import sharded
from silo.vertical.columns import feature_interactions


@dataclass(frozen=True)
class OwnListTask:
    """What is needed to blind this silo's own list.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: whose people take part.
        me: this silo.
        pepper: of the job.
        secret: of this silo's blinding.
        run: the job's transcript identity.
        people: kept file of who takes part; made where it is missing.
        target: file for the points.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    me: str
    pepper: bytes
    secret: bytes
    run: str
    people: Path
    target: Path


@dataclass(frozen=True)
class LayerTask:
    """What is needed to put this silo's layer on a peer's list.

    Attributes:
        source: file of the points.
        target: file for the product; written whole or not at all.
        count: the owner's declared capacity.
        secret: of this silo's blinding.
        run: the job's transcript identity.
        sender: who sent it, for the error.
    """

    source: Path
    target: Path
    count: int
    secret: bytes
    run: str
    sender: str


@dataclass(frozen=True)
class SlotsTask:
    """What is needed to know each person's slot.

    Attributes:
        people: kept file.
        slots: kept file, in the order of the list.
        capacity: this silo's.
        secret: of this silo's blinding.
        run: the job's transcript identity.
    """

    people: Path
    slots: Path
    capacity: int
    secret: bytes
    run: str


def blind_own(task: OwnListTask) -> tuple[str, ...]:
    """Fix who takes part, and write their points under veil and layer, padded to the capacity.

    Returns:
        What this silo's own people should know of who was left out; local, never sent or logged.

    Raises:
        DataError: the tables cannot be read.
        CapacityError: more people were kept than there are places, which chance does once in 2^39 lists.
    """
    from privacy.alignment.blinding import Blinding

    blinding, capacity = Blinding(task.secret, task.run), alignment_of(task.plan).capacities[task.me]
    remarks: tuple[str, ...] = ()
    if not task.people.exists():
        everybody = _everybody(task)
        chosen = blinding.fitting(everybody.words, capacity, entry_epsilon(task.plan))
        everybody.only(chosen).save(task.people)
        remarks = _left_out(len(everybody.words), len(chosen), capacity)
    people = People.load(task.people)
    with sharded(capacity) as mapping:
        points = blinding.own_list(people.words, capacity, mapping=mapping)
    task.target.write_bytes(points)
    return remarks


def put_layer(task: LayerTask) -> None:
    """Multiply a peer's list.

    Raises:
        PointsError: it is none.
    """
    from privacy.alignment.blinding import Blinding

    blinding, points = Blinding(task.secret, task.run), task.source.read_bytes()
    with sharded(task.count) as mapping:
        points = blinding.blind(points, task.count, where=task.sender, mapping=mapping)
    write_atomically(task.target, points)


def slots_of_people(task: SlotsTask) -> tuple[People, npt.NDArray[np.int64]]:
    """Return who takes part, and the slot of each: (people,) int64, -1 for none."""
    from privacy.alignment.blinding import Blinding
    from privacy.alignment.spine import NO_SLOT

    people = People.load(task.people)
    places = Blinding(task.secret, task.run).places(len(people.words), task.capacity)
    slots = np.frombuffer(task.slots.read_bytes(), dtype="<u8")[places]
    return people, np.where(slots == NO_SLOT, -1, slots.astype(np.int64))


def _everybody(task: OwnListTask) -> People:
    """Whoever has rows now: at the label silo with items of the catalogue."""
    if task.me == task.plan.leader:
        user_ids = load_rows(task.directory, task.plan, task.dataset).train.user_ids
    else:
        user_ids = feature_interactions(task.directory, task.plan, task.dataset).user_ids
    kind = alignment_of(task.plan).identifiers
    return People.of(user_ids, kind, task.pepper, task.dataset.default_region)


def _left_out(num_people: int, num_kept: int, capacity: int) -> tuple[str, ...]:
    if num_kept == num_people:
        return ()
    return (
        f"{num_people - num_kept:,} of {num_people:,} people were left out at random, so that their number "
        f"hides in {capacity:,} places; for the next plan declare a larger alignment.capacity in the policy",
    )
