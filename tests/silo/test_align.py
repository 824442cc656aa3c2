"""``archipel align``: somebody approves or refuses before any silo has slots, and spines are listed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from federation.client import Board
from federation.messages import BlobKind, BlobRef, PostKind
from federation.rounds import JobState, Phase
from policies.plans.vertical.price import alignment_event
from privacy.errors import ExitCode, ProtocolError
from silo.align_commands import align_app
from silo.audit.entries import event_text
from silo.jobs.approval import DECISION_FILE
from silo.site import Site
from silo.status import describe as describe_status
from silo.status import gather
from tests.contracts.federation_directories import SILOS
from tests.support.vertical_federation import VerticalFederation, vertical_federation

A, B, C = SILOS
SLOTS = 4


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VerticalFederation:
    """The second silo's policy asks."""
    monkeypatch.setattr("silo.agent.PAUSE_CHECK_SECONDS", 0.1)
    return vertical_federation(tmp_path, monkeypatch, asking=(B,))


def directory(federation: VerticalFederation, silo: str) -> Path:
    return federation.parties.parties[silo].directory


def align(federation: VerticalFederation, silo: str, *words: str) -> Result:
    return CliRunner().invoke(align_app, [*words, "--dir", str(directory(federation, silo))])


def listed(federation: VerticalFederation, silo: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(align(federation, silo, "list", "--json", "-").stdout)
    return found


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments)


async def until_asked(federation: VerticalFederation, board: Board) -> JobState:
    """Until only the silo that asks has not approved, and its agent has left word of that."""

    def is_asked(state: JobState) -> bool:
        said = {place.sender for place in state.posts if place.kind is PostKind.APPROVAL}
        note = federation.sites[B].job_note(state.job)
        return state.phase is Phase.APPROVING and said == {A, C} and note.get("phase") == "approving"

    return await federation.until(is_asked, board)


def play(federation: VerticalFederation, decide: Callable[[Board], Awaitable[None]]) -> JobState:
    async def scenario(board: Board) -> JobState:
        await until_asked(federation, board)
        await decide(board)
        return await federation.until_ended(board)

    state: JobState = federation.play(scenario)
    return state


def test_nobody_has_slots_before_the_silo_that_asks_has_approved(federation: VerticalFederation) -> None:
    async def decide(board: Board) -> None:
        await asyncio.sleep(0.5)  # several times as often as its agent looks
        assert (await federation.state(board)).phase is Phase.APPROVING
        for silo in SILOS:
            ref = BlobRef(job=federation.job, kind=BlobKind.SLOTS, round=SLOTS, attempt=1, sender=silo)
            with pytest.raises(ProtocolError, match="while its readers fetch"):
                await federation.hub.read_blob(silo, ref, 0, 1000)
        found = await in_thread(listed, federation, B)
        (one,) = found["alignments"]
        assert (one["approval"], one["phase"], one["outcome"]) == ("waits", "approving", None)
        status = await gather(directory(federation, B))
        assert any("align approve" in str(line) for line in describe_status(status))
        assert "waits for a decision" in (await in_thread(align, federation, B, "list")).output
        result = await in_thread(align, federation, B, "approve", federation.job[:8])
        assert result.exit_code == 0, result.output
        assert "the agent says so now" in result.output

    state = play(federation, decide)
    assert state.outcome == "completed"
    for silo in SILOS:
        assert federation.concluded(silo)["slots"] == f"slots of {silo}"
    (one,) = listed(federation, B)["alignments"]
    assert (one["approval"], one["outcome"]) == ("approved", "completed")
    assert (one["role"], one["slots"]) == ("feature", 450)
    assert one["charged_at"] >= one["reserved_at"]
    assert listed(federation, B)["runs"] == {"allowed": 9, "used": 1, "days": 30, "left": 8}
    (other,) = listed(federation, A)["alignments"]
    assert (other["approval"], other["role"], other["partners"]) == ("automatic", "label", [B, C])


