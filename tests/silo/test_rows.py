"""What a contribution is made of: whatever one person's rows are like, everybody else's stay and count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import OutsideCatalogueError, TooManyUsersError
from silo.data.splits import NoTimesError
from silo.data.tables import BadValueError, EmptyTableError, MissingColumnError, UnreadableTableError
from silo.language.places import place_items
from silo.rows import ItemListError, Rows, known_rows, load_rows, plan_catalogue

CATALOGUE = Catalogue.from_items(CatalogueItem(item_id=name) for name in "abcdef")
HEADER = b"user,item,at,amount\n"
GOOD = b"7,a,1,1\n7,b,2,1\n8,c,3,1\n8,d,4,1\n"


def make_plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "silos": ("shop-a", "shop-b", "shop-c"),
        "catalogue_sha256": CATALOGUE.sha256,
        "catalogue_items": len(CATALOGUE),
        "family": "popularity",
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 100,
        "max_silos_per_user": 1,
    }
    return complete_plan(Draft(**{**fields, **changes}))


def make_dataset(source: dict[str, str] | None = None, **columns: str | None) -> Dataset:
    named = {"user_id": "user", "item_id": "item", "timestamp": "at", "weight": "amount"} | columns
    return Dataset.model_validate(
        {
            "source": source or {"csv": "rows.csv"},
            "columns": {role: name for role, name in named.items() if name is not None},
            "max_interactions_per_user": 50,
            "population": "customers",
            "max_silos_per_user": 1,
            "exclude_users": "no.csv",
        }
    )


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    CATALOGUE.save(tmp_path / "catalogues")
    (tmp_path / "no.csv").write_text("user\n")
    (tmp_path / "rows.csv").write_bytes(HEADER + GOOD)
    return tmp_path


def lists(rows: Rows) -> dict[str, list[int]]:
    """Items of each user, training and held out together."""
    return {user: [*rows.train.of(user), *rows.held_out.of(user)] for user in rows.train.user_ids}


@pytest.mark.parametrize(
    ("row", "strict_error"),
    [
        pytest.param(b"9,zebra,1,1\n", OutsideCatalogueError, id="item-outside"),
        pytest.param(b",a,1,1\n", BadValueError, id="no-user"),
        pytest.param(b"9,nan,1,1\n", BadValueError, id="no-item"),
        pytest.param(b"-9,a,1,1\n", BadValueError, id="negative"),
        pytest.param(b"9,a,1,much\n", BadValueError, id="weight-no-number"),
        pytest.param(b"9,a,1,nan\n", BadValueError, id="weight-nan"),
        pytest.param(b"9,a,1,inf\n", BadValueError, id="weight-infinite"),
        pytest.param(b"9,a,1,1,extra\n", UnreadableTableError, id="too-many-fields"),
        pytest.param(b"8,a,b,1,extra\n", UnreadableTableError, id="too-many-fields-of-somebody-else"),
        pytest.param(b"9\n", BadValueError, id="too-few-fields"),
        pytest.param(b"\xff9,a,1,1\n", UnreadableTableError, id="not-utf8"),
    ],
)
def test_one_bad_row_is_left_out_of_a_contribution_and_a_problem_for_the_operator(
    shop: Path, row: bytes, strict_error: type[DataError]
) -> None:
    expected = lists(load_rows(shop, make_plan(), make_dataset()))
    assert set(expected) == {"7", "8"}
    (shop / "rows.csv").write_bytes(HEADER + GOOD[:16] + row + GOOD[16:])
    rows = load_rows(shop, make_plan(), make_dataset())
    assert lists(rows) == expected
    assert rows.report.unusable_rows + rows.report.outside_rows == 1
    assert known_rows(shop, make_plan(), make_dataset()).seen.num_interactions == 4
    with pytest.raises(strict_error):
        load_rows(shop, make_plan(), make_dataset(), strict=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 7.5, -3.0, 2.0**53, None])
def test_ids_that_became_floats_are_those_they_were(shop: Path, bad: float | None) -> None:
    pl.DataFrame(
        {"user": [7.0, 8.0, bad], "item": ["a", "b", "c"], "at": [1, 2, 3], "amount": [1, 1, 1]}
    ).write_parquet(shop / "rows.parquet")
    (shop / "no.csv").write_text("user\n8\n")
    dataset = make_dataset({"parquet": "rows.parquet"})
    rows = load_rows(shop, make_plan(), dataset)
    assert rows.train.user_ids == ("7",)
    assert (rows.report.unusable_rows, rows.report.excluded_users) == (1, 1)
    with pytest.raises(BadValueError, match=r"'user' .* \(row 3 of the table; 1 such rows\)"):
        load_rows(shop, make_plan(), dataset, strict=True)


def test_an_unusable_no_excludes_nobody_and_stops_nobody(shop: Path) -> None:
    (shop / "no.csv").write_text("user\n 8.0\n-3\nnan\n")
    assert load_rows(shop, make_plan(), make_dataset()).train.user_ids == ("7",)
    with pytest.raises(BadValueError):
        load_rows(shop, make_plan(), make_dataset(), strict=True)


def test_one_user_too_many_contributes_and_is_counted(shop: Path) -> None:
    plan = make_plan(max_users_per_silo=10)
    many = "".join(f"{number},a,1,1\n" for number in range(11)).encode()
    (shop / "rows.csv").write_bytes(HEADER + many)
    rows = load_rows(shop, plan, make_dataset())
    assert (rows.train.num_users, rows.report.users_above_bound) == (11, 1)
    with pytest.raises(TooManyUsersError) as caught:
        load_rows(shop, plan, make_dataset(), strict=True)
    assert "11" not in str(caught.value)


def test_if_no_row_is_usable_the_contribution_is_nobodys(shop: Path) -> None:
    (shop / "rows.csv").write_bytes(HEADER + b"9,zebra,1,1\n")
    assert load_rows(shop, make_plan(), make_dataset()).train.num_users == 0


def test_the_last_row_of_people_without_times_is_decided_as_a_tie(shop: Path) -> None:
    plan = make_plan(holdout="last")
    (shop / "rows.csv").write_bytes(HEADER + b"7,a,,1\n7,b,,1\n")
    assert load_rows(shop, plan, make_dataset()).held_out.num_interactions == 1
    with pytest.raises(NoTimesError, match="no row has a time"):
        load_rows(shop, plan, make_dataset(), strict=True)
    with pytest.raises(NoTimesError, match="this dataset has no times"):
        load_rows(shop, plan, make_dataset(timestamp=None))


def test_an_empty_file_beside_others_is_nothing_but_no_rows_at_all_are_an_error(shop: Path) -> None:
    dataset = make_dataset({"csv": "ro*.csv"})
    (shop / "rows-of-may.csv").write_bytes(HEADER)
    assert load_rows(shop, make_plan(), dataset).train.num_users == 2
    with pytest.raises(EmptyTableError):
        load_rows(shop, make_plan(), dataset, strict=True)
    (shop / "rows.csv").write_bytes(HEADER)
    with pytest.raises(EmptyTableError):
        load_rows(shop, make_plan(), dataset)


def test_what_is_wrong_with_the_file_is_an_error_in_a_contribution_too(shop: Path) -> None:
    with pytest.raises(MissingColumnError):
        load_rows(shop, make_plan(), make_dataset(item_id="sku"))
    with pytest.raises(UnreadableTableError):
        load_rows(shop, make_plan(), make_dataset({"csv": "absent.csv"}))
    (shop / "no.csv").unlink()
    with pytest.raises(UnreadableTableError):
        load_rows(shop, make_plan(), make_dataset())


def test_a_model_that_reads_an_order_needs_a_column_of_times(shop: Path) -> None:
    plan = make_plan(family="sequence", architecture="gru", features=4, hidden=4)
    (shop / "rows.csv").write_bytes(HEADER + b"7,a,,1\n7,b,,1\n")
    assert load_rows(shop, plan, make_dataset()).train.num_interactions == 2
    with pytest.raises(NoTimesError, match="reads histories in order of time"):
        load_rows(shop, plan, make_dataset(timestamp=None))


class TestOwnList:
    """What a silo's own list lacks is one error, which a proposal is denied for."""

    plan = make_plan(family="language", encoder_sha256="cd" * 32, text_dimensions=2)

    def own(self, shop: Path) -> Catalogue:
        named = f"catalogues/{CATALOGUE.sha256}.jsonl"
        return plan_catalogue(shop, self.plan, make_dataset().model_copy(update={"item_list": named}))

    def test_a_list_as_it_was_is_read(self, shop: Path) -> None:
        assert self.own(shop) == CATALOGUE

    def test_a_file_that_is_gone(self, shop: Path) -> None:
        (shop / "catalogues" / f"{CATALOGUE.sha256}.jsonl").unlink()
        with pytest.raises(ItemListError, match="no such catalogue file"):
            self.own(shop)

    def test_a_file_that_was_altered(self, shop: Path) -> None:
        (shop / "catalogues" / f"{CATALOGUE.sha256}.jsonl").write_bytes(b"{}\n")
        with pytest.raises(ItemListError, match="these bytes are not"):
            self.own(shop)

    @pytest.mark.parametrize(
        "items",
        [
            [CatalogueItem(item_id="a", title="red shoe")],
            [CatalogueItem(item_id="a"), CatalogueItem(item_id="b", title=" ")],
            [CatalogueItem(item_id="a", title="shoe"), CatalogueItem(item_id="b", title="shoe")],
        ],
    )
    def test_items_that_no_text_tells_apart(self, shop: Path, items: list[CatalogueItem]) -> None:
        with pytest.raises(ItemListError, match="no two items"):
            place_items(shop, self.plan, Catalogue.from_items(items))
