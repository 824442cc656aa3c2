"""What goes wrong in one simulation: everything a seed decides before it begins.

A schedule is made of the seed alone. What the network does to a call and how long a thread takes is drawn
while the simulation runs, from generators that the seed and the process fix; keys, noise and nonces come from
the operating system, and no decision looks at them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum

from federation.steps import (
    COORDINATOR_STEPS,
    LEADER_STEPS,
    LEG_STEPS,
    SILO_STEPS,
    TROUBLE_STEPS,
    Step,
)
from tests.simulation.world import ALL, HUB, SCENARIOS

MAX_DOWN_SECONDS = 15.0
HUB_LEG_STEPS = (Step.RELAYED_POSTED, Step.SLOTS_WRITTEN, Step.MATCHED_POSTED)


@dataclass(frozen=True)
class Weather:
    """What the network does.

    Attributes:
        name: for people.
        max_delay: of a message in one direction, seconds.
        lost_request: probability that a call never arrives.
        lost_answer: probability that a call takes effect and its answer is lost.
        duplicated: probability that a call arrives once more, later.
        max_lateness: how much later.
    """

    name: str
    max_delay: float = 0.02
    lost_request: float = 0.0
    lost_answer: float = 0.0
    duplicated: float = 0.0
    max_lateness: float = 0.0


CALM = Weather("calm")
WEATHERS = (
    CALM,
    Weather("slow", max_delay=1.0),
    Weather("lossy", 0.3, lost_request=0.08, lost_answer=0.08),
    Weather("echoing", 0.3, duplicated=0.3, max_lateness=20.0),
    Weather("stormy", 1.0, lost_request=0.15, lost_answer=0.15, duplicated=0.15, max_lateness=60.0),
)


class Beginning(StrEnum):
    """Where a simulation begins; later ones begin with the disks of a job that went well until then."""

    PROPOSAL = "proposal"
    FIRST_ROUND = "first-round"
    LAST_ROUND = "last-round"
    LAST_SUM = "last-sum"


class When(StrEnum):
    """Side of a durable step."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class AtTime:
    """At a virtual second, whatever the process waits for then."""

    seconds: float

    def __str__(self) -> str:
        return f"at {self.seconds:.1f} s"


@dataclass(frozen=True)
class AtStep:
    """Before or after a durable step, the ``occurrence``-th time that the party comes there."""

    when: When
    step: Step
    occurrence: int

    def __str__(self) -> str:
        return f"{self.when} {self.step} (time {self.occurrence})"


@dataclass(frozen=True)
class AtSync:
    """Instead of the ``occurrence``-th fsync of the party: a file is written, and not yet in its place."""

    occurrence: int

    def __str__(self) -> str:
        return f"at its fsync {self.occurrence}"


@dataclass(frozen=True)
class Crash:
    """``kill -9`` of a party's process, which somebody starts again.

    Attributes:
        party: whose.
        at: when.
        down_seconds: until the next process starts.
    """

    party: str
    at: AtTime | AtStep | AtSync
    down_seconds: float


@dataclass(frozen=True)
class Cut:
    """A party's network is gone for a while."""

    party: str
    begin: float
    end: float


@dataclass(frozen=True)
class Restore:
    """A silo's whole disk, or its outbox alone, becomes what it was some time before.

    Attributes:
        silo: whose.
        saved_at: virtual second of the backup.
        restored_at: virtual second at which the process is killed and goes on from the backup.
        outbox_only: ledger and job files stay as they are.
    """

    silo: str
    saved_at: float
    restored_at: float
    outbox_only: bool


class Command(StrEnum):
    """What a person asks for."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Request:
    """A person's command to the job at a virtual second."""

    at: float
    by: str
    command: Command


@dataclass(frozen=True)
class Miscalculation:
    """A silo's machine puts wrong integers into the file of its ``occurrence``-th opening."""

    silo: str
    occurrence: int


@dataclass(frozen=True)
class Schedule:
    """One simulation.

    Attributes:
        seed: what everything else follows from.
        scenario: key of ``ALL``.
        beginning: of the job, or all processes just killed in the middle of it.
        weather: until ``HEAL_SECONDS``.
        slowness: by party; 1 where it is missing.
    """

    seed: int
    scenario: str
    beginning: Beginning = Beginning.PROPOSAL
    weather: Weather = CALM
    crashes: tuple[Crash, ...] = ()
    cuts: tuple[Cut, ...] = ()
    restores: tuple[Restore, ...] = ()
    requests: tuple[Request, ...] = ()
    miscalculations: tuple[Miscalculation, ...] = ()
    slowness: dict[str, float] = field(default_factory=dict)

    @property
    def silos(self) -> tuple[str, ...]:
        """The job's roster."""
        return tuple(ALL[self.scenario]["silos"])

    @property
    def may_lose_records(self) -> bool:
        """Whether a silo may come to know less than it has said."""
        return bool(self.restores)

    @property
    def may_lose_rounds(self) -> bool:
        """Whether an attempt may be burned, or the job fail, with everybody honest."""
        may_be_absent = "round_minutes" in ALL[self.scenario]
        is_disturbed = bool(self.crashes or self.cuts or self.slowness) or self.weather is not CALM
        return bool(self.restores or self.miscalculations) or (may_be_absent and is_disturbed)

    def describe(self) -> list[str]:
        """The schedule for people, a line each."""
        lines = [f"scenario {self.scenario} from its {self.beginning}, silos {', '.join(self.silos)}"]
        lines.append(f"network: {self.weather}")
        lines += [f"{party} is {factor:g} times as slow" for party, factor in self.slowness.items()]
        lines += [f"kill {c.party} {c.at}, down for {c.down_seconds:.1f} s" for c in self.crashes]
        lines += [f"no network at {c.party} from {c.begin:.1f} s to {c.end:.1f} s" for c in self.cuts]
        for r in self.restores:
            what = "outbox" if r.outbox_only else "disk"
            lines.append(f"{what} of {r.silo} of {r.saved_at:.1f} s restored at {r.restored_at:.1f} s")
        lines += [f"{r.by} asks to {r.command} the job at {r.at:.1f} s" for r in self.requests]
        lines += [f"{m.silo} opens its sum {m.occurrence} wrongly" for m in self.miscalculations]
        return lines


