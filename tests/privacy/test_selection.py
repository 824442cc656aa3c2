"""Permute-and-flip: its exact law, what one person changes, its price, and variants that must be caught."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accounting import epsilon_of
from privacy.budget import RenyiFilter
from privacy.events import EventCount, PureEvent
from privacy.randomness import RandomnessReuseError, unsafe_seeded_words
from privacy.selection import (
    SCORE_GRID,
    PrivateSelection,
    SelectionError,
    integer_scores,
    loss_bound,
    total_utilities,
)
from silo.audit.accountant import SecondAccountant

DRAWS = 1_500
Law = dict[int, float]
Coins = Callable[[Sequence[int], float, int], list[float]]


def flips(utilities: Sequence[int], epsilon: float, sensitivity: int) -> list[float]:
    best = max(utilities)
    return [math.exp(-epsilon * (best - value) / sensitivity) for value in utilities]


def exact_law(utilities: Sequence[int], epsilon: float, sensitivity: int, coins: Coins = flips) -> Law:
    """Permute-and-flip by its definition: over all orders, the first coin that falls heads."""
    heads = coins(utilities, epsilon, sensitivity)
    law = dict.fromkeys(range(len(utilities)), 0.0)
    orders = list(permutations(range(len(utilities))))
    for order in orders:
        rest = 1.0
        for candidate in order:
            law[candidate] += rest * heads[candidate] / len(orders)
            rest *= 1 - heads[candidate]
    return law


def drawn_law(utilities: Sequence[int], epsilon: float, sensitivity: int, draws: int = DRAWS) -> Law:
    source = unsafe_seeded_words(7)
    counts = Counter(
        PrivateSelection(epsilon, sensitivity).choose(utilities, unsafe_source=source).index
        for _ in range(draws)
    )
    return {candidate: counts[candidate] / draws for candidate in range(len(utilities))}


def largest_loss(first: Law, second: Law) -> float:
    return max(abs(math.log(first[candidate] / second[candidate])) for candidate in first)


def neighbours(utilities: Sequence[int], sensitivity: int) -> list[tuple[int, ...]]:
    """One more person, at the corners of what a person may add."""
    corners = product((0, sensitivity), repeat=len(utilities))
    return [tuple(u + c for u, c in zip(utilities, corner, strict=True)) for corner in corners]


@pytest.mark.parametrize("utilities", [(3, 1, 0), (-2, 1, 1, 0)])
def test_candidates_are_drawn_with_the_frequencies_of_the_definition(utilities: tuple[int, ...]) -> None:
    expected, drawn = exact_law(utilities, 0.75, 2), drawn_law(utilities, 0.75, 2)
    for candidate, probability in expected.items():
        assert abs(drawn[candidate] - probability) < 4.5 * math.sqrt(0.25 / DRAWS)


@settings(max_examples=15, deadline=None)
@given(
    utilities=st.lists(st.integers(0, 12), min_size=2, max_size=4),
    epsilon=st.sampled_from([0.0625, 0.5, 2.0]),
)
def test_no_neighbour_moves_any_probability_by_more_than_epsilon(
    utilities: list[int], epsilon: float
) -> None:
    law = exact_law(utilities, epsilon, 3)
    for other in neighbours(utilities, 3):
        assert largest_loss(law, exact_law(other, epsilon, 3)) <= epsilon * (1 + 1e-9)


def test_the_price_is_reached_so_nothing_is_given_away() -> None:
    """Two candidates far apart, and a person who prefers the worse: the bound is met."""
    law, other = exact_law((40, 0), 0.5, 1), exact_law((40, 1), 0.5, 1)
    assert largest_loss(law, other) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "sabotaged"),
    [
        ("hardly any noise", lambda u, e, s: flips(u, 30 * e, s)),
        ("half of the noise", lambda u, e, s: flips(u, 2 * e, s)),
        ("sensitivity of one row instead of one person", lambda u, e, s: flips(u, e, 1)),
    ],
)
def test_a_variant_that_protects_less_is_caught(name: str, sabotaged: Coins) -> None:
    base, epsilon = (8, 2, 0), 0.2
    law = exact_law(base, epsilon, 3, sabotaged)
    worst = max(largest_loss(law, exact_law(o, epsilon, 3, sabotaged)) for o in neighbours(base, 3))
    assert worst > 1.2 * epsilon, name


def test_google_s_accountant_finds_no_more_than_is_charged() -> None:
    """The two exact distributions by dp_accounting, beside the event by the auditor's accountant."""
    epsilon, delta = 0.8, 1e-6
    event = PrivateSelection(epsilon).event
    charged = SecondAccountant().opinion({event.model_dump_json(): 1}, delta)
    for other in neighbours((6, 5, 0), 2):
        laws = exact_law((6, 5, 0), epsilon, 2), exact_law(other, epsilon, 2)
        logs = [{k: math.log(p) for k, p in law.items()} for law in laws]
        for upper, lower in (logs, logs[::-1]):
            found = privacy_loss_distribution.from_two_probability_mass_functions(
                upper, lower, value_discretization_interval=1e-4
            )
            assert found.get_epsilon_for_delta(delta) <= charged.epsilon + 1e-3
    filter_ = RenyiFilter(orders=(2.0, 64.0))
    assert epsilon_of([EventCount(event, 1)], delta, filter_) >= charged.epsilon - 1e-9


def test_a_person_s_scores_are_rounded_alone_and_bounded() -> None:
    scores = np.array([-1.0, 0.0, 0.25, 1.0, 7.0, np.nan, np.inf, -np.inf])
    assert integer_scores(scores).tolist() == [
        0,
        0,
        SCORE_GRID // 4,
        SCORE_GRID,
        SCORE_GRID,
        0,
        SCORE_GRID,
        0,
    ]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=8))
def test_one_person_more_moves_all_utilities_up_by_at_most_the_grid(people: list[list[float]]) -> None:
    rows = [np.array(row) for row in people]
    moved = total_utilities(rows, 3) - total_utilities(rows[1:], 3)
    assert (moved >= 0).all()
    assert (moved <= SCORE_GRID).all()


def test_the_loss_stays_within_its_bound_as_often_as_promised() -> None:
    utilities, epsilon = (100, 97, 90, 0), 0.5
    law = exact_law(utilities, epsilon, 1)
    bound = loss_bound(epsilon, len(utilities), probability=0.05)
    assert sum(p for k, p in law.items() if utilities[k] < 100 - bound) <= 0.05


def test_a_choice_is_made_once_and_says_what_it_costs() -> None:
    selection = PrivateSelection(0.3)
    chosen = selection.choose([0, 1 << 40])
    assert chosen == (1, PureEvent(epsilon=0.3))
    with pytest.raises(RandomnessReuseError):
        selection.choose([0, 1])


@pytest.mark.parametrize("utilities", [[1], [], [0.5, 1.0], [[1, 2]]])
def test_what_is_no_choice_is_refused(utilities: list[object]) -> None:
    with pytest.raises(SelectionError):
        PrivateSelection(0.1).choose(np.array(utilities))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_a_price_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(SelectionError):
        PrivateSelection(epsilon)


def test_gaps_far_beyond_floating_point_are_compared_exactly() -> None:
    """A gap whose probability no double can hold still ends, and in favour of the better."""
    assert PrivateSelection(1.0, 1).choose([0, 5_000], unsafe_source=unsafe_seeded_words(1)).index == 1
    assert Fraction(0.1) != Fraction(1, 10)  # epsilon is the double that is charged, to the last bit
