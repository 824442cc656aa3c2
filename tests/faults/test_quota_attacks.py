"""A member that tries to fill the coordinator: it is stopped, and only it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from federation.client import make_proposal, proposal_id
from federation.coordinator import Coordinator
from federation.job_view import describe
from federation.listening import SettingsError, load_limits
from federation.messages import Cancel, seal
from federation.quotas import CoordinatorLimits, OverQuotaError, RefusalMeter
from federation.rounds import Phase, advance
from federation.trail import REFUSED
from privacy.errors import ArchipelError
from privacy.ledger.chain import read_entries
from tests.contracts.board_scene import Scene, scene_plan
from tests.contracts.federation_directories import Federation, make_federation, popularity_plan
from tests.contracts.transport_contract import some_bytes

CATALOGUE = some_bytes(1000)
PLAN = popularity_plan(CATALOGUE)


class Hub:
    """A running coordinator with small limits, a clock to turn, and a member with bad intentions."""

    def __init__(self, federation: Federation, **limits: Any) -> None:
        self.federation = federation
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.limits = CoordinatorLimits.model_validate(limits)
        self.coordinator = self.made()

    def made(self) -> Coordinator:
        hub = self.federation.hub
        return Coordinator(
            hub.directory, hub, self.federation.charter, limits=self.limits, clock=lambda: self.now
        )

    async def restart(self) -> None:
        await self.coordinator.stop()
        self.coordinator = self.made()
        await self.coordinator.start()

    async def propose(self, by: str = "shop-a", num_bytes: int = 1000) -> str:
        proposal = make_proposal(self.federation.parties[by], PLAN, num_bytes, datetime.now(UTC))
        await self.coordinator.handle_post(by, proposal.to_bytes())
        return proposal_id(proposal)

    async def cancel(self, job: str, by: str = "shop-a") -> None:
        identity = self.federation.parties[by].identity
        envelope = seal(Cancel(), job=job, sender=by, identity=identity)
        await self.coordinator.handle_post(by, envelope.to_bytes())
        for _ in range(200):
            if self.coordinator._board.has_ended(job):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the job did not end")

    def refusals(self) -> list[dict[str, Any]]:
        path = self.federation.hub.directory / "trail.db"
        return [dict(entry.payload) for entry in read_entries(path) if entry.kind == REFUSED]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path)


@asynccontextmanager
async def running(federation: Federation, **limits: Any) -> AsyncIterator[Hub]:
    hub = Hub(federation, **limits)
    await hub.coordinator.start()
    try:
        yield hub
    finally:
        await hub.coordinator.stop()


def test_a_member_floods_the_board_with_jobs(federation: Federation) -> None:
    async def attack() -> None:
        async with running(federation, max_open_jobs_per_party=2) as hub:
            first = await hub.propose()
            await hub.propose()
            with pytest.raises(OverQuotaError, match="max_open_jobs_per_party"):
                await hub.propose()
            await hub.propose("shop-b")
            await hub.restart()
            with pytest.raises(OverQuotaError):
                await hub.propose()
            await hub.cancel(first)
            await hub.propose()

    asyncio.run(attack())


def test_a_proposal_sent_again_is_no_further_job(federation: Federation) -> None:
    async def retry() -> None:
        async with running(federation, max_open_jobs_per_party=1) as hub:
            proposal = make_proposal(federation.parties["shop-a"], PLAN, 1000, datetime.now(UTC)).to_bytes()
            first = await hub.coordinator.handle_post("shop-a", proposal)
            assert await hub.coordinator.handle_post("shop-a", proposal) == first

    asyncio.run(retry())


def test_a_member_proposes_and_cancels_without_end(federation: Federation) -> None:
    async def attack() -> None:
        async with running(federation, max_proposals_per_day_per_party=3) as hub:
            for _ in range(3):
                await hub.cancel(await hub.propose())
            with pytest.raises(OverQuotaError, match="within a day"):
                await hub.propose()
            await hub.propose("shop-c")
            hub.now += timedelta(days=1)
            await hub.propose()

    asyncio.run(attack())


def test_a_member_fills_the_disk_with_catalogues(federation: Federation) -> None:
    async def attack() -> None:
        async with running(federation, max_catalogue_bytes_per_party=2500) as hub:
            await hub.propose()
            await hub.propose()
            with pytest.raises(OverQuotaError, match="3000 bytes"):
                await hub.propose()
            await hub.propose(num_bytes=500)

    asyncio.run(attack())


def test_a_member_occupies_every_call_by_waiting(federation: Federation) -> None:
    async def attack() -> None:
        async with running(federation, max_waiting_calls_per_party=2) as hub:
            waits = [asyncio.create_task(hub.coordinator.handle_posts("shop-a", 0, 30.0)) for _ in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(OverQuotaError, match="max_waiting_calls_per_party"):
                await hub.coordinator.handle_posts("shop-a", 0, 30.0)
            assert await hub.coordinator.handle_posts("shop-b", 0, 0.0) == []
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            assert await hub.coordinator.handle_posts("shop-a", 0, 0.0) == []

    asyncio.run(attack())


def test_a_member_grows_the_trail_with_refusals(federation: Federation) -> None:
    async def attack() -> None:
        async with running(federation, max_noted_refusals_per_hour_per_party=3) as hub:
            for by in ["shop-a"] * 50 + ["shop-b"]:
                with pytest.raises(ArchipelError):
                    await hub.coordinator.handle_post(by, b"{}")
            noted = [entry["party"] for entry in hub.refusals()]
            assert noted == ["shop-a"] * 3 + ["shop-b"]
            hub.now += timedelta(hours=1)
            with pytest.raises(ArchipelError):
                await hub.coordinator.handle_post("shop-a", b"{}")
            said = hub.refusals()[4:]
            assert [entry["code"] for entry in said] == ["over_quota", "protocol"]
            assert "47 more" in said[0]["what"]

    asyncio.run(attack())


def test_a_clock_set_back_does_not_silence_the_trail_for_ever() -> None:
    meter = RefusalMeter(CoordinatorLimits(max_noted_refusals_per_hour_per_party=1))
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert meter.see("shop-a", now) == (True, 0)
    assert meter.see("shop-a", now) == (False, 0)
    assert meter.see("shop-a", now - timedelta(days=1)) == (True, 1)


@pytest.mark.parametrize(
    "text",
    ["[limits]\nmax_open_jobs_per_party = 0\n", "[limits]\nmax_open_job = 3\n", "limits = 3\n",
     "[limits]\nmax_job_hours = -1\n", "[limits\n"],
)  # fmt: skip
def test_limits_that_are_none_stop_the_coordinator(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(SettingsError):
        load_limits(tmp_path)


def test_limits_come_from_the_coordinators_own_file(tmp_path: Path) -> None:
    assert load_limits(tmp_path) == CoordinatorLimits()
    (tmp_path / "agent.toml").write_text("listen_port = 1\n[limits]\nmax_open_jobs_per_party = 3\n")
    assert load_limits(tmp_path).max_open_jobs_per_party == 3


def test_every_limit_stands_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference-files.md").read_text(encoding="utf-8")
    for name, field in CoordinatorLimits.model_fields.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert float(row.split("|")[3]) == field.default


def test_a_member_that_burns_the_others_budget_is_named() -> None:
    scene = Scene(scene_plan(max_burned_rounds=1))
    state = scene.until(scene.start, Phase.RECEIVING)
    state = advance(state, scene.burn(state, "b"))
    assert state.given_up_by == {"b": 1}
    assert describe(state)["given_up_by"] == {"b": 1}
    state = scene.until(state, Phase.RECEIVING)
    state = advance(state, scene.burn(state, "c"))
    assert state.given_up_by == {"b": 1, "c": 1}
