from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.synthetic import marketplace
from silo.models.features import public_basis, public_uniform, word_table


def catalogue_of(*items: tuple[str, tuple[str, ...]]) -> Catalogue:
    return Catalogue.from_items(
        CatalogueItem(item_id=f"i{index:03d}", title=title, attributes=attributes)
        for index, (title, attributes) in enumerate(items)
    )


@pytest.fixture(scope="module")
def goods() -> Catalogue:
    return marketplace(3, num_users=2, num_items=300).catalogue


def filled(basis: np.ndarray) -> np.ndarray:
    return basis[:, np.abs(basis).sum(axis=0) > 0]


@pytest.mark.parametrize("width", [1, 7, 14, 40, 300])
def test_columns_are_orthonormal_and_empty_ones_come_last(goods: Catalogue, width: int) -> None:
    basis = public_basis(goods, width)
    assert basis.shape == (300, width)
    used = filled(basis)
    np.testing.assert_allclose(used.T @ used, np.eye(used.shape[1]), atol=1e-12)
    assert not basis[:, used.shape[1] :].any()


def test_all_attributes_are_kept_where_there_is_room(goods: Catalogue) -> None:
    basis, attributes = public_basis(goods, 30), goods.features()
    np.testing.assert_allclose(basis @ (basis.T @ attributes), attributes, atol=1e-10)


def test_attributes_that_say_nothing_new_take_no_column() -> None:
    """Every item is red or blue, and large or small: three directions, not four."""
    items = [("", (colour, size)) for colour in ("red", "blue") for size in ("large", "small")] * 3
    assert filled(public_basis(catalogue_of(*items), 4)).shape[1] == 3


def test_more_attributes_than_columns_are_projected_to_their_strongest_directions() -> None:
    items = [("", (f"group {index // 10}", f"rare {index}")) for index in range(40)]
    basis = public_basis(catalogue_of(*items), 4)
    groups = np.repeat(np.eye(4), 10, axis=0)
    np.testing.assert_allclose(basis @ (basis.T @ groups), groups, atol=0.05)


def test_titles_fill_the_rest_with_their_strongest_directions(goods: Catalogue) -> None:
    words = word_table(goods).toarray()
    known = filled(public_basis(goods, 14))[:, :12]
    left = words - known @ (known.T @ words)
    best = np.linalg.svd(left)[1][:20]
    basis = public_basis(goods, known.shape[1] + 20)[:, known.shape[1] :]
    assert np.linalg.norm(basis.T @ left) ** 2 > 0.97 * (best**2).sum()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([5, 20, 60]))
def test_processors_that_differ_in_last_bits_agree(seed: int, width: int) -> None:
    """Perturb the input as another order of summation would, and more."""
    goods = marketplace(3, num_users=2, num_items=300).catalogue
    rng = np.random.default_rng(seed)
    scale = 1 + rng.random(300)
    moved = scale * (1 + 1e-13 * rng.standard_normal(300))
    difference = public_basis(goods, width, scale) - public_basis(goods, width, moved)
    assert np.abs(difference).max() < 1e-8


def test_factorisations_with_other_signs_give_the_same_basis(
    goods: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which sign a column gets is the library's choice, so it must not show."""
    expected = public_basis(goods, 40)
    rng = np.random.default_rng(0)
    library = np.linalg.qr

    def contrary(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, r = library(table)
        signs = rng.choice([-1.0, 1.0], len(r))
        return q * signs, r * signs[:, None]

    monkeypatch.setattr(np.linalg, "qr", contrary)
    np.testing.assert_allclose(public_basis(goods, 40), expected, atol=1e-10)


def test_row_scale_weighs_items(goods: Catalogue) -> None:
    scale = np.where(np.arange(300) < 30, 10.0, 1.0)
    basis = public_basis(goods, 30, scale)
    lengths = (basis**2).sum(axis=1)
    assert lengths[:30].mean() > 3 * lengths[30:].mean()


def test_a_catalogue_of_ids_alone_has_no_features() -> None:
    assert not public_basis(catalogue_of(("", ()), ("", ()), ("", ())), 2).any()


def test_words_are_folded_weighted_and_normalised() -> None:
    items = [("The Matrix", ()), ("THE ｍａｔｒｉｘ reloaded", ()), ("the Rain the rain", ()), ("", ())]
    table = word_table(catalogue_of(*items)).toarray()
    assert table.shape == (4, 2)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), [1, 1, 1, 0])
    matrix, the = table[0]
    assert matrix / the == pytest.approx((np.log(5 / 3) + 1) / (np.log(5 / 4) + 1))


def test_public_numbers_are_golden() -> None:
    """From the raw words of PCG64, whose stream NumPy does not change."""
    assert public_uniform(0, 3).tolist() == GOLDEN
    many = public_uniform(1, 20_000)
    assert many.min() >= -1
    assert many.max() < 1
    assert many.mean() == pytest.approx(0, abs=0.02)
    assert many.var() == pytest.approx(1 / 3, rel=0.03)


GOLDEN = [0.2739233746429086, -0.4604265724722594, -0.9180529521276106]
