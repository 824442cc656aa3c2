from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from federation import coordinator as module
from federation.client import Board, make_proposal
from federation.coordinator import Coordinator
from federation.messages import BlobKind, BlobRef, Cancel, proposal_id, seal
from federation.quotas import CoordinatorLimits
from federation.rounds import Phase
from federation.transport.inprocess import connect_in_process
from privacy.errors import ProtocolError, TrustError
from tests.contracts.federation_directories import Federation, make_federation, popularity_plan
from tests.contracts.transport_contract import some_bytes

CATALOGUE = some_bytes(3_000_000)
SHA256 = hashlib.sha256(CATALOGUE).hexdigest()
PLAN = popularity_plan(CATALOGUE)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Hub:
    def __init__(self, federation: Federation, clock: Clock) -> None:
        self.federation = federation
        self.clock = clock
        self.coordinator = self.made()

    def made(self) -> Coordinator:
        return Coordinator(
            self.federation.hub.directory,
            self.federation.hub,
            self.federation.charter,
            limits=CoordinatorLimits(max_job_hours=2),
            clock=self.clock,
        )

    async def restart(self) -> None:
        await self.coordinator.stop()
        self.coordinator = self.made()
        await self.coordinator.start()

    async def propose(self, by: str = "shop-a") -> str:
        proposal = make_proposal(self.federation.parties[by], PLAN, len(CATALOGUE), datetime.now(UTC))
        await self.coordinator.handle_post(by, proposal.to_bytes())
        return proposal_id(proposal)

    async def cancel(self, job: str, by: str = "shop-a") -> None:
        party = self.federation.parties[by]
        envelope = seal(Cancel(), job=job, sender=by, identity=party.identity)
        await self.coordinator.handle_post(by, envelope.to_bytes())

    async def state(self, job: str, party: str = "hub") -> Board:
        board = Board(self.federation.charter)
        await board.refresh(connect_in_process(self.coordinator, party))
        return board

    async def until_ended(self, job: str) -> str | None:
        for _ in range(200):
            found = (await self.state(job)).jobs[job]
            if found.phase is Phase.ENDED:
                return found.outcome
            await asyncio.sleep(0.02)
        raise AssertionError("the job has not ended")

    async def send(self, ref: BlobRef, offset: int, chunk: bytes) -> int:
        digest = hashlib.sha256(chunk).hexdigest()
        return await self.coordinator.append_blob(ref.sender, ref, offset, chunk, digest)


def play(directory: Path, scenario: Callable[[Hub], Awaitable[None]]) -> None:
    async def whole() -> None:
        hub = Hub(make_federation(directory), Clock())
        await hub.coordinator.start()
        try:
            await scenario(hub)
        finally:
            await hub.coordinator.stop()

    asyncio.run(whole())


def catalogue_of(job: str, sender: str = "shop-a") -> BlobRef:
    return BlobRef(job=job, kind=BlobKind.CATALOGUE, sender=sender)


