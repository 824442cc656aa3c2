"""The coordinator's answer to finished lists: slots that equal sets, and one answer however often asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from federation.legs.matching import Found, TooFew
from federation.legs.spines import KEY_FILE, find_spine
from policies.plans.vertical.terms import AlignmentTerms
from privacy.alignment.blinding import Blinding
from privacy.alignment.points import PointsError

CAPACITY, RUN = 6, "run"
PEOPLE = {"a": ["anna", "ben", "cleo"], "b": ["ben", "cleo", "dora"], "c": ["cleo", "ben", "emil"]}


def finished(directory: Path) -> tuple[dict[str, Path], dict[str, list[int]]]:
    """What each silo sends to the coordinator, by owner, and where its people stand in its list."""
    blindings = {name: Blinding.generate(RUN) for name in PEOPLE}
    names, lists, places = list(PEOPLE), {}, {}
    for number, (name, people) in enumerate(PEOPLE.items()):
        points = blindings[name].own_list(people, CAPACITY)
        for step in range(1, len(names)):
            points = blindings[names[(number + step) % len(names)]].blind(points, CAPACITY)
        lists[name] = directory / f"list-{name}"
        lists[name].write_bytes(blindings[names[number - 1]].veil() + points)
        places[name] = blindings[name].places(len(people), CAPACITY).tolist()
    return lists, places


def terms(epsilon: float = 10.0, least: int = 1) -> AlignmentTerms:
    return AlignmentTerms(capacities=dict.fromkeys(PEOPLE, CAPACITY), min_intersection=least, epsilon=epsilon)


def slots_in(directory: Path) -> Mapping[str, Path]:
    return {name: directory / f"slots-{name}" for name in PEOPLE}


def test_equal_people_share_a_slot_and_others_do_not(tmp_path: Path) -> None:
    lists, places = finished(tmp_path)
    found = find_spine(lists, terms(), slots_in(tmp_path))
    assert found == Found(3 * CAPACITY)
    slot_of: dict[str, set[int]] = {}
    for name, path in slots_in(tmp_path).items():
        slots = np.frombuffer(path.read_bytes(), dtype="<u8")
        for person, place in zip(PEOPLE[name], places[name], strict=True):
            slot_of.setdefault(person, set()).add(int(slots[place]))
    assert [len(slots) for slots in slot_of.values()] == [1] * 5
    assert len(set.union(*slot_of.values())) == 5


def test_an_answer_that_nobody_saw_is_given_again(tmp_path: Path) -> None:
    """Noise drawn anew at each trial would be several looks for the price of one."""
    lists, _ = finished(tmp_path)
    uncertain = terms(epsilon=0.05, least=2)
    slots = slots_in(tmp_path)
    first = find_spine(lists, uncertain, slots)
    written = [path.read_bytes() for path in slots.values() if path.exists()]
    for _ in range(30):
        assert type(find_spine(lists, uncertain, slots)) is type(first)
        assert [path.read_bytes() for path in slots.values() if path.exists()] == written
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_another_job_has_other_noise(tmp_path: Path) -> None:
    lists, _ = finished(tmp_path)
    answers = set()
    for _ in range(40):
        (tmp_path / KEY_FILE).unlink(missing_ok=True)
        answers.add(type(find_spine(lists, terms(epsilon=0.05, least=2), slots_in(tmp_path))))
    assert answers == {Found, TooFew}


@pytest.mark.parametrize("cut", [0, 31, 100])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, cut: int) -> None:
    lists, _ = finished(tmp_path)
    lists["b"].write_bytes(lists["b"].read_bytes()[:cut])
    with pytest.raises(PointsError):
        find_spine(lists, terms(), slots_in(tmp_path))
