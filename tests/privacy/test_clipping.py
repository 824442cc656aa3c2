from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from privacy.clipping import (
    MAX_EXACT_ROWS,
    Clipping,
    ClippingError,
    clip_factors,
    clip_rows,
    grid_of,
)

Rows = npt.NDArray[np.float64]
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1e308, -1e308, 5e-324])
ANY_ROWS = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=ANY_FLOAT)
NORMS = st.floats(1e-6, 1e6)
KINDS: tuple[Clipping, ...] = ("flat", "automatic")
BOTH = pytest.mark.parametrize("mode", KINDS)


def exact_square(row: Rows) -> Fraction:
    return sum((Fraction(value) ** 2 for value in row.tolist()), Fraction(0))


@settings(max_examples=300, deadline=None)
@given(ANY_ROWS, NORMS, st.sampled_from(KINDS))
def test_no_row_whatsoever_exceeds_the_norm_in_exact_arithmetic(
    rows: Rows, max_norm: float, mode: Clipping
) -> None:
    for row in clip_rows(rows, max_norm, mode):
        assert exact_square(row) <= Fraction(max_norm) ** 2


@BOTH
@pytest.mark.parametrize(
    "row",
    [
        [1.0, 2.0**-32],  # on the grid; its computed norm is 1 and its real norm is larger
        [1.0, *[2.0**-32] * 500],
        [1.6 * 2.0**-32] * 4000 + [1.0],  # to the nearest grid point would add to the norm
        [1.0 / 70] * 4900,
    ],
)
def test_rows_made_to_slip_past_rounding_do_not(row: list[float], mode: Clipping) -> None:
    assert exact_square(clip_rows(np.array([row]), 1.0, mode)[0]) <= 1


@settings(max_examples=100, deadline=None)
@given(ANY_ROWS, ANY_ROWS.map(lambda rows: rows[0]), NORMS, st.sampled_from(KINDS))
def test_adding_any_user_moves_the_sum_by_that_users_row_exactly(
    others: Rows, added: Rows, max_norm: float, mode: Clipping
) -> None:
    """Sensitivity, adversarial users included: no floating-point residue of the others."""
    user = np.resize(added, (1, others.shape[1]))
    without = clip_rows(others, max_norm, mode).sum(axis=0)
    with_user = clip_rows(np.concatenate([others, user]), max_norm, mode).sum(axis=0)
    difference = [
        Fraction(a) - Fraction(b) for a, b in zip(with_user.tolist(), without.tolist(), strict=True)
    ]
    assert difference == [Fraction(value) for value in clip_rows(user, max_norm, mode)[0].tolist()]
    assert sum(value**2 for value in difference) <= Fraction(max_norm) ** 2


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_do_not_depend_on_the_order_of_users(dtype: type[np.floating], mode: Clipping) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((5000, 20)) * 10.0 ** rng.integers(-8, 8, (5000, 1))).astype(dtype)
    clipped = clip_rows(rows, 0.7, mode)
    assert np.array_equal(clipped.sum(axis=0), clipped[rng.permutation(5000)].sum(axis=0))
    assert clipped.sum(axis=0).tolist() == [math.fsum(column) for column in clipped.T.tolist()]


def test_the_grid_leaves_room_for_the_most_rows() -> None:
    for max_norm in (1e-100, 0.3, 1.0, 1.5, 2.0, 1e100):
        assert max_norm / grid_of(max_norm) * MAX_EXACT_ROWS <= 2.0**53
        assert max_norm / grid_of(max_norm) >= 2.0**32


def test_rows_within_the_norm_are_kept_and_others_scaled_in_place() -> None:
    rows = np.array([[0.3, -0.4], [3.0, -4.0], [0.6, 0.8]])
    expected = [[0.3, -0.4], [0.6, -0.8], [0.6, 0.8]]
    assert clip_rows(rows, 1.0) == pytest.approx(np.array(expected), abs=1e-8)
    assert rows[1].tolist() == [3.0, -4.0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0]),
        ([math.nan, 1.0], [0.0, 0.0]),
        ([1.0, math.inf], [0.0, 0.0]),
        ([-math.inf, math.inf], [0.0, 0.0]),
        ([1e308, 1e308], [math.sqrt(0.5), math.sqrt(0.5)]),
        ([-1e200, 0.0], [-1.0, 0.0]),
        ([5e-324, 1e-300], [0.0, 0.0]),
        ([1e-14, 0.5], [0.0, 0.5]),
    ],
)
def test_edges(row: list[float], expected: list[float]) -> None:
    assert clip_rows(np.array([row]), 1.0)[0] == pytest.approx(expected, abs=1e-8)


