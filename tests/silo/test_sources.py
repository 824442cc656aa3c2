from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import OutsideCatalogueError
from silo.data.sources import read_dataset, read_exclusions
from silo.data.tables import (
    IMPOSSIBLE_TIME,
    BadValueError,
    EmptyTableError,
    MissingColumnError,
    UnreadableTableError,
)

CATALOGUE = Catalogue.from_items(CatalogueItem(item_id=name) for name in "abc")


def dataset(source: dict[str, str], **more: object) -> Dataset:
    return Dataset.model_validate(
        {
            "source": source,
            "max_interactions_per_user": 200,
            "population": "customers",
            "max_silos_per_user": 1,
            **more,
        }
    )


def test_all_files_of_a_glob_under_the_policys_column_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    named = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at", "weight": "quantity"}
    for number, item in enumerate("ba"):
        pl.DataFrame(
            {"customer": [number], "sku": [item], "bought_at": [60.5], "quantity": [2], "name": ["private"]}
        ).write_parquet(tmp_path / "data" / f"{number}.parquet")
    rows = read_dataset(dataset({"parquet": "data/*.parquet"}, columns=named), tmp_path, CATALOGUE)
    assert rows.columns == ["user_id", "item_id", "timestamp", "weight", "rating", "event"]
    assert rows.rows() == [("0", "b", 60, 2.0, None, None), ("1", "a", 60, 2.0, None, None)]


def test_times_that_cannot_be_are_kept_for_cleaning_to_drop(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "user_id,item_id,t\nu,a,-3\nu,a,nan\nu,a,inf\nu,a,soon\nu,a,99999999999\nu,a,\nu,a,7\n"
    )
    rows = read_dataset(dataset({"csv": "x.csv"}, columns={"timestamp": "t"}), tmp_path, CATALOGUE)
    assert rows["timestamp"].to_list() == [IMPOSSIBLE_TIME] * 5 + [None, 7]
    assert rows["weight"].null_count() == 7


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([-3, 7]),
        pl.Series([float("nan"), 7.9]),
        pl.Series([float("-inf"), 7.0]),
        pl.Series(["1969-12-31 23:59:59", "1970-01-01 00:00:07"]).str.to_datetime(),
    ],
)
def test_typed_times_follow_the_same_rule(tmp_path: Path, times: pl.Series) -> None:
    pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "t": times}).write_parquet(
        tmp_path / "x.parquet"
    )
    rows = read_dataset(dataset({"parquet": "x.parquet"}, columns={"timestamp": "t"}), tmp_path, CATALOGUE)
    assert rows["timestamp"].to_list() == [IMPOSSIBLE_TIME, 7]


def test_a_column_that_holds_no_times_is_an_error(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "t": [True]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(BadValueError, match="not times"):
        read_dataset(dataset({"parquet": "x.parquet"}, columns={"timestamp": "t"}), tmp_path, CATALOGUE)


def test_recbole_files_and_absolute_paths(tmp_path: Path) -> None:
    file = tmp_path / "x.inter"
    file.write_text("user_id:token\titem_id:token\nu\ta\n")
    assert read_dataset(dataset({"inter": str(file)}), Path("/nowhere"), CATALOGUE).height == 1
    file.write_text("user_id\titem_id\nu\ta\n")
    with pytest.raises(UnreadableTableError, match="no type"):
        read_dataset(dataset({"inter": "x.inter"}), tmp_path, CATALOGUE)


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user_id,sku\nu,a\n")
    with pytest.raises(MissingColumnError, match=r"x\.csv: no column 'item_id' .* user_id, sku"):
        read_dataset(dataset({"csv": "x.csv"}), tmp_path, CATALOGUE)


def test_an_item_outside_the_catalogue_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user_id,item_id\nu,a\nu,zebra\n")
    with pytest.raises(
        OutsideCatalogueError, match=r"x\.csv: 1 items outside the catalogue \(1 rows\): 'zebra'"
    ):
        read_dataset(dataset({"csv": "x.csv"}), tmp_path, CATALOGUE)
    assert read_dataset(dataset({"csv": "x.csv"}), tmp_path, None).height == 2


def test_no_file_and_empty_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTableError, match="no file matches"):
        read_dataset(dataset({"csv": "data/*.csv"}), tmp_path, CATALOGUE)
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(EmptyTableError):
        read_dataset(dataset({"csv": "x.csv"}), tmp_path, CATALOGUE)


def test_a_directory_with_glob_characters_in_its_name_still_works(tmp_path: Path) -> None:
    odd = tmp_path / "shop[1]"
    odd.mkdir()
    (odd / "x.csv").write_text("user_id,item_id\nu,a\n")
    assert read_dataset(dataset({"csv": "*.csv"}), odd, CATALOGUE).height == 1


def test_people_who_said_no_are_read_under_either_column_name(tmp_path: Path) -> None:
    assert read_exclusions(dataset({"csv": "x.csv"}), tmp_path) == frozenset()
    asked = dataset({"csv": "x.csv"}, columns={"user_id": "customer"}, exclude_users="no.csv")
    (tmp_path / "no.csv").write_text("customer\n 7\nann\n")
    assert read_exclusions(asked, tmp_path) == {"7", "ann"}
    (tmp_path / "no.csv").write_text("user_id,since\n7,2024\n")
    assert read_exclusions(asked, tmp_path) == {"7"}
    (tmp_path / "no.csv").write_text("customer\n")
    assert read_exclusions(asked, tmp_path) == frozenset()


def test_nobodys_no_is_overlooked_because_the_file_is_broken(tmp_path: Path) -> None:
    asked = dataset({"csv": "x.csv"}, exclude_users="no.csv")
    with pytest.raises(UnreadableTableError):
        read_exclusions(asked, tmp_path)
    (tmp_path / "no.csv").write_text("")
    with pytest.raises(EmptyTableError):
        read_exclusions(asked, tmp_path)
    (tmp_path / "no.csv").write_text("ann\nbob\n")
    with pytest.raises(MissingColumnError, match="opted out"):
        read_exclusions(asked, tmp_path)
