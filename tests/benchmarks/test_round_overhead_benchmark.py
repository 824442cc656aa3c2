"""The benchmark of a round's overhead: what is counted between which marks, and a real federation of two."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from federation.job_state import Phase

ROUNDS = 4


@pytest.fixture
def overhead(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("round_overhead")


def test_rounds_are_measured_from_the_second_to_the_end_of_the_last(overhead: ModuleType) -> None:
    marks = []
    places = [(number, phase) for number in (1, 2, 3) for phase in overhead.PHASES] + [(3, Phase.CLOSING)]
    for count, (number, phase) in enumerate(places):
        cpu = {"coordinator": 0.01 * count, "a": 0.1 * count, "b": 0.3 * count}
        posts = {"hub": count, "a": 2 * count, "b": 2 * count}
        marks.append(overhead.Mark(0.5 * count, number, phase, posts, cpu))
        marks.append(overhead.Mark(0.5 * count + 0.2, number, phase, posts, {}))

    found = overhead.measure(marks, ("a", "b"), "hub")

    assert found["rounds"] == 2
    assert found["seconds_per_round"] == pytest.approx(4 * 0.5)
    assert found["cpu_seconds_per_round"] == {
        "silo": pytest.approx(4 * 0.2),
        "coordinator": pytest.approx(4 * 0.01),
    }
    assert found["posts_per_round"] == {"silo": 8.0, "coordinator": 4.0}
    assert found["phase_seconds"] == {phase.value: pytest.approx(0.5) for phase in overhead.PHASES}


@pytest.mark.timeout(240)
def test_a_federation_of_two_is_measured(overhead: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    words = ["--silos", "2", "--rounds", str(ROUNDS), "--out", str(tmp_path), "--json", str(target)]

    assert overhead.main(words) == 0

    [one] = json.loads(target.read_text())["federations"]
    assert (one["silos"], one["rounds"]) == (2, ROUNDS - 1)
    assert one["seconds_per_round"] > one["leaving_seconds"]
    assert one["cpu_seconds_per_round"]["silo"] > 0
    assert one["posts_per_round"]["silo"] == 4  # key, stream, received, opened
    assert sum(one["phase_seconds"].values()) == pytest.approx(one["seconds_per_round"], rel=0.5)
