"""What a recorded job left for its adversaries, and the truth that their guesses are compared with.

::

    recording.json            what follows, who colludes, which rounds
    plan.yaml  charter.yaml  charter.sig.json  catalogues/
    coordinator/              what it held: its directory, posts.json, streams and sums
    silos/<name>/             what an auditor gets of each: ledger, policies, jobs; no rows, no keys
    members/                  what every member holds: aggregates and model
    colluders/<name>.json     secrets and contribution of the silos that help the coordinator, and of one more
    truth/                    only the recording knows: levels of all silos, people and coins

Declared JSON, YAML, npy, parquet and safetensors; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from federation.job_state import JobState
from federation.messages import parse_envelope
from federation.rounds import fold
from policies.files import load_yaml, read_limited
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, reserved_events
from policies.silo_policy import Columns, Dataset, Source
from privacy.accounting import epsilon_of
from privacy.encryption.frames import read_stream
from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.models.base import Family, State, get_family
from silo.models.shipped import ShippedModel, load_model
from silo.rows import load_rows, plan_catalogue

Integers = NDArray[np.int64]
PeopleKind = Literal["canaries", "members", "others"]

MANIFEST = "recording.json"
MAX_PEOPLE = 2**31
Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class RecordingError(DataError):
    """A recording that is incomplete, or no recording."""

    code = "recording"


class Written(BaseModel):
    """Base of what a recording declares."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(Written):
    """One attempt of one round."""

    round: Annotated[int, Field(ge=1)]
    attempt: Annotated[int, Field(ge=1)]


class Manifest(Written):
    """What was recorded.

    Attributes:
        job: its handle.
        coordinator: whose board it ran on.
        colluders: silos that help the coordinator, as many as the plan covers.
        one_more: the silo by which a coalition exceeds what the plan covers; None where nobody would be left.
        opened: the attempt of each round that was opened, in order.
        streams: attempts whose streams were kept; the last is the one whose contributions are known.
        seed: of the coins and of the choice of people, hexadecimal.
    """

    kind: Literal["Recording"] = "Recording"
    schema_version: Literal[1] = 1
    job: Hex
    coordinator: Name
    colluders: Annotated[tuple[Name, ...], Field(min_length=1)]
    one_more: Name | None
    opened: Annotated[tuple[Place, ...], Field(min_length=1)]
    streams: Annotated[tuple[Place, ...], Field(min_length=1)]
    seed: Hex


class SiloSecrets(Written):
    """What one silo's outbox held in the recorded attempt, bytes in hexadecimal.

    Attributes:
        silo: whose.
        secret: the job's BFV key.
        group_key: the job's group key.
        start_key: ephemeral private key of the job's start.
        round_key: ephemeral private key of the attempt.
    """

    silo: Name
    secret: Hex
    group_key: Hex
    start_key: Hex
    round_key: Hex


class Coin(Written):
    """One person of a game: in the silo's rows, or kept out, as a fair coin said.

    Attributes:
        user_id: a name that only the game uses.
        silo: where the person is, or would have been.
        is_in: what the coin said.
    """

    user_id: str
    silo: Name
    is_in: bool


_COINS: TypeAdapter[tuple[Coin, ...]] = TypeAdapter(tuple[Coin, ...])


