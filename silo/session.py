"""What a worker keeps of a job between two rounds, so that round 60 costs what round 2 did.

Rows are read, contexts built and sums absorbed once. All of it can be had again: rows from their source,
which is looked at before every use; the trained state from ``state.safetensors`` or from the opened sums. A
state is believed only where it names the digest that every contributor signed for the last sum it absorbed,
and a sum only where its integers have that digest. One session for each silo directory; the next job's
replaces it, and nothing of it outlives the job.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from policies.canonical import digest
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from policies.silo_policy import Dataset
from privacy.agreement import round_digest
from privacy.errors import DataError, ProtocolError
from silo.checkpoints import find_checkpoint, load_checkpoint
from silo.tensor_files import Tables, TensorFileError, load_tables, save_tables

if TYPE_CHECKING:
    from privacy.encryption.keyholder import KeyHolder
    from silo.data.catalogue import Catalogue
    from silo.data.interactions import Interactions
    from silo.models.base import Family
    from silo.rows import Rows, SourceStamp

STATE_FORMAT: Final = "archipel-training-state/v1"
STATE_FILE: Final = "state.safetensors"
MAX_USERS_LOOKED_AT: Final = 512


class SumMissingError(ProtocolError):
    """An opened sum that this silo needs is not on its disk, or not as it was opened.

    Attributes:
        round: 1-based.
        was_damaged: whether there was a file, with other integers than everybody opened.
    """

    code = "sum_missing"

    def __init__(self, round: int, *, was_damaged: bool) -> None:
        what = "not as it was opened" if was_damaged else "not on this disk"
        super().__init__(f"the sum of round {round} is {what}", remedy="fetch it again and open it")
        self.round = round
        self.was_damaged = was_damaged


class NoNextStateError(DataError):
    """An opened sum leads to no further state, at any silo alike: the job ends with the state before it.

    Attributes:
        round: 1-based, of that sum.
    """

    code = "no_next_state"

    def __init__(self, round: int, why: str) -> None:
        super().__init__(why, where=f"round {round}", remedy="end the job and propose another plan")
        self.round = round


@dataclass(frozen=True)
class OpenedSum:
    """One round's opened sum.

    Attributes:
        path: file of its integers.
        contributors: how many silos' contributions are in it.
        digest: keyed, chained, as every contributor signed it.
    """

    path: Path
    contributors: int
    digest: bytes


@dataclass(frozen=True)
class Course:
    """How a job has gone so far: all that a replicated state is made of.

    Attributes:
        directory: the silo's.
        job: the job's handle.
        job_id: its transcript identity, hex.
        group_key: of the job.
        plan: the authorised plan.
        sums: of the rounds from the first, without a gap.
    """

    directory: Path
    job: str
    job_id: str
    group_key: bytes
    plan: Plan
    sums: tuple[OpenedSum, ...]

    @property
    def job_directory(self) -> Path:
        """``jobs/<job>``."""
        return self.directory / "jobs" / self.job

    def digest_after(self, rounds: int) -> bytes:
        """What everybody signed for that many rounds; empty for none."""
        return self.sums[rounds - 1].digest if rounds else b""

    def integers(self, round: int) -> NDArray[np.int64]:
        """The opened integers of one round, checked.

        Raises:
            SumMissingError: there is no such file, or it holds others than everybody signed for.
        """
        opened = self.sums[round - 1]
        try:
            sums = np.load(opened.path, allow_pickle=False)
        except FileNotFoundError as error:
            raise SumMissingError(round, was_damaged=False) from error
        except (OSError, ValueError, EOFError) as error:
            raise SumMissingError(round, was_damaged=True) from error
        canonical = hashlib.sha256(sums.astype("<i8").tobytes()).digest() if sums.dtype == np.int64 else b""
        found = round_digest(self.group_key, self.job_id, round, self.digest_after(round - 1), canonical)
        if not hmac.compare_digest(found, opened.digest):
            raise SumMissingError(round, was_damaged=True)
        integers: NDArray[np.int64] = sums
        return integers


class Session:
    """One job at one silo, as its worker process remembers it.

    Args:
        directory: ``jobs/<job>``.

    Attributes:
        repairs: what was found damaged and rebuilt since somebody last asked.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repairs: list[str] = []
        self._holder: KeyHolder | None = None
        self._rows: tuple[object, Rows] | None = None
        self._some: tuple[Rows, Interactions] | None = None
        self._family: tuple[object, Family] | None = None
        self._rounds = 0
        self._digest = b""
        self._state: Tables | None = None

    def holder(self, secret: bytes) -> KeyHolder:
        """The job's key holder; its contexts take longer to build than a frame to encrypt."""
        from privacy.encryption.keyholder import KeyHolder

        if self._holder is None or not hmac.compare_digest(self._holder.secret_bytes(), secret):
            self._holder = KeyHolder.from_secret(secret)
        return self._holder

    def rows(self, directory: Path, plan: Plan, dataset: Dataset) -> Rows:
        """The silo's rows; read again when a source or the list of opt-outs has changed on the disk.

        Raises:
            DataError: what :func:`silo.rows.load_rows` raises, also where the source has gone.
        """
        from silo.rows import load_rows, source_stamp

        stamp: SourceStamp = source_stamp(directory, dataset)
        key = (digest(plan), dataset, stamp)
        if self._rows is None or self._rows[0] != key:
            self._rows = None
            self._rows = key, load_rows(directory, plan, dataset)
        return self._rows[1]

    def some_users(self, rows: Rows) -> Interactions:
        """A fixed few of the training rows, to look at how they fare; no contribution is made of them."""
        if self._some is None or self._some[0] is not rows:
            few = min(rows.train.num_users, MAX_USERS_LOOKED_AT)
            self._some = rows, rows.train.select(range(few))
        return self._some[1]

    def family(self, directory: Path, plan: Plan) -> Family:
        """The plan's model family, with what it builds once: public features, module, self-test.

        Raises:
            DataError: the checkpoint that the plan starts from is missing or does not fit; the plan's text
                encoder or the list of this silo's own items is missing.
            MissingExtraError: texts have to be encoded, and the libraries for it are not installed.
        """
        from silo.models.base import get_family

        own, silo = self._dataset_and_silo(plan)
        key = digest(plan), None if own is None else own.item_list
        if self._family is None or self._family[0] != key:
            sha256 = getattr(plan.model, "start_from", None)
            start = None if sha256 is None else load_checkpoint(find_checkpoint(directory, sha256))
            items = _items(directory, plan, own)
            self._family = key, get_family(plan)(plan, items, start=start, silo=silo)
        return self._family[1]

    def learned(self, course: Course) -> tuple[Family, Tables]:
        """The model family, and the state after every sum of ``course`` that trains.

        Raises:
            SumMissingError: a sum is needed that is not here.
            NoNextStateError: a sum leads nowhere.
        """
        family = self.family(course.directory, course.plan)
        shapes = [shape for shape in schedule(course.plan) if shape.purpose != "metrics"]
        state, before = self._believed(course, family), self._rounds
        try:
            for number in range(before + 1, min(len(shapes), len(course.sums)) + 1):
                state = _absorb(family, state, course, number, shapes[number - 1])
                self._state, self._rounds, self._digest = state, number, course.digest_after(number)
        finally:
            if self._rounds > before:
                self._save(course)
        return family, state

    def _dataset_and_silo(self, plan: Plan) -> tuple[Dataset | None, str | None]:
        """Where a silo ranks items of its own: the table of this job's policy, which names their list."""
        from silo.finished import job_policy, job_terms

        if plan.catalogue.kind != "per_silo":
            return None, None
        return job_terms(self.directory)[2], job_policy(self.directory).silo

    def forget_state(self) -> None:
        """Drop the trained state here and on the disk; the next use replays the sums."""
        self._state, self._rounds, self._digest = None, 0, b""
        (self.directory / STATE_FILE).unlink(missing_ok=True)

    def _believed(self, course: Course, family: Family) -> Tables:
        """The newest state whose digest everybody signed: in memory, on the disk, or the initial one."""
        if self._state is not None and self._is_of(course, self._rounds, self._digest):
            return self._state
        if self._state is not None:
            self.repairs.append(f"the state kept of round {self._rounds} is not of this job's sums")
        self._state, self._rounds, self._digest = self._from_disk(course) or (family.initial_state(), 0, b"")
        return self._state

    def _from_disk(self, course: Course) -> tuple[Tables, int, bytes] | None:
        path = self.directory / STATE_FILE
        if not path.exists():
            return None
        try:
            tables, about = load_tables(path, STATE_FORMAT)
        except TensorFileError as error:
            self.repairs.append(f"{STATE_FILE}: {error.message}")
            return None
        rounds = about.get("rounds")
        if type(rounds) is int and 0 < rounds <= len(course.sums):
            signed = course.digest_after(rounds)
            if about == _description(course.plan, tables, rounds, signed):
                return tables, rounds, signed
        self.repairs.append(f"{STATE_FILE} is not of this job's sums, or altered")
        return None

    @staticmethod
    def _is_of(course: Course, rounds: int, signed: bytes) -> bool:
        within = 0 <= rounds <= len(course.sums)
        return within and hmac.compare_digest(signed, course.digest_after(rounds))

    def _save(self, course: Course) -> None:
        state = self._state or {}
        about = _description(course.plan, state, self._rounds, self._digest)
        save_tables(self.directory / STATE_FILE, STATE_FORMAT, state, about)


