"""When the coordinator stops waiting for a silo: the rule alone, then a coordinator in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from federation.absences import GIVE_UP_FACTOR, SHORTEST_WAIT_SECONDS, Patience
from federation.client import Board
from federation.coordinator import Coordinator
from federation.messages import BlobKind, BlobRef, Envelope, PostKind
from federation.quotas import CoordinatorLimits
from federation.rounds import JobState, Phase, advance
from federation.transport.inprocess import connect_in_process
from privacy.encryption.frames import write_stream
from privacy.errors import ProtocolError
from tests.contracts.board_scene import FOUR, HUB, ROUND_MINUTES, Scene, patient_plan, scene_plan
from tests.contracts.federation_directories import Federation, make_federation
from tests.contracts.secure_roster import Roster
from tests.simulation.clock import VirtualTimeLoop

LIMIT = ROUND_MINUTES * 60
REST = ("a", "b", "c")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(patient_plan())


# ── the rule ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silo_is_late_when_its_minutes_are_over_and_not_before(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.RECEIVING)
    state = said(scene, state, *REST)
    patience = Patience()
    assert (patience.judge(state, {}, 1000.0), patience.seconds_left(state.job)) == ((), LIMIT)
    assert (patience.judge(state, {}, 1000.0 + LIMIT - 1), patience.seconds_left(state.job)) == ((), 1.0)
    assert patience.judge(state, {}, 1000.0 + LIMIT) == ("d",)


def test_the_clock_starts_anew_with_every_phase(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    patience = Patience()
    assert patience.judge(state, {}, 0.0) == ()
    later = scene.until(state, Phase.COLLECTING)
    assert patience.judge(later, dict.fromkeys(FOUR, 0), LIMIT - 1) == ()
    assert patience.judge(later, dict.fromkeys(FOUR, 0), LIMIT + 1) == ()
    assert patience.seconds_left(state.job) == LIMIT - 2


def test_the_clock_starts_anew_with_every_attempt(scene: Scene) -> None:
    state = scene.until(scene.start, Phase.EXCHANGING)
    patience = Patience()
    assert patience.judge(state, {}, 0.0) == ()
    again = said(scene, advance(state, scene.burn(state, "a")), *REST)
    assert patience.judge(again, {}, LIMIT - 1) == ()
    assert patience.judge(again, {}, LIMIT + 1) == ()
    assert patience.judge(again, {}, 2 * LIMIT - 1) == ("d",)


def test_uploaded_bytes_are_a_sign_of_life_and_a_whole_stream_is_done(scene: Scene) -> None:
    state = said(scene, scene.until(scene.start, Phase.COLLECTING), *FOUR)
    patience = Patience()
    assert patience.judge(state, {"c": 10, "d": 10}, 0.0) == ()
    assert patience.judge(state, {"c": 20, "d": 10}, LIMIT - 1) == ()
    assert patience.judge(state, {"c": 20, "d": 10}, LIMIT) == ("d",)
    assert patience.judge(state, {"c": 20}, LIMIT) == ()
    assert patience.judge(state, {}, 100 * LIMIT) == ()
    assert patience.seconds_left(state.job) is None


def test_where_too_few_would_be_left_the_coordinator_waits_much_longer(scene: Scene) -> None:
    state = said(scene, scene.until(scene.start, Phase.EXCHANGING), "a", "b")
    patience = Patience()
    assert patience.judge(state, {}, 0.0) == ()
    assert (patience.judge(state, {}, LIMIT), patience.seconds_left(state.job)) == (
        (),
        LIMIT * (GIVE_UP_FACTOR - 1),
    )
    back = said(scene, state, "c")
    assert patience.judge(back, {}, LIMIT + 1) == ("d",)
    patience = Patience()
    assert patience.judge(state, {}, 0.0) == ()
    assert patience.judge(state, {}, GIVE_UP_FACTOR * LIMIT - 1) == ()
    assert patience.judge(state, {}, GIVE_UP_FACTOR * LIMIT) == ("c", "d")


def test_where_no_burned_round_is_left_the_coordinator_waits_much_longer() -> None:
    scene = Scene(patient_plan(max_burned_rounds=1))
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = said(scene, advance(state, scene.burn(state, "b")), *REST)
    patience = Patience()
    assert patience.judge(state, {}, 0.0) == ()
    assert patience.judge(state, {}, GIVE_UP_FACTOR * LIMIT - 1) == ()
    assert patience.judge(state, {}, GIVE_UP_FACTOR * LIMIT) == ("d",)
    closing = said(scene, scene.until(state, Phase.CLOSING), *REST)
    assert patience.judge(closing, {}, 0.0) == ()
    assert patience.judge(closing, {}, LIMIT) == ("d",)


def test_nobody_is_late_in_a_pause_before_the_rounds_or_in_a_job_that_waits(scene: Scene) -> None:
    paused = scene.until(advance(scene.start, scene.pause(scene.start, "a")), Phase.PAUSED)
    waiting = Scene(scene_plan(FOUR))
    for state in (
        scene.start,
        scene.until(scene.start, Phase.KEYING),
        paused,
        advance(paused, scene.cancel("a")),
        waiting.until(waiting.start, Phase.EXCHANGING),
        scene.until(scene.start, Phase.ENDED),
    ):
        patience = Patience()
        assert [patience.judge(state, {}, at) for at in (0.0, 1e6)] == [(), ()]
        assert patience.seconds_left(state.job) is None


def test_rounding_never_makes_the_clock_stand_still(scene: Scene) -> None:
    state = said(scene, scene.until(scene.start, Phase.EXCHANGING), "a", "b")
    patience = Patience()
    now, looks = 123_456.789, 0
    while not patience.judge(state, {}, now):
        left = patience.seconds_left(state.job)
        assert left is not None
        now, looks = now + left, looks + 1
    assert looks <= 6
    anew = Patience()
    assert anew.judge(state, {}, 0.0) == ()
    assert anew.judge(state, {}, GIVE_UP_FACTOR * LIMIT - 1e-9) == ()
    assert anew.seconds_left(state.job) == SHORTEST_WAIT_SECONDS


def said(scene: Scene, state: JobState, *silos: str) -> JobState:
    """The state after these silos have posted what is due."""
    for silo in silos:
        state = advance(state, next(post for post in scene.due(state) if post.sender == silo))
    return state


# ── a coordinator ────────────────────────────────────────────────────────────────────────────────────────


class Hub:
    """A coordinator with one job, its roster as keys, and time that passes when everybody waits."""

    def __init__(self, federation: Federation, loop: VirtualTimeLoop) -> None:
        self.federation = federation
        self.loop = loop
        self.scene = Scene(patient_plan(), keys={n: p.identity for n, p in federation.parties.items()})
        self.coordinator = self.made()

    @property
    def job(self) -> str:
        return self.scene.start.job

    def made(self) -> Coordinator:
        limits = CoordinatorLimits(max_job_hours=5)
        hub, charter = self.federation.hub, self.federation.charter
        return Coordinator(hub.directory, hub, charter, limits=limits, clock=self.loop.now)

    async def restart(self) -> None:
        await self.coordinator.stop()
        self.coordinator = self.made()
        await self.coordinator.start()

    async def post(self, *envelopes: Envelope) -> None:
        for envelope in envelopes:
            await self.coordinator.handle_post(envelope.sender, envelope.to_bytes())

    async def state(self) -> JobState:
        board = Board(self.federation.charter)
        await board.refresh(connect_in_process(self.coordinator, "a"))
        assert board.problems == []
        return board.jobs[self.job]

    async def go(
        self, phase: Phase, *, without: tuple[str, ...] = (), round: int = 1, attempt: int = 1
    ) -> None:
        """Let everybody do what is due, up to a phase that needs no sum."""
        state = await self.state()
        while state.phase is not phase or (state.round, state.attempt) < (round, attempt):
            await self.post(self.scene.due(state, without=without)[0])
            state = await self.state()

    async def announce(self, silo: str, content: bytes) -> BlobRef:
        state = await self.state()
        body = self.scene.stream(state).model_copy(
            update={"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)}
        )
        here = (state.round, state.attempt)
        await self.post(self.scene.sealed(body, silo, at=here))
        return BlobRef(job=self.job, kind=BlobKind.STREAM, round=here[0], attempt=here[1], sender=silo)

    async def send(self, ref: BlobRef, offset: int, chunk: bytes) -> int:
        digest = hashlib.sha256(chunk).hexdigest()
        return await self.coordinator.append_blob(ref.sender, ref, offset, chunk, digest)


def play(directory: Path, scenario: Callable[[Hub], Awaitable[None]]) -> None:
    async def whole(loop: VirtualTimeLoop) -> None:
        hub = Hub(make_federation(directory, silos=FOUR), loop)
        await hub.coordinator.start()
        try:
            await hub.post(hub.scene.proposal)
            await scenario(hub)
        finally:
            await hub.coordinator.stop()

    loop = VirtualTimeLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(whole(loop))


def test_a_round_goes_on_without_the_silo_that_lets_it_wait(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.go(Phase.EXCHANGING)
        await hub.post(*hub.scene.due(await hub.state(), without=("d",)))
        await asyncio.sleep(LIMIT - 1)
        assert (await hub.state()).attempt == 1
        await asyncio.sleep(2)
        state = await hub.state()
        assert (state.attempt, state.contributors, state.absent) == (2, REST, frozenset("d"))
        posted = state.post(PostKind.ABSENCE, HUB, round=1, attempt=1)
        assert posted is not None

    play(tmp_path, scenario)


def test_a_restart_of_the_coordinator_starts_the_clocks_anew(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.go(Phase.EXCHANGING)
        await hub.post(*hub.scene.due(await hub.state(), without=("d",)))
        await asyncio.sleep(LIMIT - 1)
        await hub.restart()
        await asyncio.sleep(LIMIT - 1)
        assert (await hub.state()).attempt == 1
        await asyncio.sleep(2)
        assert (await hub.state()).attempt == 2

    play(tmp_path, scenario)


def test_an_outage_of_everybody_ends_nothing_and_one_that_lasts_ends_the_job(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.go(Phase.EXCHANGING)
        await asyncio.sleep(LIMIT * (GIVE_UP_FACTOR - 1))
        assert (await hub.state()).close is None
        await hub.go(Phase.COLLECTING)
        await asyncio.sleep(LIMIT * GIVE_UP_FACTOR + 1)
        state = await hub.state()
        assert (state.phase, state.outcome) == (Phase.ENDED, "failed")
        assert state.reason == "0 silos are left where 3 are needed; absent: a, b, c, d"

    play(tmp_path, scenario)


def test_an_upload_that_goes_on_slowly_is_waited_for_and_one_that_stops_is_not(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.go(Phase.COLLECTING)
        contents = {silo: silo.encode() * 5 for silo in FOUR}
        refs = {silo: await hub.announce(silo, content) for silo, content in contents.items()}
        for silo in REST:
            await hub.send(refs[silo], 0, contents[silo])
        for offset in range(3):
            await asyncio.sleep(LIMIT - 1)
            await hub.send(refs["d"], offset, b"d")
        assert (await hub.state()).attempt == 1
        await asyncio.sleep(LIMIT + 1)
        assert (await hub.state()).absent == {"d"}
        assert await hub.coordinator.blob_offset("d", refs["d"]) == 5
        assert await hub.send(refs["d"], 3, b"dd") == 5
        spool = hub.federation.hub.directory / "spool" / hub.job
        assert list(spool.iterdir()) == []

    play(tmp_path, scenario)


def test_the_sum_of_an_attempt_of_few_is_of_exactly_their_streams(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.go(Phase.EXCHANGING)
        await hub.post(hub.scene.absence(await hub.state(), "d"))
        await hub.go(Phase.COLLECTING, without=("d",), attempt=2)
        layout = (await hub.state()).shapes[0].layout
        roster = Roster(4)
        levels = {silo: roster.levels(layout)[silo] for silo in REST}
        streams = {}
        for silo, frames in roster.streams(layout, levels).items():
            path = tmp_path / f"stream-of-{silo}"
            with path.open("wb") as file:
                write_stream(file, frames)
            streams[silo] = path.read_bytes()
            ref = await hub.announce(silo, streams[silo])
            await hub.send(ref, 0, streams[silo])
        await asyncio.sleep(1)
        state = await hub.state()
        total = state.post(PostKind.SUM, HUB, round=1, attempt=2)
        assert total is not None
        assert set(total.body["streams"]) == set(REST)
        ref = BlobRef(job=hub.job, kind=BlobKind.SUM, round=1, attempt=2, sender=HUB)
        kept = await hub.coordinator.read_blob("d", ref, 0, 10_000_000)
        assert hashlib.sha256(kept).hexdigest() == total.body["sha256"]
        await hub.go(Phase.EXCHANGING, without=("d",), round=2)
        assert await hub.coordinator.read_blob("d", ref, 0, 10_000_000) == kept
        stream = ref.model_copy(update={"kind": BlobKind.STREAM, "sender": "a"})
        with pytest.raises(ProtocolError, match="not here"):
            await hub.coordinator.read_blob("b", stream, 0, 10)

    play(tmp_path, scenario)


def test_a_paused_job_waits_for_nobody_and_still_expires(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.post(hub.scene.pause(await hub.state(), "b"))
        await hub.go(Phase.PAUSED)
        await asyncio.sleep(4 * 3600)
        state = await hub.state()
        assert (state.phase, state.absent) == (Phase.PAUSED, frozenset())
        await asyncio.sleep(3600 + 120)
        state = await hub.state()
        assert (state.outcome, state.reason) == ("expired", "not finished within 5 hours")

    play(tmp_path, scenario)


def test_a_paused_job_that_is_resumed_gives_everybody_their_minutes(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.post(hub.scene.pause(await hub.state(), "b"))
        await hub.go(Phase.PAUSED)
        await asyncio.sleep(3600)
        await hub.post(hub.scene.resume(await hub.state(), "c"))
        await asyncio.sleep(LIMIT - 1)
        await hub.post(*hub.scene.due(await hub.state(), without=("a",)))
        await asyncio.sleep(2)
        state = await hub.state()
        assert (state.attempt, state.absent) == (2, frozenset("a"))

    play(tmp_path, scenario)


def test_a_stream_of_a_burned_attempt_is_no_stream_of_the_next(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.go(Phase.COLLECTING)
        ref = await hub.announce("a", b"aaaaa")
        await hub.send(ref, 0, b"aaaaa")
        await hub.post(hub.scene.absence(await hub.state(), "d"))
        await hub.go(Phase.COLLECTING, without=("d",), attempt=2)
        moved = ref.model_copy(update={"attempt": 2})
        with pytest.raises(ProtocolError, match="has not been announced"):
            await hub.send(moved, 0, b"aaaaa")
        await hub.announce("a", b"other")
        assert await hub.coordinator.blob_offset("a", moved) == 0

    play(tmp_path, scenario)