def test_a_refusal_ends_the_job_with_words_and_nobody_has_slots(federation: VerticalFederation) -> None:
    async def decide(board: Board) -> None:
        assert (await in_thread(align, federation, B, "refuse", federation.job)).exit_code == 0

    state = play(federation, decide)
    assert (state.outcome, state.reason) == ("denied", f"{B} does not approve the alignment")
    assert not [place for place in state.posts if place.round >= SLOTS and place.kind is PostKind.RECEIVED]
    spool = federation.parties.hub.directory / "spool" / federation.job
    assert not spool.exists() or not list(spool.glob("slots-*"))
    for silo in SILOS:
        assert not (directory(federation, silo) / "jobs" / federation.job / "concluded.json").exists()
        with Site(directory(federation, silo)) as site:
            (account,) = site.ledger.state().accounts.values()
            allowances = site.ledger.state().jobs[federation.job].allowances
        spent = {item.event: item.committed for item in allowances if item.committed}
        assert spent == {alignment_event(federation.plan): 1}
        assert account.epsilon_reserved == 0
    (one,) = listed(federation, B)["alignments"]
    assert (one["approval"], one["outcome"]) == ("refused", "denied")


def test_an_early_decision_is_kept_until_the_agent_is_asked(federation: VerticalFederation) -> None:
    async def scenario(board: Board) -> JobState:
        await federation.until(lambda state: state.round >= 1, board)
        result = await in_thread(align, federation, B, "approve", federation.job)
        assert result.exit_code == 0, result.output
        return await federation.until_ended(board)

    assert federation.play(scenario).outcome == "completed"


def test_an_early_refusal_says_what_stops_the_job_at_once(federation: VerticalFederation) -> None:
    async def scenario(board: Board) -> JobState:
        await federation.until(lambda state: state.round >= 1, board)
        paused = directory(federation, B) / "paused"
        paused.touch()  # so that the job does not come so far meanwhile
        result = await in_thread(align, federation, B, "refuse", federation.job)
        paused.unlink()
        assert "archipel job cancel" in result.output
        assert "when it is asked" in result.output
        return await federation.until_ended(board)

    assert federation.play(scenario).outcome == "denied"


def test_what_was_decided_or_is_not_asked_is_said(federation: VerticalFederation) -> None:
    async def decide(board: Board) -> None:
        unasked = await in_thread(align, federation, A, "approve", federation.job)
        assert unasked.exit_code == ExitCode.USAGE
        assert "alignment.approval is automatic" in unasked.output
        assert (await in_thread(align, federation, B, "approve", federation.job)).exit_code == 0

    play(federation, decide)
    again = align(federation, B, "refuse", federation.job)
    assert again.exit_code == ExitCode.USAGE
    assert "approved already" in again.output
    unknown = align(federation, B, "show", "ffff")
    assert unknown.exit_code == ExitCode.USAGE
    assert "align list" in unknown.output


def test_a_decision_that_cannot_be_read_is_no_approval(federation: VerticalFederation) -> None:
    async def decide(board: Board) -> None:
        path = directory(federation, B) / "jobs" / federation.job / DECISION_FILE
        for content in ("", "[]", '{"decision": true}', '{"decision": "maybe"}', '{"approved": true}'):
            path.write_text(content)
            await asyncio.sleep(0.2)
            assert (await federation.state(board)).phase is Phase.APPROVING
        note = federation.sites[B].job_note(federation.job)
        assert "this is no decision" in note["problem"]
        path.write_text('{"decision": "refuse", "at": "2026-01-01T00:00:00Z"}')

    assert play(federation, decide).outcome == "denied"


def test_show_tells_terms_who_learns_what_and_the_limits(federation: VerticalFederation) -> None:
    async def decide(board: Board) -> None:
        result = await in_thread(align, federation, B, "show", federation.job[:6])
        assert result.exit_code == 0, result.output
        text = " ".join(result.output.split())
        for words in (
            "feature silo", f"{A} 200", "450 slots", "about 20 people in common", "approval here: waits",
            "which of that silo's people are elsewhere", "anybody's id", "the coordinator how many",
            "Next: archipel align approve",
        ):  # fmt: skip
            assert words in text
        result = await in_thread(align, federation, B, "show", federation.job, "--json", "-")
        found = json.loads(result.stdout)
        assert (found["reveal"], found["min_intersection"]) == ("none", 20)
        assert {one["silo"] for one in found["disclosures"]} == set(SILOS)
        assert len(found["limits"]) == 3
        await in_thread(align, federation, B, "refuse", federation.job)

    play(federation, decide)


def test_a_silo_that_was_never_aligned_has_an_empty_list(federation: VerticalFederation) -> None:
    found = listed(federation, C)
    assert found == {"alignments": [], "runs": {"allowed": 9, "used": 0, "days": 30, "left": 9}}


def test_the_ledger_says_in_words_what_was_charged(federation: VerticalFederation) -> None:
    text = event_text(alignment_event(federation.plan))
    assert text.endswith("the noised numbers of its people and of those in common")
