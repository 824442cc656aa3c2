"""More people than places: each is kept by a coin of their own, and what biases it is a noised number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.alignment.blinding import Blinding
from privacy.alignment.spine import GateEpsilonError
from privacy.alignment.thinning import reserve, share_kept
from privacy.randomness import WordSource, unsafe_seeded_words

CAPACITY, EPSILON = 2_000, 0.5
SECRET, RUN = bytes(range(32)), "run"
SETTINGS = settings(max_examples=25, deadline=None)


def words(count: int) -> list[str]:
    return [f"word-{number}" for number in range(count)]


def test_everybody_is_kept_who_surely_fits() -> None:
    source = WordSource.from_os()
    few = CAPACITY - 2 * reserve(EPSILON)
    assert all(share_kept(few, CAPACITY, EPSILON, source) == 1.0 for _ in range(50))
    assert Blinding(SECRET, RUN).fitting(words(few), CAPACITY, EPSILON) == tuple(range(few))


def test_a_reserve_is_where_the_noise_ends_but_for_a_chance_of_two_to_the_minus_forty() -> None:
    assert math.exp(-EPSILON * reserve(EPSILON)) <= 2.0**-40 < math.exp(-EPSILON * (reserve(EPSILON) - 1))


@SETTINGS
@given(num_people=st.integers(0, 20_000), seed=st.integers(0, 2**32))
def test_the_places_suffice_at_the_far_end_of_the_coins(num_people: int, seed: int) -> None:
    """Seven standard deviations above the mean still fit, as a chance below 2^-39 demands."""
    chance = share_kept(num_people, CAPACITY, EPSILON, unsafe_seeded_words(seed))
    assert 0.0 <= chance <= 1.0
    spread = math.sqrt(num_people * chance * (1 - chance))
    assert num_people * chance + 7 * spread <= CAPACITY


@SETTINGS
@given(num_people=st.integers(1_800, 2_600), secret=st.binary(min_size=32, max_size=32))
def test_a_list_is_never_longer_than_its_capacity(num_people: int, secret: bytes) -> None:
    kept = Blinding(secret, RUN).fitting(words(num_people), CAPACITY, EPSILON)
    assert len(kept) <= CAPACITY


@SETTINGS
@given(num_people=st.integers(1_800, 2_600), secret=st.binary(min_size=32, max_size=32))
def test_one_person_more_never_moves_another_in(num_people: int, secret: bytes) -> None:
    """With the same noise the bias of every coin falls: nobody comes in for somebody who goes."""
    everybody = words(num_people)
    without = set(Blinding(secret, RUN).fitting(everybody[:-1], CAPACITY, EPSILON))
    assert set(Blinding(secret, RUN).fitting(everybody, CAPACITY, EPSILON)) <= without | {num_people - 1}


def test_a_coin_is_a_persons_own() -> None:
    """The same words in another order, or among others, fall alike."""
    blinding, many = Blinding(SECRET, RUN), words(3_000)
    kept = {many[place] for place in blinding.fitting(many, CAPACITY, EPSILON)}
    turned = many[::-1]
    assert {turned[place] for place in blinding.fitting(turned, CAPACITY, EPSILON)} == kept
    assert 0.5 * CAPACITY < len(kept) < CAPACITY
    other = Blinding(SECRET, "another run").fitting(many, CAPACITY, EPSILON)
    assert {many[place] for place in other} != kept


def test_an_epsilon_without_noise_is_refused() -> None:
    with pytest.raises(GateEpsilonError):
        share_kept(1, 2, 1e-5, WordSource.from_os())
