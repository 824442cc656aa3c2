"""Worlds of a vertical demo: the same people, different data, and nothing held out in any silo's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.io
import scipy.sparse as sp

from policies.files import load_yaml
from policies.silo_policy import SiloPolicy
from privacy.errors import DataError, UsageError
from silo.data.ciao import RATINGS_FILE, TRUST_FILE, CiaoError, load_ciao
from silo.demo.vertical import dataset
from silo.demo.vertical.dataset import VerticalData, prepare
from silo.demo.vertical.harness import only_members
from silo.demo.vertical.settings import CONTENT_SILO, LABEL_SILO, SOCIAL_SILO, VerticalSettings
from silo.demo.vertical.staging import VerticalStaging, declared


def settings_of(data: Path | None = None, **changes: object) -> VerticalSettings:
    given = {
        "data": data, "format": None, "min_rating": None, "epsilon": 4.0, "delta": 1e-5,
        "seed": 0, "num_seeds": 1, "out": Path("run"),
    }  # fmt: skip
    return VerticalSettings(**(given | changes)).check()  # type: ignore[arg-type]


def pairs_of(rows: sp.csr_matrix, data: VerticalData) -> set[tuple[str, str]]:
    found = rows.tocoo()
    items = data.catalogue.item_ids
    return {(data.people[u], items[i]) for u, i in zip(found.row, found.col, strict=True)}


@pytest.fixture(scope="module")
def market() -> VerticalData:
    return prepare(settings_of(people=400), 0)


def write_interactions(folder: Path, num_people: int = 60, num_items: int = 40) -> Path:
    rng = np.random.default_rng(3)
    rows = [
        (f"person-{person:02d}", f"item-{item:02d}", int(100 * person + place))
        for person in range(num_people)
        for place, item in enumerate(rng.permutation(num_items)[: rng.integers(15, 30)])
    ]
    folder.mkdir()
    names = ["user_id", "item_id", "timestamp"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(folder / "interactions.csv")
    return folder


def write_ciao(folder: Path) -> Path:
    """Three categories; persons 1 to 60 rate, and trust the next two; 61 only trusts."""
    rng = np.random.default_rng(1)
    ratings = [
        (person, 100 * category + item, category, 5, 1, 960_000_000)
        for person in range(1, 61)
        for category, count in ((1, 12), (2, 9), (3, 6))
        for item in rng.permutation(25)[:count]
    ]
    trust = [(person, 1 + (person + step) % 61) for person in range(1, 62) for step in (0, 1)]
    folder.mkdir()
    scipy.io.savemat(folder / RATINGS_FILE, {"rating": np.array([*ratings, ratings[0]])})
    scipy.io.savemat(folder / TRUST_FILE, {"trustnetwork": np.array([*trust, trust[0]])})
    return folder


def test_the_marketplaces_silos_are_unequal_and_overlap(market: VerticalData) -> None:
    members = {name: set(market.members(name)) for name in (LABEL_SILO, CONTENT_SILO, SOCIAL_SILO)}
    assert [len(one) for one in members.values()] == [300, 280, 240]
    for name, one in members.items():
        others = set.union(*(other for other_name, other in members.items() if other_name != name))
        assert one & others
        assert one - others
    assert len(set.union(*members.values())) <= len(market.people) == 400


def test_a_silos_rows_are_its_own_members_own_rows(market: VerticalData) -> None:
    for name, item_column in (
        (LABEL_SILO, "item_id"),
        (CONTENT_SILO, "content_id"),
        (SOCIAL_SILO, "followed_id"),
    ):
        rows = market.rows_of(name)
        assert rows.columns == ["user_id", item_column]
        assert set(rows["user_id"]) == {market.people[person] for person in market.members(name)}
    assert set(market.rows_of(LABEL_SILO)["item_id"]) <= set(market.catalogue.item_ids)


def test_what_is_held_out_is_in_no_silos_rows(market: VerticalData) -> None:
    held_out = pairs_of(market.users.held_out, market)
    assert len(held_out) > 1_000
    assert pairs_of(market.users.rows, market) == set(market.rows_of(LABEL_SILO).iter_rows())
    assert not held_out & set(market.rows_of(LABEL_SILO).iter_rows())
    per_person = np.diff(market.users.rows.indptr)
    assert per_person.max() == 5


def test_label_items_bounds_the_label_silos_rows_only() -> None:
    few, many = (prepare(settings_of(people=200, label_items=count), 0) for count in (2, 8))
    assert np.diff(few.users.rows.indptr).max() == 2
    assert np.diff(many.users.rows.indptr).max() == 8
    assert few.rows_of(CONTENT_SILO).equals(many.rows_of(CONTENT_SILO))
    both = [pairs_of(one.users.rows, one) | pairs_of(one.users.held_out, one) for one in (few, many)]
    assert both[0] == both[1]


def test_a_set_is_halved_by_items_and_every_pair_is_somewhere_once(tmp_path: Path) -> None:
    folder = write_interactions(tmp_path / "set")
    data = prepare(settings_of(folder, label_items=3), 0)
    (partner,) = data.partners
    mine = pairs_of(data.users.rows, data) | pairs_of(data.users.held_out, data)
    theirs = set(data.rows_of(CONTENT_SILO).iter_rows())
    source = pl.read_csv(folder / "interactions.csv").select("user_id", "item_id")
    counts = source.group_by("item_id").len().filter(pl.col("len") >= 20)["item_id"]
    assert mine | theirs == set(source.filter(pl.col("item_id").is_in(counts.implode())).iter_rows())
    assert not {item for _, item in mine} & {item for _, item in theirs}
    assert set(data.catalogue.item_ids) & set(partner.item_ids) == set()
    assert data.coverage == 1.0


def test_too_few_items_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few items"):
        prepare(settings_of(write_interactions(tmp_path / "set", num_people=15)), 0)


def test_ciao_has_disjoint_categories_and_each_persons_own_row_of_trust(tmp_path: Path) -> None:
    settings = settings_of(write_ciao(tmp_path / "ciao"))
    assert settings.silo_names == (LABEL_SILO, CONTENT_SILO, SOCIAL_SILO)
    data = prepare(settings, 0)
    assert len(data.people) == 61
    category = {silo: {int(i) // 100 for i in ids} for silo, ids in (
        (LABEL_SILO, data.catalogue.item_ids), (CONTENT_SILO, data.partner(CONTENT_SILO).item_ids),
    )}  # fmt: skip
    assert category == {LABEL_SILO: {1, 3}, CONTENT_SILO: {2}}
    trust = data.rows_of(SOCIAL_SILO)
    assert set(trust.filter(pl.col("user_id") == "61")["trusted_id"]) == {"1", "2"}
    assert trust.height == 122
    assert "61" not in set(data.rows_of(LABEL_SILO)["user_id"])
    assert not pairs_of(data.users.rows, data) & pairs_of(data.users.held_out, data)
    assert "100 % of its ratings" in data.notes[0]
    with pytest.raises(UsageError, match="every rating a row"):
        settings_of(tmp_path / "ciao", min_rating=4.0)


def test_a_label_silo_with_too_many_items_keeps_the_most_frequent_and_says_how_much_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(write_interactions(tmp_path / "set"))
    whole = prepare(settings, 0)
    monkeypatch.setattr(dataset, "LABEL_ITEMS_KEPT", 6)
    few = prepare(settings, 0)
    counts = np.asarray((whole.users.rows + whole.users.held_out).sum(axis=0)).ravel()
    assert len(few.catalogue) == 6
    assert few.coverage == pytest.approx(np.sort(counts)[-6:].sum() / counts.sum())
    assert f"{100 * few.coverage:.0f} % of its rows" in few.notes[-1]
    assert "most frequent" not in whole.notes[-1]


def test_a_folder_with_half_of_ciao_is_refused(tmp_path: Path) -> None:
    (write_ciao(tmp_path / "ciao") / TRUST_FILE).unlink()
    with pytest.raises(CiaoError, match="trustnetwork"):
        load_ciao(tmp_path / "ciao")


def test_policies_name_each_silos_own_table_unit_list_and_whom_it_answers(
    market: VerticalData, tmp_path: Path
) -> None:
    staging = VerticalStaging(settings_of(people=400), market)
    policies = {}
    for name in (LABEL_SILO, CONTENT_SILO, SOCIAL_SILO):
        staging.fill(name, tmp_path / name)
        (tmp_path / name / "policy.yaml").write_text(staging.policy(name))
        policies[name] = load_yaml(tmp_path / name / "policy.yaml", SiloPolicy)
        (table,) = policies[name].datasets.values()
        (file,) = (tmp_path / name).glob(table.source.path)
        assert table.columns.item_id in pl.read_parquet(file).columns
    tables = {name: next(iter(policy.datasets.values())) for name, policy in policies.items()}
    assert [one.unit for one in tables.values()] == [None, None, "user_row"]
    assert [one.item_list for one in tables.values()] == [None, "items.jsonl", None]
    assert (tmp_path / CONTENT_SILO / "items.jsonl").exists()
    assert not (tmp_path / SOCIAL_SILO / "items.jsonl").exists()
    purpose = "product-recommendation"
    assert [policy.serving.answers_to(LABEL_SILO, purpose) for policy in policies.values()] == [
        False,
        True,
        True,
    ]
    assert policies[LABEL_SILO].serving.asks
    for name, policy in policies.items():
        assert policy.alignment is not None
        assert policy.alignment.capacity == staging.capacities[name] >= market.members(name).size


@pytest.mark.parametrize("people", [1, 44, 45, 300, 999, 1_001, 3_000, 6_040])
def test_a_declared_size_is_round_and_leaves_room(people: int) -> None:
    assert declared(people) % 50 == 0
    assert declared(people) > people
    assert declared(people) <= 1.1 * people + 500


def test_whoever_is_not_there_brings_nothing(market: VerticalData) -> None:
    partner = market.partner(SOCIAL_SILO)
    features = only_members(np.ones((len(market.people), 3)), partner)
    absent = np.setdiff1d(np.arange(len(market.people)), market.members(SOCIAL_SILO))
    assert np.isnan(features[absent]).all()
    assert (features[market.members(SOCIAL_SILO)] == 1).all()


@pytest.mark.parametrize("kind", ["market", "halves", "ciao"])
def test_nothing_is_listed_on_both_sides(kind: str, market: VerticalData, tmp_path: Path) -> None:
    """A product that both list would be recommended from itself: a lift that is none."""
    if kind == "market":
        data = market
    else:
        write = write_interactions if kind == "halves" else write_ciao
        data = prepare(settings_of(write(tmp_path / "set")), 0)
    listed = set(data.catalogue.item_ids)
    assert all(listed.isdisjoint(partner.item_ids) for partner in data.partners)
