from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from privacy.clipping import MAX_EXACT_ROWS, ClippingError, clip_rows, grid_of

Rows = npt.NDArray[np.float64]
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1e308, -1e308, 5e-324])
ANY_ROWS = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=ANY_FLOAT)
NORMS = st.floats(1e-6, 1e6)


def exact_square(row: Rows) -> Fraction:
    return sum((Fraction(value) ** 2 for value in row.tolist()), Fraction(0))


@settings(max_examples=300, deadline=None)
@given(ANY_ROWS, NORMS)
def test_no_row_whatsoever_exceeds_the_norm_in_exact_arithmetic(rows: Rows, max_norm: float) -> None:
    for row in clip_rows(rows, max_norm):
        assert exact_square(row) <= Fraction(max_norm) ** 2


@pytest.mark.parametrize(
    "row",
    [
        [1.0, 2.0**-32],  # on the grid; its computed norm is 1 and its real norm is larger
        [1.0, *[2.0**-32] * 500],
        [1.6 * 2.0**-32] * 4000 + [1.0],  # to the nearest grid point would add to the norm
        [1.0 / 70] * 4900,
    ],
)
def test_rows_made_to_slip_past_rounding_do_not(row: list[float]) -> None:
    assert exact_square(clip_rows(np.array([row]), 1.0)[0]) <= 1


@settings(max_examples=100, deadline=None)
@given(ANY_ROWS, ANY_ROWS.map(lambda rows: rows[0]), NORMS)
def test_adding_any_user_moves_the_sum_by_that_users_row_exactly(
    others: Rows, added: Rows, max_norm: float
) -> None:
    """Sensitivity, adversarial users included: no floating-point residue of the others."""
    user = np.resize(added, (1, others.shape[1]))
    without = clip_rows(others, max_norm).sum(axis=0)
    with_user = clip_rows(np.concatenate([others, user]), max_norm).sum(axis=0)
    difference = [
        Fraction(a) - Fraction(b) for a, b in zip(with_user.tolist(), without.tolist(), strict=True)
    ]
    assert difference == [Fraction(value) for value in clip_rows(user, max_norm)[0].tolist()]
    assert sum(value**2 for value in difference) <= Fraction(max_norm) ** 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_do_not_depend_on_the_order_of_users(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((5000, 20)) * 10.0 ** rng.integers(-8, 8, (5000, 1))).astype(dtype)
    clipped = clip_rows(rows, 0.7)
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
