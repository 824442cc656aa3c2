from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from privacy.errors import DataError, ExitCode
from silo.data.catalogue import CatalogueError
from silo.data.cleaning import OutsideCatalogueError
from silo.data.item_files import read_item_file
from silo.data.public_sets import ROW_SCHEMA, PublicSet, UnknownSetError, load_public_set
from silo.data.tables import BadValueError, EmptyTableError, MissingColumnError, UnreadableTableError

RATINGS = "userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,2.5,200\n2,10,5.0,300\n"
MOVIES = (
    'movieId,title,genres\n10,"Ten, or Not (1995)",Drama|War\n20,Twenty,(no genres listed)\n30,Thirty,War\n'
)


def pairs(public_set: PublicSet) -> list[tuple[str, str]]:
    return public_set.rows.select("user_id", "item_id").rows()


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text, encoding="latin-1")
    return tmp_path


def test_movielens_latest_brings_the_items_nobody_rated(tmp_path: Path) -> None:
    loaded = load_public_set(
        folder(tmp_path, ratings__csv=RATINGS, movies__csv=MOVIES, links__csv="a,b\n1,2\n")
    )
    assert pairs(loaded) == [("1", "10"), ("1", "20"), ("2", "10")]
    assert loaded.rows.schema == ROW_SCHEMA
    assert loaded.rows["timestamp"].to_list() == [100, 200, 300]
    assert loaded.catalogue.item_ids == ("10", "20", "30")
    assert loaded.catalogue.items[0].title == "Ten, or Not (1995)"
    assert loaded.catalogue.items[0].attributes == ("Drama", "War")
    assert loaded.catalogue.items[1].attributes == ()
    assert (loaded.name, loaded.notes) == (tmp_path.name, ())


def test_movielens_1m_is_a_parquet_of_pairs_and_a_latin_1_item_file(tmp_path: Path) -> None:
    pl.DataFrame({"userID": ["1", "1"], "movieID": ["10", "20"]}).write_parquet(tmp_path / "ratings.parquet")
    folder(tmp_path, movies__dat="10::Misérables, Les (1995)::Drama|Musical\n20::B::War\n30::C::War\n")
    loaded = load_public_set(tmp_path, "movielens")
    assert loaded.rows.rows() == [("1", "10", None, None), ("1", "20", None, None)]
    assert loaded.catalogue.items[0].title == "Misérables, Les (1995)"
    assert loaded.catalogue.attributes == ("Drama", "Musical", "War")


def test_movielens_1m_as_grouplens_ships_it(tmp_path: Path) -> None:
    folder(tmp_path, ratings__dat="1::10::5::978300760\n", movies__dat="10::A::Drama\n")
    assert load_public_set(tmp_path).rows.rows() == [("1", "10", 978300760, 5.0)]


def test_movielens_100k_has_nineteen_genre_flags(tmp_path: Path) -> None:
    flags = "|".join("1" if number in (1, 18) else "0" for number in range(19))
    folder(
        tmp_path, u__data="1\t10\t3\t881250949\n", u__item=f"10|Café (1995)|01-Jan-1995||http://x|{flags}\n"
    )
    loaded = load_public_set(tmp_path)
    assert loaded.rows.rows() == [("1", "10", 881250949, 3.0)]
    assert loaded.catalogue.items[0].attributes == ("Action", "Western")
    assert loaded.catalogue.items[0].text == "Café (1995). Action, Western."


def test_recbole_headers_carry_types(tmp_path: Path) -> None:
    folder(
        tmp_path,
        x__inter="user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ta\t1\t5.0\n",
        x__item="item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
        'a\tAn "odd title\tDrama Sci-Fi\nb\tB\t\n',
    )
    loaded = load_public_set(tmp_path, "inter")
    assert loaded.rows.rows() == [("u", "a", 5, 1.0)]
    assert loaded.catalogue.item_ids == ("a", "b")
    assert loaded.catalogue.items[0].attributes == ("Drama", "Sci-Fi")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_csv_with_telling_headers_will_do(tmp_path: Path, separator: str) -> None:
    lines = [["when", "Customer", "SKU", "date"], ["x", "ann", "p-1", "2023-01-02"], ["x", "bob", "007", ""]]
    file = tmp_path / "orders.csv"
    file.write_text("\n".join(separator.join(line) for line in lines) + "\n")
    loaded = load_public_set(file)
    assert loaded.rows.rows() == [("ann", "p-1", 1672617600, None), ("bob", "007", None, None)]


