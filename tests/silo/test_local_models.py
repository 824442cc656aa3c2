from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from silo.local import models
from silo.local.models import (
    ITEM_GRAPH,
    ITEM_KNN,
    POPULARITY,
    ItemNeighbours,
    LocalModels,
    LocalPartsError,
    nearest_items,
)
from silo.vertical.joint.model import ItemSide, JointModel, Weights
from tests.contracts.family_contract import NUM_ITEMS, make_catalogue, make_interactions, random_histories


def histories(seed: int = 0, num_users: int = 60, num_items: int = NUM_ITEMS) -> sp.csr_matrix:
    rows = random_histories(seed, num_users, num_items)
    return make_interactions(rows, make_catalogue(num_items)).matrix()


def cosines(matrix: sp.csr_matrix) -> np.ndarray:
    """By definition, one pair at a time; nothing is near itself or an item that nobody has."""
    dense = matrix.toarray()
    found = np.zeros((dense.shape[1], dense.shape[1]))
    for one in range(dense.shape[1]):
        for other in range(dense.shape[1]):
            lengths = np.linalg.norm(dense[:, one]) * np.linalg.norm(dense[:, other])
            if one != other and lengths > 0:
                found[one, other] = dense[:, one] @ dense[:, other] / lengths
    return found


@pytest.mark.parametrize("num_items", [NUM_ITEMS, 300])  # 300: more than one block
def test_all_neighbours_are_the_cosines(num_items: int) -> None:
    matrix = histories(num_items=num_items)
    found = nearest_items(matrix, num_neighbours=num_items)
    np.testing.assert_allclose(found.toarray(), cosines(matrix), atol=1e-6)


def test_each_item_hears_its_nearest_only() -> None:
    matrix = histories()
    everything, found = cosines(matrix), nearest_items(matrix, num_neighbours=3).toarray()
    for item in range(NUM_ITEMS):
        best = np.argsort(-everything[:, item], kind="stable")[:3]
        best = best[everything[best, item] > 0]
        assert sorted(np.flatnonzero(found[:, item])) == sorted(best)
        np.testing.assert_allclose(found[best, item], everything[best, item], atol=1e-6)


def test_a_history_votes_by_similarity() -> None:
    matrix = histories()
    model = ItemNeighbours(nearest_items(matrix, NUM_ITEMS))
    person = sp.csr_matrix(np.eye(1, NUM_ITEMS, k=2) + np.eye(1, NUM_ITEMS, k=5))
    expected = cosines(matrix)[2] + cosines(matrix)[5]
    np.testing.assert_allclose(model.scores(person)[0], expected, atol=1e-6)
    assert not model.scores(sp.csr_matrix((1, NUM_ITEMS))).any()


def test_the_item_graph_is_the_same_ease_as_the_joint_solvers() -> None:
    matrix = histories()
    ridge = models_ridge(matrix)
    joint = JointModel(ItemSide(matrix, ridge), (), Weights(ridge, normalisation=1.0))
    expected = joint.scores(matrix, ())
    scores = LocalModels.fit(matrix).scorers()[ITEM_GRAPH].scores(matrix).astype(np.float64)
    lengths = np.diff(matrix.indptr)[:, None]
    unseen = matrix.toarray() == 0
    np.testing.assert_allclose((scores * lengths)[unseen], expected[unseen], atol=1e-4)


def models_ridge(matrix: sp.csr_matrix) -> float:
    return 16.0 * float(matrix.sum()) / matrix.shape[1]


def test_popularity_counts_people() -> None:
    matrix = histories()
    scores = LocalModels.fit(matrix).scorers()[POPULARITY].scores(matrix)
    np.testing.assert_array_equal(scores, np.tile(matrix.toarray().sum(axis=0), (60, 1)))


def test_models_survive_their_tables() -> None:
    matrix = histories()
    fitted = LocalModels.fit(matrix)
    again = LocalModels.of_tables(fitted.tables(), NUM_ITEMS)
    assert list(again.scorers()) == [POPULARITY, ITEM_KNN, ITEM_GRAPH]
    for name, model in fitted.scorers().items():
        np.testing.assert_array_equal(again.scorers()[name].scores(matrix), model.scores(matrix))


def test_a_large_catalogue_has_no_item_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_GRAPH_ITEMS", NUM_ITEMS - 1)
    fitted = LocalModels.fit(histories())
    assert fitted.graph is None
    assert list(LocalModels.of_tables(fitted.tables(), NUM_ITEMS).scorers()) == [POPULARITY, ITEM_KNN]


@pytest.mark.parametrize(
    "damage",
    [
        {"popularity": np.zeros(NUM_ITEMS + 1, np.float32)},
        {"popularity": np.full(NUM_ITEMS, np.nan, np.float32)},
        {"item-graph": np.zeros((NUM_ITEMS, 2), np.float32)},
        {"item-knn.starts": np.zeros(3, np.int64)},
        {"item-knn.items": np.full(1, NUM_ITEMS, np.int64)},
        {"item-knn.values": None},
    ],
    ids=["popularity too long", "not finite", "graph too narrow", "starts too short", "outside", "missing"],
)
def test_tables_that_do_not_fit_are_refused(damage: dict[str, np.ndarray | None]) -> None:
    tables = {**LocalModels.fit(histories()).tables(), **damage}
    with pytest.raises(LocalPartsError, match="do not fit"):
        LocalModels.of_tables({name: table for name, table in tables.items() if table is not None}, NUM_ITEMS)
