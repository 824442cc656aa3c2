"""Sabotage from inside: a silo whose noise, clipping or masks were taken out is caught, not believed.

The event that a ledger charges comes from the object that drew the noise and from nowhere else. Take the
noise away and there is no event: the charge vanishes, with it the contribution, and the job stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from federation.messages import Ephemeral, PostKind, seal
from federation.rounds import JobState, Phase, advance
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from privacy.errors import EquivocationError
from privacy.noise import NoisedIntegers, NoiseError, NoiseShare, RandomnessReuseError
from privacy.packing import PLAIN_MODULUS, Layout, LayoutError
from silo import tasks
from silo.data.interactions import Interactions
from silo.models.base import Integers, State
from silo.models.item_graph import ItemGraph
from silo.models.popularity import Popularity
from silo.outbox import Outbox
from silo.tasks import ContributionTask, Drawn, add_noise
from tests.contracts.family_contract import FamilyContract, make_catalogue, make_plan
from tests.contracts.federation_directories import SILOS
from tests.contracts.secure_roster import Roster
from tests.support import sabotage
from tests.support.captured_job import open_streams
from tests.support.little_federation import InThreadWorker, LittleFederation, little_federation
from tests.support.uniformity import BY_CHANCE, p_uniform

Noising = Callable[[NDArray[np.int64], RoundShape, int], NoisedIntegers]

SABOTEUR = SILOS[1]
HONEST = tuple(silo for silo in SILOS if silo != SABOTEUR)


class SabotagedWorker(InThreadWorker):
    """A silo's worker with another noising step."""

    def __init__(self, noising: Noising, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._noising = noising
        self._patch = patch
        self.attempts = 0

    @override
    async def contribute(self, task: ContributionTask) -> Drawn:
        self.attempts += 1
        with self._patch.context() as patched:
            patched.setattr(tasks, "add_noise", self._noising)
            return tasks.draw_contribution(task)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[LittleFederation]:
    made = little_federation(tmp_path)
    yield made
    made.close()


# ── no noise, no event, no charge, no job ───────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LittleFederation, JobState]]:
    """The same federation without a saboteur, and its job at the end."""
    made = little_federation(tmp_path_factory.mktemp("honest"))

    async def play() -> JobState:
        async with made.running() as board:
            return await made.until(lambda _: all(made.note(silo).get("finished") for silo in SILOS), board)

    yield made, asyncio.run(play())
    made.close()


def test_honest_silos_finish_and_pay(honest: tuple[LittleFederation, JobState]) -> None:
    """What the sabotaged runs below are compared with."""
    federation, state = honest
    assert state.outcome == "completed"
    for silo in SILOS:
        assert 3.9 < epsilon_spent(federation, silo) <= 4.0


@pytest.mark.parametrize(
    "noising",
    [
        sabotage.no_noise,
        sabotage.noise_of_another_generator,
        sabotage.noise_that_is_not_rounded,
        sabotage.half_the_noise,
        sabotage.half_the_noise_and_says_so,
        sabotage.noise_of_fewer_shares,
    ],
)
def test_a_silo_without_the_promised_noise_is_not_charged_and_the_job_goes_no_further(
    federation: LittleFederation, noising: Noising, monkeypatch: pytest.MonkeyPatch
) -> None:
    saboteur = federation.workers[SABOTEUR] = SabotagedWorker(noising, monkeypatch)

    async def play() -> JobState:
        async with federation.running() as board:
            await federation.until(lambda _: saboteur.attempts > 0, board)
            return await federation.until(
                lambda state: (
                    state.phase is Phase.ENDED
                    or all(epsilon_spent(federation, silo) > 3.9 for silo in HONEST)
                ),
                board,
            )

    state = asyncio.run(play())
    assert state.phase is Phase.EXCHANGING or state.outcome == "cancelled"
    assert said(state, SABOTEUR, PostKind.EPHEMERAL) == {(0, 0)}
    assert not {place.kind for place in state.posts} & {PostKind.STREAM, PostKind.SUM}
    assert epsilon_spent(federation, SABOTEUR) == 0
    assert stored_contributions(federation, SABOTEUR) == 0


def epsilon_spent(federation: LittleFederation, silo: str) -> float:
    (account,) = federation.sites[silo].ledger.state().accounts.values()
    return account.epsilon_spent


def said(state: JobState, silo: str, kind: PostKind) -> set[tuple[int, int]]:
    return {
        (place.round, place.attempt) for place in state.posts if (place.kind, place.sender) == (kind, silo)
    }


def stored_contributions(federation: LittleFederation, silo: str) -> int:
    path = federation.parties.parties[silo].directory / "outbox" / "outbox.db"
    with contextlib.closing(sqlite3.connect(path)) as outbox:
        return int(outbox.execute("SELECT count(*) FROM contributions").fetchone()[0])


# ── noise that is not what it says ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(make_catalogue(), {"family": "popularity"})


@pytest.fixture(scope="module")
def shape(plan: Plan) -> RoundShape:
    return schedule(plan)[0]


def test_the_honest_step_adds_the_share_and_reports_the_event(plan: Plan, shape: RoundShape) -> None:
    noised, event = add_noise(np.zeros(shape.values, dtype=np.int64), shape, plan.num_silos)
    assert event == shape.event
    assert noised.any()


@pytest.mark.parametrize(
    "noising", [sabotage.half_the_noise, sabotage.noise_of_fewer_shares], ids=lambda f: str(f.__name__)
)
def test_too_little_noise_for_the_promise_is_never_drawn(
    plan: Plan, shape: RoundShape, noising: Noising
) -> None:
    with pytest.raises(NoiseError, match="noise multiplier"):
        noising(np.zeros(shape.values, dtype=np.int64), shape, plan.num_silos)


def test_a_share_drawn_once_does_not_noise_a_second_contribution(plan: Plan, shape: RoundShape) -> None:
    share = NoiseShare(
        shape.share_std,
        num_shares=plan.num_noise_shares,
        sensitivity=shape.sensitivity,
        promised=shape.event,  # type: ignore[arg-type]
    )
    share.add_to(np.zeros(shape.values, dtype=np.int64))
    with pytest.raises(RandomnessReuseError):
        share.add_to(np.ones(shape.values, dtype=np.int64))


def test_noise_is_not_added_to_real_numbers_nor_are_they_packed(plan: Plan, shape: RoundShape) -> None:
    share = NoiseShare(
        shape.share_std,
        num_shares=plan.num_noise_shares,
        sensitivity=shape.sensitivity,
        promised=shape.event,  # type: ignore[arg-type]
    )
    signal = np.zeros(shape.values)
    with pytest.raises(NoiseError, match="integers"):
        share.add_to(signal)  # type: ignore[arg-type]
    with pytest.raises(LayoutError):
        shape.layout.pack(signal + 0.5)  # type: ignore[arg-type]


# ── clipping that is not per user ───────────────────────────────────────────────────────────────────────────


class ItemLevelPopularity(Popularity):
    """Every interaction counts in full: clipped per item, not per user."""

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        counts = np.asarray(interactions.matrix().sum(axis=0)).ravel().astype(np.int64)
        return counts * shape.grid


class ItemLevelGraph(ItemGraph):
    """Every pair counts in full."""

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        matrix = interactions.matrix()
        gram = (matrix.T @ matrix).toarray().astype(np.int64) * shape.grid
        return gram[np.triu_indices(len(gram))]


@pytest.mark.parametrize(
    ("honest", "sabotaged"), [(Popularity, ItemLevelPopularity), (ItemGraph, ItemLevelGraph)]
)
def test_the_sensitivity_test_catches_clipping_by_item(
    honest: type[Popularity | ItemGraph], sabotaged: type[Popularity | ItemGraph]
) -> None:
    class Contract(FamilyContract):
        model: ClassVar = {"family": honest.name}

    catalogue = make_catalogue()
    plan = make_plan(catalogue, {"family": honest.name})
    shape = schedule(plan)[0]
    checks = Contract()
    for seed in range(5):
        checks.test_one_random_user_moves_the_sum_within_the_sensitivity(honest(plan, catalogue), shape, seed)
        with pytest.raises(AssertionError):
            checks.test_one_random_user_moves_the_sum_within_the_sensitivity(
                sabotaged(plan, catalogue), shape, seed
            )


# ── masks used twice ────────────────────────────────────────────────────────────────────────────────────────


def test_the_uniformity_check_catches_a_mask_used_twice() -> None:
    """Two contributions of a silo, opened by a colluder: their difference is uniform unless masks repeat."""
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 8000)
    once, again = roster.levels(layout, seed=1), roster.levels(layout, seed=2)
    keys = roster.pair_keys(1)
    first = opened(roster, roster.streams(layout, once, keys=keys, attempt=1)["a"])
    fresh = opened(roster, roster.streams(layout, again, attempt=2)["a"])
    reused = opened(roster, roster.streams(layout, again, keys=keys, attempt=2)["a"])
    assert p_uniform((first - fresh) % PLAIN_MODULUS) > BY_CHANCE
    assert p_uniform((first - reused) % PLAIN_MODULUS) < BY_CHANCE
    packed = layout.pack(once["a"]) - layout.pack(again["a"])
    np.testing.assert_array_equal((first - reused) % PLAIN_MODULUS, packed[:-1] % PLAIN_MODULUS)