def schedule_of(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(f"archipel schedule {seed}")
    scenario = tuple(SCENARIOS)[seed % len(SCENARIOS)]
    silos: tuple[str, ...] = tuple(SCENARIOS[scenario]["silos"])
    (beginning,) = rng.choices(tuple(Beginning), weights=(1, 2, 3, 3))  # the later, the shorter
    return Schedule(
        seed=seed,
        scenario=scenario,
        beginning=beginning,
        weather=rng.choice(WEATHERS),
        crashes=_crashes(rng, silos, beginning),
        cuts=_cuts(rng, silos),
        restores=_restores(rng, silos),
        requests=_requests(rng, silos),
        miscalculations=_miscalculations(rng, silos),
        slowness={rng.choice(silos): rng.choice((20.0, 100.0))} if rng.random() < 0.15 else {},
    )


def vertical_schedule_of(seed: int) -> Schedule:
    """The schedule of a seed, in a vertical job: from its proposal, with kills at the steps of legs."""
    rng = random.Random(f"archipel vertical schedule {seed}")
    silos: tuple[str, ...] = tuple(ALL["alignment"]["silos"])
    return Schedule(
        seed=seed,
        scenario="alignment",
        weather=rng.choice(WEATHERS),
        crashes=tuple(_leg_crash(rng, silos) for _ in range(rng.choice((0, 1, 2, 3, 5)))),
        cuts=_cuts(rng, silos),
        requests=_requests(rng, silos),
        slowness={rng.choice(silos): 20.0} if rng.random() < 0.15 else {},
    )


def _leg_crash(rng: random.Random, silos: tuple[str, ...]) -> Crash:
    step = rng.choice((*LEG_STEPS, Step.CHARGED))
    party = HUB if step in HUB_LEG_STEPS else rng.choice(silos)
    at: AtTime | AtStep | AtSync = AtStep(rng.choice(tuple(When)), step, rng.randrange(1, 6))
    if rng.random() < 0.3:
        at = rng.choice((AtTime(rng.uniform(0.0, 20.0)), AtSync(rng.randrange(1, 60))))
    return Crash(party, at, rng.uniform(0.1, MAX_DOWN_SECONDS))


def _crashes(rng: random.Random, silos: tuple[str, ...], beginning: Beginning) -> tuple[Crash, ...]:
    return tuple(_crash(rng, silos, beginning) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))))


def _crash(rng: random.Random, silos: tuple[str, ...], beginning: Beginning) -> Crash:
    party = rng.choice((HUB, *silos))
    at: AtTime | AtStep | AtSync
    match rng.randrange(4):
        case 0:
            at = AtTime(rng.uniform(0.0, 20.0))
        case 1:
            at = AtSync(rng.randrange(1, 40))
        case _:
            at = AtStep(
                rng.choice(tuple(When)),
                _step(rng, party, silos[0], beginning),
                rng.choice((1, 1, 1, 2, 2, 3)),
            )
    down = rng.uniform(0.1, 3.0) if rng.random() < 0.7 else rng.uniform(3.0, MAX_DOWN_SECONDS)
    return Crash(party, at, down)


def _step(rng: random.Random, party: str, leader: str, beginning: Beginning) -> Step:
    """A step that the party may still come to."""
    if party == HUB:
        return rng.choice(COORDINATOR_STEPS)
    steps = [*SILO_STEPS, *TROUBLE_STEPS]
    if beginning is not Beginning.PROPOSAL:
        steps = steps[steps.index(Step.CHARGED) :]
    return rng.choice([step for step in steps if party == leader or step not in LEADER_STEPS])


def _cuts(rng: random.Random, silos: tuple[str, ...]) -> tuple[Cut, ...]:
    if rng.random() > 0.25:
        return ()
    begin, length = rng.uniform(0.5, 30.0), rng.choice((3.0, 15.0, 30.0, 90.0))
    return (Cut(rng.choice((HUB, *silos)), begin, begin + length),)


def _restores(rng: random.Random, silos: tuple[str, ...]) -> tuple[Restore, ...]:
    if rng.random() > 0.1:
        return ()
    saved_at = rng.uniform(0.5, 10.0)
    restored_at = saved_at + rng.uniform(0.5, 10.0)
    return (Restore(rng.choice(silos), saved_at, restored_at, rng.random() < 0.3),)


def _requests(rng: random.Random, silos: tuple[str, ...]) -> tuple[Request, ...]:
    asked: list[Request] = []
    if rng.random() < 0.12:
        at = rng.uniform(0.5, 15.0)
        asked.append(Request(at, rng.choice(silos), Command.PAUSE))
        asked.append(Request(at + rng.uniform(0.0, 60.0), rng.choice(silos), Command.RESUME))
    if rng.random() < 0.06:
        asked.append(Request(rng.uniform(0.2, 20.0), rng.choice(silos), Command.CANCEL))
    return tuple(asked)


def _miscalculations(rng: random.Random, silos: tuple[str, ...]) -> tuple[Miscalculation, ...]:
    if rng.random() > 0.06:
        return ()
    return (Miscalculation(rng.choice(silos), rng.choice((1, 2))),)
