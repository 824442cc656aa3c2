"""What a malicious member, or the coordinator with one, tries in the legs of a vertical job."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation.client import Board
from federation.legs.legs import LegPurpose
from federation.legs.matching import TOO_FEW
from federation.messages import BlobKind, BlobRef, Cancel, PostKind, Relayed, Stream, parse_envelope, seal
from federation.rounds import JobState, Phase
from privacy.errors import ProtocolError
from silo.jobs.context import JobContext
from silo.vertical.contents import CONTENTS
from tests.contracts.federation_directories import SILOS
from tests.support.vertical_federation import Hub, OpaqueContent, VerticalFederation, vertical_federation

A, B, C = SILOS
HOP, BLINDED, SLOTS, KEY, MOMENTS = 1, 3, 4, 5, 9


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VerticalFederation:
    return vertical_federation(tmp_path, monkeypatch)


class Held(OpaqueContent):
    """Does not send, or not receive, in one leg, so that the job stands there."""

    def __init__(self, silo: str, leg: int, *, reads: bool = False) -> None:
        self.silo, self.leg, self.reads = silo, leg, reads

    def _holds(self, context: JobContext, leg: Any, *, reads: bool) -> None:
        if (context.me, leg.number, reads) == (self.silo, self.leg, self.reads):
            raise OSError("held back by the test")

    async def write(self, context: JobContext, leg: Any, target: Path) -> None:
        self._holds(context, leg, reads=False)
        await super().write(context, leg, target)

    async def read(self, context: JobContext, leg: Any, received: Any) -> None:
        self._holds(context, leg, reads=True)
        await super().read(context, leg, received)


def hold(monkeypatch: pytest.MonkeyPatch, silo: str, leg: int, *, reads: bool = False) -> None:
    for purpose in LegPurpose:
        monkeypatch.setitem(CONTENTS, purpose, Held(silo, leg, reads=reads))


def at(leg: int, phase: Phase) -> Callable[[JobState], bool]:
    return lambda state: (state.round, state.phase) == (leg, phase)


async def reads(federation: VerticalFederation, party: str, leg: int, sender: str, kind: Any = None) -> bytes:
    ref = BlobRef(job=federation.job, kind=kind or BlobKind.STREAM, round=leg, attempt=1, sender=sender)
    return bytes(await federation.hub.read_blob(party, ref, 0, 1000))


def test_a_reader_that_asks_early_gets_nothing(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, C, HOP)

    async def scenario(board: Board) -> None:
        def a_has_announced(state: JobState) -> bool:
            return state.post(PostKind.STREAM, A, round=HOP, attempt=1) is not None

        await federation.until(a_has_announced, board)
        with pytest.raises(ProtocolError, match="while its readers fetch"):
            await reads(federation, B, HOP, A)

    federation.play(scenario)


def test_nobody_but_the_reader_reads_a_hop(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, B, HOP, reads=True)

    async def scenario(board: Board) -> None:
        await federation.until(at(HOP, Phase.FETCHING), board)
        assert await reads(federation, B, HOP, A)
        for other in (A, C):
            with pytest.raises(ProtocolError, match=f"not for {other}"):
                await reads(federation, other, HOP, A)
        with pytest.raises(ProtocolError, match="roster"):
            await reads(federation, "hub", HOP, A)

    federation.play(scenario)


def test_a_hop_tells_the_coordinator_nothing_of_its_content(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, B, HOP, reads=True)

    async def scenario(board: Board) -> None:
        await federation.until(at(HOP, Phase.FETCHING), board)
        spool = federation.parties.hub.directory / "spool" / federation.job
        content = (spool / f"stream-{HOP}-1-{A}").read_bytes()
        assert b"common-" not in content
        assert b"origin" not in content

    federation.play(scenario)


def test_slots_are_for_the_silo_that_they_are_of(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, B, SLOTS, reads=True)

    async def scenario(board: Board) -> None:
        await federation.until(at(SLOTS, Phase.FETCHING), board)
        assert await reads(federation, B, SLOTS, B, BlobKind.SLOTS) == f"slots of {B}".encode()
        with pytest.raises(ProtocolError, match=f"not for {A}"):
            await reads(federation, A, SLOTS, B, BlobKind.SLOTS)
        ref = BlobRef(job=federation.job, kind=BlobKind.SLOTS, round=SLOTS, attempt=1, sender=B)
        with pytest.raises(ProtocolError, match="may not upload"):
            await federation.hub.append_blob(B, ref, 0, b"x", hashlib.sha256(b"x").hexdigest())

    federation.play(scenario)


def test_the_blinded_lists_are_read_by_no_silo_and_gone_once_matched(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, C, BLINDED)

    async def scenario(board: Board) -> None:
        await federation.until(at(BLINDED, Phase.SENDING), board)
        for party in SILOS:
            with pytest.raises(ProtocolError):
                await reads(federation, party, BLINDED, A)
        hold(monkeypatch, B, SLOTS, reads=True)
        await federation.until(at(SLOTS, Phase.FETCHING), board)
        spool = federation.parties.hub.directory / "spool" / federation.job
        assert {path.name.split("-")[0] for path in spool.iterdir()} == {"catalogue", "slots"}

    federation.play(scenario)


def test_too_few_in_common_ends_the_job_and_says_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = vertical_federation(tmp_path, monkeypatch, min_intersection=41)
    state = federation.play(federation.until_ended)
    assert (state.outcome, state.reason) == ("failed", TOO_FEW)
    assert not any(character.isdigit() for character in state.reason)
    assert not [place for place in state.posts if place.kind is PostKind.MATCHED]


def test_a_silo_that_leaves_mid_alignment_stops_the_job_and_nobody_learns_slots(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, B, BLINDED)

    async def scenario(board: Board) -> JobState:
        await federation.until(at(BLINDED, Phase.SENDING), board)
        party = federation.parties.parties[B]
        await federation.hub.handle_post(B, seal_cancel(federation.job, party.name, party.identity))
        return await federation.until_ended(board)

    state = federation.play(scenario)
    assert state.outcome == "cancelled"
    assert not [place for place in state.posts if place.kind is PostKind.MATCHED]
    for silo in SILOS:
        directory = federation.parties.parties[silo].directory
        assert not list((directory / "outbox").glob(f"{federation.job}-*"))
        assert not (directory / "jobs" / federation.job / "concluded.json").exists()


def seal_cancel(job: str, sender: str, identity: Any) -> bytes:
    return seal(Cancel(), job=job, sender=sender, identity=identity).to_bytes()


class TwoFacedHub(Hub):
    """Shows one silo another public key than the other, signed by the label silo all the same."""

    def __init__(self, federation: VerticalFederation, victim: str, content: bytes) -> None:
        super().__init__()
        self.federation, self.victim, self.content = federation, victim, content

    async def handle_posts(self, party: str, after: int, wait_seconds: float) -> list[tuple[int, bytes]]:
        posts = await self.coordinator.handle_posts(party, after, wait_seconds)  # type: ignore[union-attr]
        return [(seq, self._altered(raw)) for seq, raw in posts] if party == self.victim else posts

    def _altered(self, raw: bytes) -> bytes:
        post, sha256 = parse_envelope(raw), hashlib.sha256(self.content).hexdigest()
        if post.round != KEY or post.kind not in (PostKind.STREAM, PostKind.RELAYED):
            return raw
        body = Stream(sha256=sha256, num_bytes=len(self.content), num_frames=1)
        named = body if post.kind is PostKind.STREAM else Relayed(streams={A: sha256})
        identity = self.federation.parties.parties[post.sender].identity
        return seal(
            named, job=post.job, sender=post.sender, identity=identity, round=KEY, attempt=1
        ).to_bytes()

    async def read_blob(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
        if party == self.victim and (ref.kind, ref.round) == (BlobKind.STREAM, KEY):
            return self.content[offset : offset + limit]
        return bytes(await self.coordinator.read_blob(party, ref, offset, limit))  # type: ignore[union-attr]


def test_a_key_shown_differently_to_two_silos_ends_the_job(federation: VerticalFederation) -> None:
    federation.hub = TwoFacedHub(federation, C, b"another key")
    state = federation.play(federation.until_ended)
    assert state.outcome == "cancelled"
    assert state.round == KEY + 1


def test_bytes_altered_under_way_are_noticed_and_fetched_again(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("silo.agent.REPEAT_SECONDS", 0.1)
    tampered: list[BlobRef] = []

    class Tampering(Hub):
        async def read_blob(self, party: str, ref: BlobRef, offset: int, limit: int) -> bytes:
            chunk = bytes(await self.coordinator.read_blob(party, ref, offset, limit))  # type: ignore[union-attr]
            if ref.kind is BlobKind.STREAM and not tampered:
                tampered.append(ref)
                return bytes([chunk[0] ^ 1]) + chunk[1:]
            return chunk

    federation.hub = Tampering()
    assert federation.play(federation.until_ended).outcome == "completed"
    assert tampered


def test_an_outbox_that_forgot_what_was_announced_ends_the_job(
    federation: VerticalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, C, HOP)

    async def scenario(board: Board) -> JobState:
        def b_has_announced(state: JobState) -> bool:
            return state.post(PostKind.STREAM, B, round=HOP, attempt=1) is not None

        await federation.until(b_has_announced, board)
        federation.sites[B].outbox._db.execute("DELETE FROM posts WHERE kind = 'stream'")
        monkeypatch.setattr("silo.agent.REPEAT_SECONDS", 0.0)
        federation.deaths[B].set()
        return await federation.until_ended(board)

    state = federation.play(scenario)
    assert (state.outcome, state.reason) == ("cancelled", f"cancelled by {B}")
