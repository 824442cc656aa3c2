from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from policies.plans.models import ArchitectureName
from silo.local import sequence_training
from silo.local.errors import LocalPartsError
from silo.local.models import LocalModels
from silo.local.sequence import IdNetwork, SequenceModel
from silo.local.sequence_training import Look, SequenceOptions, fit_sequence
from silo.models.sequence.trunk import NO_ITEM, TRUNKS, newest_items

torch.set_num_threads(1)

NUM_ITEMS = 30
SMALL = SequenceOptions(
    width=16, layers=1, places=8, dropout=0.0, learning_rate=1e-2, check_steps=1, patience=3
)


def rows_of(histories: list[list[int]]) -> sp.csr_matrix:
    """Users × items in the order given."""
    starts = np.cumsum([0, *map(len, histories)])
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    return sp.csr_matrix((np.ones(items.size), items, starts), shape=(len(histories), NUM_ITEMS))


def carousel(num_users: int = 120, seed: int = 0) -> sp.csr_matrix:
    """Everybody takes items in the order of a circle: who knows the order knows what comes next."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(0, NUM_ITEMS, num_users), rng.integers(1, 12, num_users)
    return rows_of(
        [((start + np.arange(n)) % NUM_ITEMS).tolist() for start, n in zip(starts, lengths, strict=True)]
    )


def fit(options: SequenceOptions = SMALL, histories: sp.csr_matrix | None = None) -> SequenceModel:
    rows = carousel() if histories is None else histories
    return fit_sequence(rows, np.asarray(rows.sum(axis=0), np.float32).ravel(), options)


@pytest.mark.parametrize("architecture", TRUNKS)
def test_what_comes_next_is_learnt_from_the_order(architecture: ArchitectureName) -> None:
    epochs = 150 if architecture == "masked" else 60  # it is asked for fewer items a step
    model = fit(
        replace(SMALL, architecture=architecture, check_steps=epochs, max_epochs=epochs), carousel(60)
    )
    scores = model.scores(rows_of([[(start + step) % NUM_ITEMS for step in range(4)] for start in range(30)]))
    assert (scores.argmax(axis=1) == (np.arange(30) + 4) % NUM_ITEMS).mean() > 0.6  # by chance: .03


def test_the_order_of_a_history_matters() -> None:
    model = fit(replace(SMALL, max_epochs=2))
    forwards, backwards = model.scores(rows_of([[4, 5, 6], [6, 5, 4]]))
    assert not np.allclose(forwards, backwards)


def test_a_seed_makes_one_model() -> None:
    options = replace(SMALL, max_epochs=2, dropout=0.2, augmentations=frozenset({"crop", "mask", "reorder"}))
    one, again, other = (fit(replace(options, seed=seed)).tables() for seed in (1, 1, 2))
    assert all(one[name].tobytes() == again[name].tobytes() for name in one)
    assert one["items.weight"].tobytes() != other["items.weight"].tobytes()


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    fit(replace(SMALL, max_epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_best_look_is_kept_and_patience_ends_the_training() -> None:
    looks: list[Look] = []
    rows = carousel()
    options = replace(SMALL, patience=2, learning_rate=0.5, max_epochs=100)
    fit_sequence(rows, np.zeros(NUM_ITEMS, np.float32), options, looks.append)
    assert 2 < len(looks) < 100
    assert max(look.quality for look in looks) == looks[-1].best
    assert all(look.quality <= looks[-1].best for look in looks[-2:])


def test_validation_people_are_asked_for_their_newest_item_which_nobody_trains_on() -> None:
    rows = rows_of([[user % 7 + 8, user % 5, 20 + user % 10] for user in range(40)])
    known, relevant, learnt = sequence_training._validation_apart(rows, np.random.default_rng(0))
    assert known.shape[0] == relevant.shape[0] == 20
    assert relevant.indices.min() >= 20
    assert known.indices.max() < 20
    assert sorted(len(row) for row in learnt) == [2] * 20 + [3] * 20


def test_who_has_no_history_gets_popularity() -> None:
    popularity = np.arange(NUM_ITEMS, dtype=np.float32)
    model = fit_sequence(carousel(), popularity, replace(SMALL, max_epochs=1))
    assert model.scores(rows_of([[], [3]]))[0].tolist() == popularity.tolist()


@pytest.mark.parametrize("architecture", TRUNKS)
def test_scores_of_a_person_do_not_depend_on_the_others_lengths(architecture: ArchitectureName) -> None:
    model = fit(replace(SMALL, architecture=architecture, max_epochs=1))
    together = model.scores(rows_of([[1, 2], list(range(20)), [7]]))
    for user, history in enumerate([[1, 2], list(range(20)), [7]]):
        np.testing.assert_allclose(model.scores(rows_of([history]))[0], together[user], atol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in TRUNKS if name != "masked"])
def test_a_causal_network_does_not_look_ahead(architecture: ArchitectureName) -> None:
    network = IdNetwork(NUM_ITEMS, architecture, SMALL.size).eval()
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, NO_ITEM]])
    with torch.no_grad():
        np.testing.assert_allclose(network(one)[0, :2], network(other)[0, :2], atol=1e-6)
        assert not np.allclose(network(one)[0, 2], network(other)[0, 2])


@pytest.mark.parametrize("architecture", TRUNKS)
def test_a_network_survives_its_tables(architecture: ArchitectureName) -> None:
    rows = carousel()
    fitted = LocalModels.fit(rows, replace(SMALL, architecture=architecture, max_epochs=1))
    assert fitted.sequence is not None
    again = LocalModels.of_tables(fitted.tables(), NUM_ITEMS, fitted.sequence.about())
    assert list(again.scorers())[-1] == architecture
    for name, model in fitted.scorers().items():
        np.testing.assert_array_equal(again.scorers()[name].scores(rows), model.scores(rows))


def test_tables_of_another_network_are_refused() -> None:
    model = fit(replace(SMALL, max_epochs=1))
    wrong = {"architecture": "gru", "size": model.about()["size"]}
    for about in (wrong, {"architecture": "oracle", "size": {}}, {}):
        with pytest.raises(LocalPartsError, match="not those of the network"):
            SequenceModel.of_tables(model.tables(), about, model.popularity)


def test_too_large_a_catalogue_and_too_short_histories_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalPartsError, match="nobody has three items"):
        fit(histories=rows_of([[1, 2], [3]]))
    monkeypatch.setattr(sequence_training, "MAX_ITEMS", NUM_ITEMS - 1)
    with pytest.raises(LocalPartsError, match="at most 29 items"):
        fit()


def test_crop_takes_any_stretch_and_no_crop_the_newest() -> None:
    row, rng = np.arange(20), np.random.default_rng(0)
    newest = sequence_training._stretch(row, 5, frozenset(), rng)
    assert newest.tolist() == [15, 16, 17, 18, 19]
    crops = [sequence_training._stretch(row, 5, frozenset({"crop"}), rng) for _ in range(200)]
    assert {int(crop[0]) for crop in crops} == set(range(16))
    assert all((np.diff(crop) == 1).all() for crop in crops)


def test_reorder_shuffles_one_stretch_and_leaves_the_row_alone() -> None:
    row, rng = np.arange(20), np.random.default_rng(0)
    for _ in range(20):
        found = sequence_training._stretch(row, 20, frozenset({"reorder"}), rng)
        assert sorted(found) == list(range(20))
        moved = np.flatnonzero(found != row)
        assert moved.size == 0 or moved[-1] - moved[0] < 5
    assert row.tolist() == list(range(20))


def test_the_newest_items_stand_at_the_left_oldest_first() -> None:
    found = newest_items(rows_of([[5, 3, 9, 1], [], [2]]), 3)
    assert found.tolist() == [[3, 9, 1], [NO_ITEM] * 3, [2, NO_ITEM, NO_ITEM]]