def test_one_bad_row_leaves_the_others_alone() -> None:
    clipped = clip_rows(np.array([[math.nan, 0.1], [0.2, 0.3]]), 1.0)
    assert clipped == pytest.approx(np.array([[0.0, 0.0], [0.2, 0.3]]), abs=1e-9)


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 30.0])
def test_automatic_clipping_is_the_formula_of_its_paper(max_norm: float) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 7)) * 10.0 ** np.arange(-4, 6).repeat(5)[:, None]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    expected = rows * max_norm / (norms + 0.01 * max_norm)
    assert clip_rows(rows, max_norm, "automatic") == pytest.approx(expected, rel=1e-7, abs=1e-8 * max_norm)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0]),
        ([math.nan, 1.0], [0.0, 0.0]),
        ([1.0, -math.inf], [0.0, 0.0]),
        ([1e308, 1e308], [math.sqrt(0.5), math.sqrt(0.5)]),
        ([3.0, 4.0], [3 / 5.01, 4 / 5.01]),
        ([0.0, 0.01], [0.0, 0.5]),
        ([1e-6, 0.0], [1e-6 / 0.010001, 0.0]),
        ([5e-324, 0.0], [0.0, 0.0]),
        ([1e-300, 1e-200], [0.0, 0.0]),
    ],
)
def test_edges_of_automatic_clipping(row: list[float], expected: list[float]) -> None:
    assert clip_rows(np.array([row]), 1.0, "automatic")[0] == pytest.approx(expected, abs=1e-8)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e300), NORMS, st.sampled_from(KINDS))
def test_a_factor_leaves_no_gradient_longer_than_the_norm(
    norm: float, max_norm: float, mode: Clipping
) -> None:
    """In exact arithmetic, though the norm was computed too small and the factor was rounded."""
    factor = clip_factors(np.array([norm * (1 - 2.0**-31)]), max_norm, mode)[0]
    assert 0 <= factor <= (1 if mode == "flat" else 100)
    assert Fraction(float(factor)) * Fraction(norm) <= Fraction(max_norm)


@BOTH
def test_factors_are_the_scales_of_clipped_rows(mode: Clipping) -> None:
    rows = np.random.default_rng(2).standard_normal((40, 9)) * 10.0 ** np.arange(-4, 4).repeat(5)[:, None]
    factors = clip_factors(np.linalg.norm(rows, axis=1), 0.6, mode)
    assert factors[:, None] * rows == pytest.approx(clip_rows(rows, 0.6, mode), abs=1e-9)


@BOTH
def test_a_norm_that_is_no_number_belongs_to_nobody(mode: Clipping) -> None:
    assert clip_factors(np.array([math.nan, math.inf, 0.0]), 1.0, mode)[:2].tolist() == [0.0, 0.0]
    assert clip_factors(np.array([1.0, 2.0]), 0.0, mode).tolist() == [0.0, 0.0]
    with pytest.raises(ClippingError):
        clip_factors(np.ones(1), math.nan, mode)


def test_norm_zero_and_empty_batches() -> None:
    assert not clip_rows(np.ones((2, 3)), 0.0).any()
    assert clip_rows(np.empty((0, 3)), 1.0).shape == (0, 3)
    assert clip_rows(np.empty((2, 0)), 1.0).shape == (2, 0)


@pytest.mark.parametrize("max_norm", [-1.0, math.nan, math.inf, 1e-200, 1e200])
def test_norms_without_guarantees_are_refused(max_norm: float) -> None:
    with pytest.raises(ClippingError):
        clip_rows(np.ones((1, 1)), max_norm)


def test_a_vector_is_not_a_batch() -> None:
    with pytest.raises(ClippingError, match="dimensions"):
        clip_rows(np.ones(3), 1.0)