def test_without_an_item_file_the_catalogue_is_assumed_and_said_to_be(tmp_path: Path) -> None:
    loaded = load_public_set(folder(tmp_path, ratings__csv=RATINGS))
    assert loaded.catalogue.item_ids == ("10", "20")
    assert any("assumed" in note for note in loaded.notes)


def test_a_rating_threshold_is_applied_only_when_asked_for(tmp_path: Path) -> None:
    path = folder(tmp_path, ratings__csv=RATINGS, movies__csv=MOVIES)
    assert pairs(load_public_set(path, min_rating=4)) == [("1", "10"), ("2", "10")]
    with pytest.raises(EmptyTableError, match="rated 6"):
        load_public_set(path, min_rating=6)


def test_a_threshold_without_ratings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingColumnError, match="no ratings"):
        load_public_set(folder(tmp_path, ratings__csv="user,item\nu,a\n"), min_rating=4)


def test_repeated_pairs_count_once_with_their_latest_time(tmp_path: Path) -> None:
    loaded = load_public_set(folder(tmp_path, x__csv="user,item,time\nu,a,9\nu,a,4\nu,b,1\n"))
    assert loaded.rows["timestamp"].to_list() == [9, 1]
    assert any("1 repeated" in note for note in loaded.notes)


def test_rows_outside_the_item_file_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, ratings__csv=RATINGS.replace("2,10", "2,77"), movies__csv=MOVIES)
    with pytest.raises(OutsideCatalogueError, match=r"ratings\.csv: 1 items .*'77'"):
        load_public_set(path)


HEADER = "user_id,item_id,timestamp\nu,a,1\n"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", EmptyTableError, "empty"),
        ("user_id,item_id\n", EmptyTableError, "no rows"),
        ("user_id,price\nu,3\n", MissingColumnError, "no column for item_id; the columns are user_id, price"),
        (HEADER + ",b,1\n", BadValueError, r"x\.csv:3: 'user_id' is missing"),
        (HEADER + "u,NaN,1\n", BadValueError, r"x\.csv:3: 'item_id' is missing or NaN"),
        (HEADER + "-4,b,1\n", BadValueError, r"x\.csv:3: 'user_id' is negative"),
        (HEADER + "u,-4,1\n", BadValueError, r"x\.csv:3: 'item_id' is negative"),
        (HEADER + "u,b,-1\n", BadValueError, "1 times are negative.*row 2"),
        (HEADER + "u,b,nan\n", BadValueError, "times"),
        (HEADER + "u,b,yesterday\n", BadValueError, "times"),
        (HEADER + "u,b,1,5,6\n", UnreadableTableError, r"x\.csv:3: row 2 has more fields"),
        ("user_id,item_id,rating\nu,a,good\n", BadValueError, "'rating' is not a number"),
        ("user_id,item_id\nu,\xe9\n", UnreadableTableError, "UTF-8"),
    ],
)
def test_bad_files_are_one_clear_error(
    tmp_path: Path, text: str, kind: type[DataError], message: str
) -> None:
    folder(tmp_path, x__csv=text)
    with pytest.raises(kind, match=message) as caught:
        load_public_set(tmp_path / "x.csv")
    assert caught.value.exit_code is ExitCode.DATA
    assert caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([1, -1], "negative"),
        ([1.0, float("nan")], "NaN"),
        ([1.0, None], "missing"),
        ([1.0, 1.5], "whole number"),
        ([True, False], "not ids"),
    ],
)
def test_typed_columns_are_checked_too(tmp_path: Path, users: list[object], message: str) -> None:
    file = tmp_path / "x.parquet"
    pl.DataFrame({"user": pl.Series(users), "item": [1, 2]}).write_parquet(file)
    with pytest.raises(BadValueError, match=message):
        load_public_set(file)


