"""What an audit says of alignments: who looked for whom, and what the stated epsilon does not cover."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from silo.audit.alignments import alignment_assumptions, alignment_lines
from silo.audit.commands import audit_app
from silo.audit.evidence import open_evidence
from silo.audit.spending import overview
from silo.audit.words import assumptions
from tests.contracts.decision_scene import make_plan
from tests.contracts.federation_directories import SILOS
from tests.contracts.leg_scene import leg_plan
from tests.support.vertical_federation import VerticalFederation, vertical_federation


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> VerticalFederation:
    """After one job that was completed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = vertical_federation(tmp_path_factory.mktemp("aligned"), monkeypatch)
        state = made.play(made.until_ended)
    assert state.outcome == "completed", state.reason
    return made


@pytest.mark.parametrize("silo", SILOS)
def test_an_alignment_is_listed_with_its_terms(federation: VerticalFederation, silo: str) -> None:
    with open_evidence(federation.parties.parties[silo].directory) as evidence:
        (line,) = alignment_lines(evidence, overview(evidence))
    assert (line.job, line.label, line.features) == (federation.job, SILOS[0], SILOS[1:])
    assert (line.slots, line.reveal, line.epsilon, line.min_intersection) == (450, "none", 0.1, 20)
    assert line.releases == (1 if silo == SILOS[0] else 3)


def test_a_record_that_cannot_be_read_lists_none(federation: VerticalFederation) -> None:
    with open_evidence(federation.parties.parties[SILOS[0]].directory) as evidence:
        assert list(alignment_lines(evidence, None)) == []


def test_the_ledger_and_the_report_say_it_in_words(federation: VerticalFederation, tmp_path: Path) -> None:
    directory = federation.parties.parties[SILOS[1]].directory
    shown = CliRunner().invoke(audit_app, ["ledger", "--dir", str(directory)], env={"COLUMNS": "250"})
    assert "the noised numbers of its people and of those in common" in " ".join(shown.output.split())
    page = tmp_path / "report.html"
    charter = directory / "charter.yaml"
    CliRunner().invoke(
        audit_app, ["report", "--dir", str(directory), "--charter", str(charter), "--out", str(page)]
    )
    text = page.read_text()
    assert "People in common" in text
    assert f"{SILOS[0]} 200" in text
    assert "which of that silo" in text


def test_vertical_plans_add_what_the_epsilon_does_not_cover() -> None:
    vertical, revealing, horizontal = leg_plan(), leg_plan(reveal="both"), make_plan()
    assert list(alignment_assumptions((horizontal,))) == []
    assert len(list(alignment_assumptions((vertical,)))) == 2
    assert any("Revealed membership" in text for text in alignment_assumptions((vertical, revealing)))
    assert not any(text.startswith("Encryption.") for text in assumptions([vertical]))
    assert any(text.startswith("Encryption.") for text in assumptions([vertical, horizontal]))
