"""Alignment: ids written alike, lists blinded in turn, and slots that equal set operations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.alignment.blinding import Blinding, CapacityError
from privacy.alignment.identifiers import IdentifierError, normalise, pseudonyms
from privacy.alignment.points import POINT_BYTES, PointsError, check_points
from privacy.alignment.spine import (
    NO_SLOT,
    GateEpsilonError,
    Points,
    Spine,
    discrete_laplace,
    find_common,
    has_enough,
    unveiled,
)
from privacy.randomness import WordSource, unsafe_seeded_words

PEPPER, RUN = bytes(range(32)), "ab" * 16


def blinded_by_all(people: Sequence[Sequence[str]], capacity: int) -> tuple[Points, list[list[int]]]:
    """What the coordinator gets, by silo, and where each of its people stands in it."""
    secrets = [Blinding.generate(RUN) for _ in people]
    lists, places = {}, []
    for owner, mine in enumerate(people):
        words = pseudonyms(mine, "exact", PEPPER).words
        points = secrets[owner].own_list(words, capacity)
        for step in range(1, len(people)):
            points = secrets[(owner + step) % len(people)].blind(points, capacity)
        lists[f"silo-{owner}"] = unveiled(points, capacity, secrets[owner].veil())
        places.append(secrets[owner].places(len(words), capacity).tolist())
    return lists, places


def aligned(lists: Points, reveal: str) -> Spine:
    """With a gate that says yes whatever its noise."""
    found = find_common(lists, least=-1000, epsilon=1.0, reveal=reveal, source=WordSource.from_os())  # type: ignore[arg-type]
    assert found is not None
    return found


# ── ids ──


@pytest.mark.parametrize(
    ("kind", "given", "written"),
    [
        ("exact", "Anna ", "Anna "),
        ("exact", "Zoe\u0308", "Zo\u00eb"),
        ("email", " Anna.M@Example.ORG ", "anna.m@example.org"),
        ("email", "\uff41nna@example.org", "anna@example.org"),
        ("phone", "+49 (30) 1234-567", "+49301234567"),
        ("phone", "0049 30 1234567", "+49301234567"),
    ],
)
def test_ids_are_written_alike(kind: str, given: str, written: str) -> None:
    assert normalise(given, kind) == written  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "given", "written"),
    [
        ("DE", "0151 234 567-89", "+4915123456789"),
        ("DE", "(030) 1234567", "+49301234567"),
        ("AT", "0512 345678", "+43512345678"),
        ("IT", "06 1234 5678", "+390612345678"),
        ("US", "(202) 555-0123", "+12025550123"),
        ("DE", "+43 512 345678", "+43512345678"),
        ("US", "0049 30 1234567", "+49301234567"),
    ],
)
def test_a_number_is_the_same_person_with_and_without_its_country(
    region: str, given: str, written: str
) -> None:
    """A silo whose table names countries needs no region to find those of one whose table does not."""
    assert normalise(given, "phone", region) == written == normalise(written, "phone")
    assert pseudonyms([given], "phone", PEPPER, region) == pseudonyms([written], "phone", PEPPER)


@pytest.mark.parametrize("given", ["12", "0151 234567 ext 5", "1-800-FLOWERS", "+49 (0)30 12345", "0" * 18])
def test_a_region_makes_no_number_of_what_is_none(given: str) -> None:
    with pytest.raises(IdentifierError):
        normalise(given, "phone", "DE")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("exact", ""),
        ("email", "anna"),
        ("email", "a@b@c"),
        ("email", ""),
        ("phone", "030 1234567"),
        ("phone", "+"),
    ],
)
def test_what_is_no_id_is_refused_without_being_named(kind: str, given: str) -> None:
    with pytest.raises(IdentifierError) as caught:
        pseudonyms(["x@y.org" if kind == "email" else "+4930123456", given], kind, PEPPER)  # type: ignore[arg-type]
    assert "number 2" in str(caught.value)
    assert not given.strip() or given not in str(caught.value)


def test_ids_that_are_written_alike_are_one_person() -> None:
    found = pseudonyms(["a@x.org", "B@x.org", "A@X.org "], "email", PEPPER)
    assert found.places == (0, 1, 0)
    assert (len(found.words), found.num_merged) == (2, 1)


def test_words_depend_on_pepper_and_kind() -> None:
    words = {
        pseudonyms(["a@x.org"], kind, pepper).words  # type: ignore[arg-type]
        for kind in ("exact", "email")
        for pepper in (PEPPER, PEPPER[::-1])
    }
    assert len(words) == 4


# ── lists ──


def test_a_list_has_its_capacity_whoever_is_in_it() -> None:
    for count in (0, 1, 7):
        own = Blinding.generate(RUN).own_list(
            pseudonyms([str(i) for i in range(count)], "exact", PEPPER).words, 7
        )
        assert len(own) == 7 * POINT_BYTES
        check_points(own, 7)


def test_more_people_than_the_capacity_are_refused() -> None:
    words = pseudonyms(["a", "b", "c"], "exact", PEPPER).words
    with pytest.raises(CapacityError):
        Blinding.generate(RUN).own_list(words, 2)


def test_the_same_secret_gives_the_same_list_after_a_crash() -> None:
    secret, words = Blinding.generate(RUN).secret_bytes(), pseudonyms(["a", "b"], "exact", PEPPER).words
    assert Blinding(secret, RUN).own_list(words, 5) == Blinding(secret, RUN).own_list(words, 5)
    assert Blinding(secret, RUN).own_list(words, 5) != Blinding.generate(RUN).own_list(words, 5)


def test_the_order_of_blinding_does_not_matter() -> None:
    one, two, three = (Blinding.generate(RUN) for _ in range(3))
    words = pseudonyms(["a"], "exact", PEPPER).words
    first = unveiled(three.blind(two.blind(one.own_list(words, 1), 1), 1), 1, one.veil())
    assert unveiled(one.blind(three.blind(two.own_list(words, 1), 1), 1), 1, two.veil()) == first


def test_another_run_blinds_with_other_scalars_in_another_order() -> None:
    secret = Blinding.generate(RUN).secret_bytes()
    one, other = Blinding(secret, RUN), Blinding(secret, "another run")
    assert one.veil() != other.veil()
    assert one.places(2, 50).tolist() != other.places(2, 50).tolist()


@pytest.mark.parametrize("veil", [bytes(32), b"\xff" * 32, b"", bytes(31)])
def test_a_veil_that_is_no_scalar_is_refused(veil: bytes) -> None:
    own = Blinding.generate(RUN).own_list((), 2)
    with pytest.raises(PointsError, match="veil"):
        unveiled(own, 2, veil, where="silo-b")


# ── slots ──

PEOPLE = st.lists(st.text(min_size=1, max_size=6).filter(str.strip), max_size=8)
"""Ids; a blank one is refused before anything is blinded."""


@settings(max_examples=25, deadline=None)
@given(people=st.lists(PEOPLE, min_size=2, max_size=4), reveal=st.sampled_from(["none", "both"]))
def test_slots_equal_set_operations(people: list[list[str]], reveal: str) -> None:
    capacity = 9
    lists, places = blinded_by_all(people, capacity)
    written = [[normalise(one, "exact") for one in mine] for mine in people]
    sets = [set(mine) for mine in written]
    common = set.intersection(*sets)
    if reveal == "both" and not common:
        gate = {"least": -1000, "epsilon": 1.0, "source": WordSource.from_os()}
        assert find_common(lists, reveal="both", **gate) is None  # type: ignore[arg-type]
        return
    found = aligned(lists, reveal)
    spine_slots, slots = found.num_slots, found.slots
    assert spine_slots == (capacity * len(people) if reveal == "none" else len(common))
    slot_of: dict[str, set[int]] = {}
    for number, mine in enumerate(written):
        words = list(dict.fromkeys(mine))
        for person, place in zip(words, places[number], strict=True):
            slot_of.setdefault(person, set()).add(int(slots[f"silo-{number}"][place]))
    assert all(len(own) == 1 for person, own in slot_of.items() if reveal == "none" or person in common)
    used = [next(iter(own)) for person, own in slot_of.items() if reveal == "none" or person in common]
    assert len(set(used)) == len(used)
    assert all(slot < spine_slots for slot in used)
    if reveal == "both":
        assert all(slot_of[person] == {NO_SLOT} for person in set.union(*sets) - common)


def test_slots_are_at_random_places_of_the_spine() -> None:
    """Two people in all, one common: where the slot is tells nothing."""
    lists, places = blinded_by_all([["a"], ["a"]], 3)
    seen = [int(aligned(lists, "none").slots["silo-0"][places[0][0]]) for _ in range(3000)]
    assert stats.chisquare(np.bincount(seen, minlength=6)).pvalue > 1e-6


# ── the gate ──


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_the_gates_noise_is_discrete_laplace(epsilon: float) -> None:
    source, draws = unsafe_seeded_words(7), 6000
    drawn = np.array([discrete_laplace(epsilon, source) for _ in range(draws)])
    p = math.exp(-epsilon)
    values = np.arange(-200, 201)
    expected = (1 - p) / (1 + p) * p ** np.abs(values) * draws
    keep = expected >= 5
    observed = np.array([(drawn == value).sum() for value in values[keep]])
    rest = draws - observed.sum(), draws - expected[keep].sum()
    statistic = ((observed - expected[keep]) ** 2 / expected[keep]).sum()
    statistic += (rest[0] - rest[1]) ** 2 / max(rest[1], 1)
    assert stats.chi2.sf(statistic, keep.sum()) > 1e-6


def test_one_person_more_changes_the_answer_by_at_most_epsilon() -> None:
    """By the exact tail of the noise: ``P[n + X >= t]`` against ``P[n + 1 + X >= t]``, both ways."""
    epsilon, least, draws = 0.5, 10, 4000
    source = unsafe_seeded_words(11)
    share = [np.mean([has_enough(n, least, epsilon, source) for _ in range(draws)]) for n in (9, 10)]
    slack = 4 * 0.5 / math.sqrt(draws)
    assert share[1] <= math.exp(epsilon) * (share[0] + slack)
    assert (1 - share[0]) <= math.exp(epsilon) * (1 - share[1] + slack)
    assert share[1] > share[0] - slack


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 9e-5, math.inf, math.nan])
def test_an_epsilon_without_noise_is_refused(epsilon: float) -> None:
    with pytest.raises(GateEpsilonError):
        has_enough(1, 1, epsilon, WordSource.from_os())


def test_a_gate_without_noise_would_be_caught() -> None:
    """What the distribution test is for: a constant, and noise that is cut off."""
    source = WordSource.from_os()
    drawn = [discrete_laplace(0.1, source) for _ in range(2000)]
    assert np.std(drawn) == pytest.approx(math.sqrt(2) / 0.1, rel=0.15)
    assert max(map(abs, drawn)) > 40


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (b"", "bytes"),
        (b"\x02" * (3 * POINT_BYTES - 1), "bytes"),
        (b"\x02" * (4 * POINT_BYTES), "bytes"),
        (bytes(3 * POINT_BYTES), "compressed"),
        ((b"\x04" + bytes(32)) * 3, "compressed"),
        ((b"\x02" + bytes(32)) * 3, "twice"),
    ],
)
def test_lists_that_cannot_be_lists_are_refused(points: bytes, why: str) -> None:
    with pytest.raises(PointsError, match=why):
        Blinding.generate(RUN).blind(points, 3, where="silo-b")


def test_bytes_that_are_no_points_are_refused_by_name() -> None:
    garbage = b"".join(b"\x02" + bytes([255] * 31) + bytes([i]) for i in range(200))
    with pytest.raises(PointsError, match="silo-b"):
        Blinding.generate(RUN).blind(garbage, 200, where="silo-b")


def test_a_gate_that_says_no_leaves_nothing_behind() -> None:
    lists, _ = blinded_by_all([["a"], ["a"]], 2)
    found = find_common(lists, least=1000, epsilon=1.0, reveal="both", source=WordSource.from_os())
    assert found is None