def test_whole_floats_and_integers_are_the_same_ids(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pl.DataFrame({"user": [1.0, 2.0], "item": [10, 20]}).write_parquet(file)
    assert pairs(load_public_set(file)) == [("1", "10"), ("2", "20")]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1672617600", 1672617600),
        ("1672617600.9", 1672617600),
        ("1672617600123", 1672617600),
        ("1672617600123456", 1672617600),
        ("1672617600123456789", 1672617600),
        ("2023-01-02", 1672617600),
        ("2023-01-02 00:00:01", 1672617601),
        ("2023-01-02T00:00:01.5", 1672617601),
        ("2023-01-02T00:00:01Z", 1672617601),
        ("0", 0),
    ],
)
def test_times_come_in_many_forms(tmp_path: Path, value: str, seconds: int) -> None:
    folder(tmp_path, x__csv=f"user_id,item_id,timestamp\nu,a,{value}\n")
    assert load_public_set(tmp_path).rows["timestamp"].to_list() == [seconds]


def test_paths_without_a_set_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UnknownSetError, match="no such file"):
        load_public_set(tmp_path / "absent")
    with pytest.raises(UnknownSetError, match="no file of interactions"):
        load_public_set(tmp_path)
    folder(tmp_path, a__csv=HEADER, b__csv=HEADER)
    with pytest.raises(UnknownSetError, match="several"):
        load_public_set(tmp_path)
    with pytest.raises(UnknownSetError, match="no file of interactions"):
        load_public_set(tmp_path, "parquet")
    (tmp_path / "rows.bin").write_bytes(b"x")
    with pytest.raises(UnknownSetError, match="--format"):
        load_public_set(tmp_path / "rows.bin")


def test_a_file_that_is_not_what_its_name_says_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(UnreadableTableError, match="parquet"):
        load_public_set(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("movies.dat", "1:Toy\n", UnreadableTableError, "movies.dat:1"),
        ("u.item", "1|Toy|x||y|0|1\n", UnreadableTableError, "19 genre flags"),
        ("items.jsonl", "{\n", UnreadableTableError, "items.jsonl:1"),
        ("items.jsonl", "[1]\n", UnreadableTableError, "not an object"),
        ("items.csv", "title\nToy\n", MissingColumnError, "item_id"),
        ("items.csv", "item_id\n1\n1\n", CatalogueError, "stands twice"),
        ("items.csv", "item_id,title\n,x\n", MissingColumnError, "item ids"),
        ("items.txt", "1\n", UnreadableTableError, "not a known item file"),
    ],
)
def test_bad_item_files_are_refused(
    tmp_path: Path, name: str, text: str, kind: type[DataError], message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=message):
        read_item_file(tmp_path / name)


def test_item_files_of_every_format_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name,tags,description\n7,Kettle,red|tin,Boils.\n")
    pl.DataFrame(
        {"item_id": [7], "title": ["Kettle"], "attributes": [["tin", "red"]], "text": ["Boils."]}
    ).write_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text(
        '{"item_id": 7, "title": "Kettle", "tags": ["red", "tin"], "text": "Boils."}\n'
    )
    catalogues = {read_item_file(tmp_path / name).sha256 for name in ("a.csv", "b.parquet", "c.jsonl")}
    assert len(catalogues) == 1
    saved = read_item_file(tmp_path / "a.csv").save(tmp_path)
    assert read_item_file(saved).sha256 in catalogues


@pytest.mark.data
@pytest.mark.skipif("ARCHIPEL_DATA" not in os.environ, reason="ARCHIPEL_DATA names no folder of data sets")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("movielens-100k", (943, 1682, 100_000, 1682, 19)),
        ("movielens-1m", (6040, 3706, 1_000_209, 3883, 18)),
        ("movielens-latest-small", (610, 9724, 100_836, 9742, 19)),
    ],
)
def test_real_sets_are_read_as_they_are(name: str, sizes: tuple[int, ...]) -> None:
    path = Path(os.environ["ARCHIPEL_DATA"]) / name
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    loaded = load_public_set(path, "movielens")
    occurring = (loaded.rows["user_id"].n_unique(), loaded.rows["item_id"].n_unique(), loaded.rows.height)
    assert (*occurring, len(loaded.catalogue), len(loaded.catalogue.attributes)) == sizes
    assert loaded.notes == ()
