"""What a malicious member, or whoever alters its posts, tries with the coordinator's board."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.client import make_proposal, proposal_id
from federation.coordinator import Coordinator
from federation.messages import (
    Acceptance,
    BlobKind,
    BlobRef,
    Body,
    Cancel,
    Denial,
    Ended,
    Envelope,
    ReasonCode,
    Sum,
    seal,
)
from federation.rounds import StalePostError
from federation.trail import REFUSED
from policies.canonical import digest
from privacy.errors import (
    ArchipelError,
    DeniedError,
    EquivocationError,
    ProtocolError,
    TrustError,
)
from privacy.ledger.chain import read_entries
from tests.contracts.federation_directories import Federation, make_federation, popularity_plan
from tests.contracts.transport_contract import some_bytes

CATALOGUE = some_bytes(1000)
PLAN = popularity_plan(CATALOGUE)
HEX = "0" * 64


class Board:
    """A running coordinator with one proposed job, and hands to throw things at it."""

    def __init__(self, federation: Federation, coordinator: Coordinator, job: str) -> None:
        self.federation = federation
        self.coordinator = coordinator
        self.job = job

    def sealed(
        self, body: Body, sender: str, *, job: str = "", round: int = 0, attempt: int = 0, key: str = ""
    ) -> Envelope:
        identity = self.federation.parties[key or sender].identity
        return seal(body, job=job or self.job, sender=sender, identity=identity, round=round, attempt=attempt)

    def yes(self, sender: str, *, job: str = "", key: str = "") -> Envelope:
        body = Acceptance(plan_sha256=digest(PLAN), policy_sha256=HEX, policy_version=3)
        return self.sealed(body, sender, job=job, key=key)

    def no(self, sender: str) -> Envelope:
        reasons = (ReasonCode(code="epsilon", field="privacy.target_epsilon"),)
        return self.sealed(Denial(plan_sha256=digest(PLAN), reasons=reasons), sender)

    async def post(self, party: str, envelope: Envelope | bytes) -> int:
        raw = envelope if isinstance(envelope, bytes) else envelope.to_bytes()
        return await self.coordinator.handle_post(party, raw)

    async def board(self) -> list[tuple[int, bytes]]:
        return await self.coordinator.handle_posts("shop-a", 0, 0.0)

    async def refuses(
        self, party: str, envelope: Envelope | bytes, error: type[ArchipelError], match: str
    ) -> None:
        before = await self.board()
        with pytest.raises(error, match=match):
            await self.post(party, envelope)
        assert await self.board() == before
        trail = self.federation.hub.directory / "trail.db"
        refused = [entry.payload for entry in read_entries(trail) if entry.kind == REFUSED]
        assert refused[-1]["party"] == party


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Board]:
    federation = make_federation(directory)
    coordinator = Coordinator(federation.hub.directory, federation.hub, federation.charter)
    await coordinator.start()
    try:
        proposal = make_proposal(federation.parties["shop-a"], PLAN, len(CATALOGUE), datetime.now(UTC))
        await coordinator.handle_post("shop-a", proposal.to_bytes())
        yield Board(federation, coordinator, proposal_id(proposal))
    finally:
        await coordinator.stop()


def attack(directory: Path, play: Callable[[Board], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with running(directory) as board:
            await play(board)

    asyncio.run(whole())


def test_an_altered_post(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        document = json.loads(board.yes("shop-b").to_bytes())
        document["body"]["policy_version"] = 4
        raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        await board.refuses("shop-b", raw, TrustError, "not signed by its charter identity")

    attack(tmp_path, play)


def test_a_post_in_anothers_name(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        await board.refuses("shop-b", board.yes("shop-c"), ProtocolError, "in the name of shop-c")
        forged = board.yes("shop-c", key="shop-b")
        await board.refuses("shop-c", forged, TrustError, "not signed")

    attack(tmp_path, play)


def test_a_stranger(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        await board.refuses("shop-x", board.yes("shop-b"), DeniedError, "not a party of the charter")

    attack(tmp_path, play)


def test_a_post_of_another_job_replayed(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        first = board.job
        again = make_proposal(board.federation.parties["shop-a"], PLAN, len(CATALOGUE), datetime.now(UTC))
        await board.post("shop-a", again)
        recorded = board.yes("shop-b")
        await board.post("shop-b", recorded)
        moved = recorded.model_copy(update={"job": proposal_id(again)})
        assert moved.job != first
        await board.refuses("shop-b", moved, TrustError, "not signed")

    attack(tmp_path, play)


def test_a_post_replayed_to_its_own_place_changes_nothing(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        recorded = board.yes("shop-b")
        first = await board.post("shop-b", recorded)
        before = await board.board()
        assert await board.post("shop-b", recorded) == first
        assert await board.board() == before

    attack(tmp_path, play)


def test_two_answers_of_one_silo(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        await board.post("shop-b", board.yes("shop-b"))
        await board.refuses("shop-b", board.no("shop-b"), EquivocationError, "already posted")
        other = Acceptance(plan_sha256=digest(PLAN), policy_sha256="1" * 64, policy_version=3)
        second = board.sealed(other, "shop-b")
        await board.refuses("shop-b", second, EquivocationError, "already said another")

    attack(tmp_path, play)


def test_a_member_outside_the_roster(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        await board.refuses("hub", board.yes("hub"), ProtocolError, "may not post")

    attack(tmp_path, play)


def test_a_silo_plays_the_coordinator(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        end = board.sealed(Ended(outcome="failed", reason="because"), "shop-b")
        await board.refuses("shop-b", end, ProtocolError, "may not post")
        total = Sum(sha256=HEX, num_bytes=1, num_frames=1, streams={})
        forged = board.sealed(total, "shop-b", round=1, attempt=1)
        await board.refuses("shop-b", forged, ProtocolError, "may not post")

    attack(tmp_path, play)


def test_a_post_after_the_end(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        await board.post("shop-a", board.sealed(Cancel(), "shop-a"))
        while b'"ended"' not in (await board.board())[-1][1]:
            await board.coordinator.handle_posts("shop-a", (await board.board())[-1][0], 5.0)
        await board.refuses("shop-b", board.yes("shop-b"), StalePostError, "has ended")

    attack(tmp_path, play)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1", b"\xff\xfe", b'{"kind":"exec"}', b"x" * 300_000, b'{"a":' * 5000]
)
def test_bytes_that_are_no_post(tmp_path: Path, raw: bytes) -> None:
    async def play(board: Board) -> None:
        await board.refuses("shop-b", raw, ProtocolError, "post")

    attack(tmp_path, play)


def test_a_post_that_is_not_in_canonical_form(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        raw = json.dumps(json.loads(board.yes("shop-b").to_bytes()), indent=1).encode()
        await board.refuses("shop-b", raw, ProtocolError, "canonical")

    attack(tmp_path, play)


def test_an_unknown_job(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        await board.refuses("shop-b", board.yes("shop-b", job="ab" * 16), ProtocolError, "no job")

    attack(tmp_path, play)


def test_other_bytes_than_announced(tmp_path: Path) -> None:
    async def play(board: Board) -> None:
        ref = BlobRef(job=board.job, kind=BlobKind.CATALOGUE, sender="shop-a")
        evil = bytes(len(CATALOGUE))
        sha256 = hashlib.sha256(evil).hexdigest()
        with pytest.raises(ProtocolError, match="differ from their signed manifest"):
            await board.coordinator.append_blob("shop-a", ref, 0, evil, sha256)
        assert await board.coordinator.blob_offset("shop-a", ref) == 0
        with pytest.raises(ProtocolError, match="beyond the 1000"):
            await board.coordinator.append_blob(
                "shop-a", ref, 0, evil + b"x", hashlib.sha256(evil + b"x").hexdigest()
            )
        with pytest.raises(ProtocolError, match="may not upload"):
            await board.coordinator.append_blob("shop-b", ref, 0, evil, sha256)

    attack(tmp_path, play)
