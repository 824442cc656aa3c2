"""A vertical job from its proposal to its end, with the product's coordinator and agents."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation import client
from federation.client import Board, make_proposal
from federation.coordinator import Coordinator
from federation.job_view import progress_line
from federation.legs.legs import Leg, LegPurpose, legs, price_of
from federation.rounds import JobState, Phase
from federation.transport.grpc_client import connect
from federation.transport.grpc_server import GrpcServer
from privacy.errors import ProtocolError
from silo.jobs.context import JobContext
from silo.site import Site
from silo.vertical.contents import CONTENTS
from tests.contracts.federation_directories import SILOS
from tests.support.vertical_federation import (
    IN_COMMON,
    OpaqueContent,
    VerticalFederation,
    vertical_federation,
)


def test_every_leg_arrives_where_it_is_meant_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = vertical_federation(tmp_path, monkeypatch)
    state = federation.play(federation.until_ended)
    assert (state.outcome, state.reason) == ("completed", state.reason)
    assert len(state.opened) == state.num_rounds == 2 + 1 + 1 + 1 + 3 + 1
    for silo in SILOS:
        assert federation.concluded(silo)["slots"] == f"slots of {silo}"
    assert federation.concluded(SILOS[0])["moments"] == dict.fromkeys(SILOS[1:], True)
    for silo in SILOS:
        assert_paid(federation, silo)


def assert_paid(federation: VerticalFederation, silo: str) -> None:
    """The ledger committed what the legs of this silo cost, once each, and has nothing left reserved."""
    prices = [price_of(federation.plan, leg, silo) for leg in legs(federation.plan)]
    with Site(federation.parties.parties[silo].directory) as site:
        allowances = site.ledger.state().jobs[federation.job].allowances
    committed = [item.event for item in allowances for _ in range(item.committed)]
    assert sorted(map(repr, committed)) == sorted(repr(event) for event in prices if event is not None)


class Looking(OpaqueContent):
    """Notes how many events the ledger has committed whenever content is made or taken in."""

    def __init__(self) -> None:
        self.committed: dict[tuple[str, str, str], int] = {}

    def _look(self, context: JobContext, what: str, leg: Leg) -> None:
        allowances = context.site.ledger.state().jobs[context.job].allowances
        self.committed[context.me, what, leg.in_words] = sum(item.committed for item in allowances)

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        self._look(context, "write", leg)
        await super().write(context, leg, target)

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        self._look(context, "read", leg)
        await super().read(context, leg, received)


def test_what_a_leg_costs_is_charged_before_its_content_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, looking = vertical_federation(tmp_path, monkeypatch), Looking()
    for purpose in LegPurpose:
        monkeypatch.setitem(CONTENTS, purpose, looking)
    assert federation.play(federation.until_ended).outcome == "completed"
    label, feature = SILOS[0], SILOS[1]
    assert [looking.committed[silo, "write", "hop 1 of 2"] for silo in SILOS] == [1, 1, 1]
    assert looking.committed[feature, "read", "slots"] == 1
    assert (
        looking.committed[feature, "read", "key"] == looking.committed[feature, "read", "block 3 of 3"] == 2
    )
    assert looking.committed[feature, "write", "moments"] == 3
    assert looking.committed[label, "read", "moments"] == 1


def test_people_whom_all_have_in_common_may_be_revealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = vertical_federation(tmp_path, monkeypatch, reveal="both")
    state = federation.play(federation.until_ended)
    assert (state.outcome, state.spine_slots) == ("completed", IN_COMMON)
    assert state.num_rounds == 7


def test_a_pause_between_two_legs_and_what_watch_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = vertical_federation(tmp_path, monkeypatch)
    party = federation.parties.parties[SILOS[0]]

    async def scenario(board: Board) -> JobState:
        state = await federation.until(lambda state: state.round == 1, board)
        await client.pause(federation._leader, party, state)
        state = await federation.until(lambda state: state.phase is Phase.PAUSED, board)
        assert "paused" in progress_line(state)
        await client.resume(federation._leader, party, state)
        return await federation.until_ended(board)

    assert federation.play(scenario).outcome == "completed"


def test_a_coordinator_that_can_match_nobody_takes_no_vertical_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = vertical_federation(tmp_path, monkeypatch)
    hub, party = federation.parties.hub, federation.parties.parties[SILOS[0]]

    async def scenario() -> None:
        coordinator = Coordinator(hub.directory, hub, federation.parties.charter)
        await coordinator.start()
        try:
            proposal = make_proposal(party, federation.plan, 10, datetime.now(UTC))
            with pytest.raises(ProtocolError, match="takes no vertical plan"):
                await coordinator.handle_post(party.name, proposal.to_bytes())
        finally:
            await coordinator.stop()

    asyncio.run(scenario())


def test_a_vertical_job_over_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = vertical_federation(tmp_path, monkeypatch)
    parties = federation.parties

    async def whole() -> JobState:
        server = await GrpcServer.start(
            federation.hub, identity=parties.hub.tls, pinned=parties.pinned, host="127.0.0.1", port=0
        )
        federation.connections = {name: connect(parties.endpoint(name, server.port)) for name in SILOS}
        try:
            async with federation.running() as board:
                return await federation.until_ended(board)
        finally:
            for connection in federation.connections.values():
                await connection.close()
            await server.stop(0.1)

    assert asyncio.run(whole()).outcome == "completed"
    assert federation.concluded(SILOS[0])["moments"] == dict.fromkeys(SILOS[1:], True)