class Recording:
    """A recording on disk, read as it is needed.

    Args:
        directory: where ``recording.json`` is.

    Raises:
        RecordingError: it is none.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.manifest = Manifest.model_validate_json(read_limited(directory / MANIFEST))
        except (OSError, ValueError, DataError) as error:
            raise RecordingError(
                "there is no readable recording here",
                where=str(directory / MANIFEST),
                remedy="make one with `archipel demo --record`, and name its recording/ directory",
            ) from error
        if not set(self.manifest.colluders) < set(self.plan.silos):
            raise RecordingError("the colluders are no part of the roster", where=str(directory / MANIFEST))

    # ── public ──

    @cached_property
    def plan(self) -> Plan:
        """The plan everybody signed."""
        return load_yaml(self.directory / "plan.yaml", Plan)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The public items."""
        return plan_catalogue(self.directory, self.plan)

    @cached_property
    def claimed_epsilon(self) -> float:
        """What the plan's filter says of everything the plan may release, at its ``target_delta``."""
        return self.claim_at(self.plan.privacy.target_delta)

    def claim_at(self, delta: float) -> float:
        """The same claim at another delta: a mechanism has a curve, and promises all of it."""
        return epsilon_of(reserved_events(self.plan), delta, self.plan.privacy.filter_spec)

    # ── the coordinator's ──

    @cached_property
    def state(self) -> JobState:
        """The job as its posts tell it, up to the recorded moment."""
        path = self.directory / "coordinator" / "posts.json"
        try:
            posts = [parse_envelope(text.encode()) for text in json.loads(path.read_bytes())]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise RecordingError("the posts cannot be read", where=str(path)) from error
        return fold(posts, self.manifest.coordinator)

    @property
    def place(self) -> Place:
        """The attempt of which streams, secrets and contributions were kept."""
        return self.manifest.streams[-1]

    def shape(self, place: Place) -> RoundShape:
        """The shape of a round."""
        return self.state.shapes[place.round - 1]

    @property
    def contributors(self) -> tuple[str, ...]:
        """The silos of the recorded attempt, in roster order."""
        return self.state.contributors_of(self.place.round, self.place.attempt)

    @property
    def honest(self) -> tuple[str, ...]:
        """The contributors that do not collude."""
        return tuple(silo for silo in self.contributors if silo not in self.manifest.colluders)

    def stream_path(self, place: Place, silo: str) -> Path:
        """The file a silo sent."""
        return self.directory / "coordinator" / "streams" / f"stream-{place.round}-{place.attempt}-{silo}"

    def stream(self, place: Place, silo: str) -> list[bytes]:
        """The frames a silo sent."""
        return self._frames(self.stream_path(place, silo), place)

    def sum_frames(self, place: Place) -> list[bytes]:
        """The frames of the sum that the coordinator gave out."""
        name = f"sum-{place.round}-{place.attempt}-{self.manifest.coordinator}"
        return self._frames(self.directory / "coordinator" / "streams" / name, place)

    def _frames(self, path: Path, place: Place) -> list[bytes]:
        try:
            with path.open("rb") as file:
                return list(read_stream(file, self.shape(place).layout.num_frames, where=str(path)))
        except OSError as error:
            raise RecordingError("a stream is missing", where=str(path)) from error

    # ── the members' ──

    def aggregate(self, place: Place) -> Integers:
        """The integers every member opened."""
        return self._array(f"members/aggregate-{place.round}-{place.attempt}.npy")

    @cached_property
    def model(self) -> ShippedModel:
        """The released model."""
        return load_model(self.directory / "members" / "model.safetensors")

    def secrets(self, silo: str) -> SiloSecrets:
        """What a corrupted silo held."""
        return SiloSecrets.model_validate_json(read_limited(self.directory / "colluders" / f"{silo}.json"))

    def family(self) -> Family:
        """The plan's family, with everybody in every step: nobody knows who was sampled."""
        training = self.plan.training.model_copy(update={"sample_rate": 1.0})
        plan = self.plan.model_copy(update={"training": training})
        return get_family(plan)(plan, self.catalogue)

    def expected(self, shape: RoundShape) -> float:
        """With which probability a person is in the sum of a round."""
        return self.plan.training.sample_rate if shape.purpose == "training" else 1.0

    @property
    def is_random(self) -> bool:
        """Whether a silo's contribution depends on coins besides its noise, which nobody can repeat."""
        return self.plan.training.sample_rate < 1 or getattr(self.plan.model, "input_dropout", 0.0) > 0

    def course(self, family: Family) -> Iterator[tuple[Place, RoundShape, State, Integers]]:
        """Each opened round with the public state before it and its aggregate; metrics left out."""
        state = family.initial_state()
        for place in self.manifest.opened:
            shape = self.shape(place)
            if shape.purpose == "metrics":
                continue
            sums = self.aggregate(place)
            yield place, shape, state, sums
            contributors = len(self.state.contributors_of(place.round, place.attempt))
            state = family.absorb(state, sums, place.round - 1, shape, contributors)

    # ── what only the recording knows ──

    def levels(self, silo: str) -> Integers:
        """What a silo's process drew in the recorded attempt: its noised contribution."""
        return self._array(f"truth/levels-{silo}.npy")

    @cached_property
    def canaries(self) -> tuple[Coin, ...]:
        """The canary people and their coins, in a fixed order."""
        return self._coins("canaries")

    @cached_property
    def people(self) -> tuple[Coin, ...]:
        """Real people that took part or were held out by coin."""
        return self._coins("people")

    def rows(self, kind: PeopleKind, silo: str) -> Interactions:
        """People's rows as the silo's contribution sees them; nobody is left out for their number.

        Args:
            kind: ``canaries`` (in and out), ``members`` (real people that took part), ``others`` (held out).
            silo: where they are, or would have been.
        """
        dataset = Dataset(
            source=Source(parquet=f"truth/{kind}-{silo}.parquet"),
            columns=Columns(timestamp="timestamp"),
            max_interactions_per_user=self.plan.max_interactions_per_user,
            population="people",
            max_silos_per_user=1,
        )
        plan = self.plan.model_copy(update={"max_users_per_silo": MAX_PEOPLE})
        return load_rows(self.directory, plan, dataset).train

    def people_of(self, kind: PeopleKind, coins: tuple[Coin, ...]) -> dict[str, Interactions]:
        """Rows of one kind by silo, for the silos that the coins name."""
        return {silo: self.rows(kind, silo) for silo in dict.fromkeys(coin.silo for coin in coins)}

    def _coins(self, name: str) -> tuple[Coin, ...]:
        try:
            return _COINS.validate_json((self.directory / "truth" / f"{name}.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise RecordingError("the coins cannot be read", where=f"truth/{name}.json") from error

    def _array(self, name: str) -> Integers:
        path = self.directory / name
        try:
            values: Integers = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RecordingError("an array is missing or damaged", where=str(path)) from error
        if values.dtype != np.int64 or values.ndim != 1:
            raise RecordingError("an array is not what was recorded", where=str(path))
        return values