def test_the_coordinator_lists_the_jobs_it_serves(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        assert list((await hub.state(job, "hub")).jobs) == [job]
        assert list((await hub.state(job, "shop-c")).jobs) == [job]

    play(tmp_path, scenario)


def test_a_restart_finds_every_post_and_an_upload_where_it_stood(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        await hub.send(catalogue_of(job), 0, CATALOGUE[:1_000_000])
        before = await hub.coordinator.handle_posts("shop-a", 0, 0)
        await hub.restart()
        assert await hub.coordinator.handle_posts("shop-a", 0, 0) == before
        assert await hub.coordinator.blob_offset("shop-a", catalogue_of(job)) == 1_000_000

    play(tmp_path, scenario)


def test_an_upload_that_was_never_checked_is_checked_when_somebody_asks(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        spool = hub.federation.hub.directory / "spool" / job
        spool.mkdir(parents=True)
        (spool / "catalogue-0-0-shop-a.part").write_bytes(CATALOGUE)
        with pytest.raises(ProtocolError, match="not here"):
            await hub.coordinator.read_blob("shop-b", catalogue_of(job), 0, 10)
        assert await hub.coordinator.blob_offset("shop-a", catalogue_of(job)) == len(CATALOGUE)
        assert await hub.coordinator.read_blob("shop-b", catalogue_of(job), 0, 10) == CATALOGUE[:10]

    play(tmp_path, scenario)


def test_the_last_chunk_twice_at_once_is_checked_once(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        await hub.send(catalogue_of(job), 0, CATALOGUE[:2_000_000])
        tries = (
            hub.send(catalogue_of(job), 2_000_000, CATALOGUE[2_000_000:]),
            hub.send(catalogue_of(job), 3_000_000, b""),
            hub.coordinator.blob_offset("shop-a", catalogue_of(job)),
        )
        assert set(await asyncio.gather(*tries)) == {3_000_000}

    play(tmp_path, scenario)


def test_an_ended_job_takes_no_bytes_and_lets_an_upload_end(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        await hub.cancel(job)
        assert await hub.until_ended(job) == "cancelled"
        assert await hub.coordinator.blob_offset("shop-a", catalogue_of(job)) == len(CATALOGUE)
        assert await hub.send(catalogue_of(job), 0, CATALOGUE[:10]) == len(CATALOGUE)
        assert not list((hub.federation.hub.directory / "spool").iterdir())

    play(tmp_path, scenario)


def test_a_cancelled_job_ends_even_if_the_coordinator_stops_at_once(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        await hub.cancel(job)
        await hub.restart()  # stopped before the task that would have ended the job had begun
        assert await hub.until_ended(job) == "cancelled"

    play(tmp_path, scenario)


def test_a_job_that_outstays_its_time_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPIRY_CHECK_SECONDS", 0.01)

    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        hub.clock.now += timedelta(hours=1.9)
        await hub.restart()
        await asyncio.sleep(0.1)
        assert (await hub.state(job)).jobs[job].phase is Phase.PROPOSED
        hub.clock.now += timedelta(hours=0.2)
        assert await hub.until_ended(job) == "expired"

    play(tmp_path, scenario)


def test_an_expired_charter_stops_everything(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        await hub.propose()
        hub.clock.now = datetime(2099, 1, 3, tzinfo=UTC)
        with pytest.raises(TrustError, match="in force until"):
            await hub.coordinator.info("shop-a")
        with pytest.raises(TrustError, match="in force until"):
            await hub.propose()
        with pytest.raises(TrustError, match="in force until"):
            await hub.coordinator.handle_posts("shop-a", 0, 0)

    play(tmp_path, scenario)


def test_waiting_for_news_ends_with_the_news(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        waiting = asyncio.create_task(hub.coordinator.handle_posts("shop-b", 0, 30.0))
        await asyncio.sleep(0)
        await hub.propose()
        assert len(await waiting) == 1
        assert await hub.coordinator.handle_posts("shop-b", 1, 0.01) == []

    play(tmp_path, scenario)


def test_only_the_roster_reads_and_streams_wait_for_the_sum(tmp_path: Path) -> None:
    async def scenario(hub: Hub) -> None:
        job = await hub.propose()
        await hub.send(catalogue_of(job), 0, CATALOGUE)
        assert await hub.coordinator.read_blob("shop-c", catalogue_of(job), 0, 5) == CATALOGUE[:5]
        with pytest.raises(ProtocolError, match="not in this job's roster"):
            await hub.coordinator.read_blob("hub", catalogue_of(job), 0, 5)
        with pytest.raises(ProtocolError, match="from the job's proposer"):
            await hub.coordinator.read_blob("shop-a", catalogue_of(job, "shop-b"), 0, 5)
        stream = BlobRef(job=job, kind=BlobKind.STREAM, round=1, attempt=1, sender="shop-b")
        with pytest.raises(ProtocolError, match="has not been announced"):
            await hub.coordinator.read_blob("shop-a", stream, 0, 5)

    play(tmp_path, scenario)