_SESSIONS: dict[Path, Session] = {}
"""By silo directory: in a worker process there is one."""


def session_of(job_directory: Path) -> Session:
    """The session of ``jobs/<job>``; one of another job of the same silo ends."""
    found = _SESSIONS.get(job_directory.parent)
    if found is None or found.directory != job_directory:
        found = _SESSIONS[job_directory.parent] = Session(job_directory)
    return found


def end_session(job_directory: Path) -> None:
    """Forget everything about a job: rows, key and state."""
    found = _SESSIONS.get(job_directory.parent)
    if found is not None and found.directory == job_directory:
        del _SESSIONS[job_directory.parent]


def _items(directory: Path, plan: Plan, own: Dataset | None) -> Catalogue:
    """What the model ranks; a silo's own items with their places in the plan's space."""
    from silo.rows import plan_catalogue

    items = plan_catalogue(directory, plan, own)
    if own is None:
        return items
    from silo.language.places import place_items
    from silo.language.telling import every_few_seconds

    return place_items(directory, plan, items, every_few_seconds())


def _absorb(family: Family, state: Tables, course: Course, round: int, shape: RoundShape) -> Tables:
    contributors = course.sums[round - 1].contributors
    integers = course.integers(round)
    try:
        return family.absorb(state, integers, round - 1, shape, contributors)
    except DataError as error:
        raise NoNextStateError(round, error.message) from error


def _description(plan: Plan, tables: Tables, rounds: int, signed: bytes) -> dict[str, str | int]:
    """What the file of a state says of itself; a file that says anything else is replaced."""
    return {
        "plan_sha256": digest(plan),
        "rounds": rounds,
        "digest": signed.hex(),
        "tables_sha256": _checksum(tables),
    }


def _checksum(tables: Tables) -> str:
    hashed = hashlib.sha256()
    for name, table in sorted(tables.items()):
        hashed.update(f"{name}\0{table.dtype.str}{table.shape}\0".encode())
        hashed.update(table.tobytes())
    return hashed.hexdigest()