def opened(roster: Roster, frames: list[bytes]) -> Integers:
    return open_streams(frames, roster.holder)[:-1]


def test_a_record_takes_one_contribution_and_keeps_its_first_key(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.store_contribution("job", 1, 1, np.arange(5), ("a", "b"))
    with pytest.raises(Exception, match="UNIQUE"):
        outbox.store_contribution("job", 1, 1, np.arange(5) + 1, ("a", "b"))
    outbox.attach_key("job", 1, 1, b"first")
    outbox.attach_key("job", 1, 1, b"other")
    kept = outbox.contribution("job", 1, 1)
    assert kept is not None
    assert kept.private_key == b"first"
    np.testing.assert_array_equal(kept.levels, np.arange(5))
    outbox.close()


def test_a_second_contribution_for_one_place_is_refused_by_everybody(
    honest: tuple[LittleFederation, JobState],
) -> None:
    """Coordinator, agents and observers fold the same way: the same place said twice is equivocation."""
    federation, state = honest
    kept = state.post(PostKind.EPHEMERAL, SABOTEUR, round=1, attempt=1)
    assert kept is not None
    other = seal(
        kept.content(Ephemeral).model_copy(update={"public_key": "00" * 31 + "01"}),
        job=state.job,
        sender=SABOTEUR,
        identity=federation.parties.parties[SABOTEUR].identity,
        round=1,
        attempt=1,
    )
    with pytest.raises(EquivocationError):
        advance(state, other)
    assert advance(state, kept) is state
