"""What ``data check`` counts and ``data clean`` writes, on tables with everything wrong in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from privacy.errors import ExitCode
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean_rows
from silo.data.commands import data_app
from silo.data.encodings import guess_encoding
from silo.data.mapping import columns_line, match_columns
from silo.data.quality import inspect_rows
from silo.data.titles import inspect_titles

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = """\
kind: SiloPolicy
schema_version: 1
version: 1
silo: shop-a
expires: 2027-06-30
datasets:
  shop:
    source: {csv: events.csv}
    columns: {user_id: customer, item_id: sku, timestamp: at, event: kind, rating: stars}
    events: {purchase: 3, view: 1}
    min_rating: 4
    max_interactions_per_user: 200
    population: customers
    max_silos_per_user: 1
budgets:
  customers: {epsilon: 8.0, delta: 1.0e-6, scope: lifetime, filter: zcdp}
accepts:
  purposes: {product-recommendation: shop}
  with_members: [shop-b, shop-c]
  max_epsilon_per_plan: 4.0
  min_silos: 3
  min_colluding_silos: 1
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def findings(**columns: list[Any]) -> dict[str, int]:
    frame = pl.DataFrame(columns, schema_overrides={"timestamp": pl.Int64, "weight": pl.Float64})
    return {found.code: found.count for found in inspect_rows(frame, now=NOW, cap=2).findings}


def test_odd_ids_pairs_and_histories_are_counted() -> None:
    found = findings(
        user_id=["Ann", "ann", "bob", "bob", "bob", None], item_id=["007", "7", "x", "x", "y", "x"],
        timestamp=[None] * 6,
    )  # fmt: skip
    assert found == {
        "unusable_ids": 1, "similar_user_ids": 2, "similar_item_ids": 2, "no_times": 6, "repeated_rows": 1,
        "single_rows": 2, "over_cap": 1,
    }  # fmt: skip


def test_odd_times_are_counted() -> None:
    future = int(NOW.timestamp()) + 5
    found = findings(
        user_id=["a"] * 56, item_id=[str(number) for number in range(56)],
        timestamp=[-1, 0, future, None, *([1_600_000_000] * 52)],
    )  # fmt: skip
    assert {
        name: found[name]
        for name in ("impossible_times", "epoch_times", "future_times", "missing_times", "bursts")
    } == {"impossible_times": 1, "epoch_times": 1, "future_times": 1, "missing_times": 1, "bursts": 1}
    assert found["tied_times"] == 52
    assert "whole_days" in findings(user_id=["a", "b"], item_id=["x", "x"], timestamp=[86_400, 172_800])


def test_weights_that_are_ratings_are_noticed() -> None:
    found = findings(user_id=list("abcd"), item_id=list("wxyz"), weight=[1.0, 4.5, float("nan"), -1.0])
    assert (found["weights_like_ratings"], found["no_number_weight"], found["low_weights"]) == (3, 1, 1)
    counts = findings(
        user_id=["a"] * 30, item_id=[str(n) for n in range(30)], weight=[n + 0.1 for n in range(30)]
    )
    assert "weights_like_ratings" not in counts


def test_a_machine_among_people_is_noticed() -> None:
    users = ["machine"] * 1500 + [f"person-{number}" for number in range(200)]
    found = findings(user_id=users, item_id=[str(number) for number in range(1700)])
    assert found["long_histories"] == 1


def test_titles_of_every_kind_are_looked_at() -> None:
    titles = ["", "x" * 10_000, "商品", "shop 😀", "caf\u00c3\u00a8", "<b>new</b>", "two", "two", "a\tb"]
    items = Catalogue.from_items(
        CatalogueItem(item_id=f"i{number}", title=title) for number, title in enumerate(titles)
    )
    found = {finding.code: finding for finding in inspect_titles(items)}
    assert {code: finding.count for code, finding in found.items()} == {
        "empty_titles": 1, "long_titles": 1, "control_characters": 1, "broken_text": 1, "markup": 1,
        "repeated_titles": 2, "no_attributes": 9, "symbols": 1, "scripts": 2,
    }  # fmt: skip
    assert "10,000" in found["long_titles"].text


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("utf-8", "商品 é", None),
        ("gb18030", "用户一,商品二\n用户三,商品四\n", "GB18030"),
        ("latin-1", "José,café\nann,b\n", "LATIN1"),
        ("utf-16", "user_id,item_id\n", "UTF-16"),
    ],
)
def test_the_encoding_is_guessed(encoding: str, text: str, name: str | None) -> None:
    assert guess_encoding(text.encode(encoding)) == name


def test_columns_are_told_by_their_names() -> None:
    found = match_columns(["Customer ID", "sku", "Event Type", "created_at", "colour", "Stars"])
    assert found == {
        "user_id": "Customer ID", "item_id": "sku", "timestamp": "created_at", "event": "Event Type",
        "rating": "Stars",
    }  # fmt: skip
    assert columns_line({"user_id": "it's", "item_id": "sku"}) == "columns: {user_id: 'it''s', item_id: sku}"


def test_a_file_nobody_declared_is_checked_and_lines_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("customer,sku,stars,colour\nzoltan,a,5,red\n,b,1,red\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,\n")
    result = run("check", tmp_path / "e.csv", tmp_path / "items.csv", "--json", tmp_path / "found.json")
    assert result.exit_code == ExitCode.DATA
    assert "columns: {user_id: customer, item_id: sku, rating: stars}" in result.output
    assert "without a role: colour" in result.output
    assert "min_rating: 4" in result.output
    found = json.loads((tmp_path / "found.json").read_text())["files"]
    assert found[str(tmp_path / "e.csv")]["quality"]["findings"][0]["code"] == "unusable_ids"
    assert found[str(tmp_path / "items.csv")]["items"]["count"] == 1
    assert "zoltan" not in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "found.json", "items.csv"]


def test_a_file_without_users_or_of_no_known_kind_is_a_problem_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("customer,colour\nann,red\n")
    (tmp_path / "x.doc").write_text("?")
    result = run("check", tmp_path / "x.csv", tmp_path / "x.doc", tmp_path / "gone.csv")
    assert result.exit_code == ExitCode.DATA
    assert "no column's name says that it is item_id" in result.output
    assert "does not tell the format" in result.output
    assert "3 of 3 files" in result.output


def test_events_and_ratings_decide_what_counts(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "events.csv").write_text(
        "customer,sku,at,kind,stars\n"
        "ann,a,1,view,\nann,a,2,purchase,\nann,b,3,view,5\nann,b,4,purchase,2\nann,c,5,click,\nbob,a,6,view,4\n"
    )
    out = tmp_path / "clean.csv"
    checked = run("check", "--dir", tmp_path, "--json", tmp_path / "found.json")
    assert checked.exit_code == ExitCode.OK, checked.output
    shop = json.loads((tmp_path / "found.json").read_text())["datasets"]["shop"]
    assert shop["quality"]["events"] == {"view": 3, "purchase": 2, "click": 1}
    assert (shop["report"]["non_positive_weights"], shop["report"]["low_ratings"]) == (1, 1)
    assert shop["report"]["interactions"] == 2
    assert run("clean", "shop", "--out", out, "--dir", tmp_path).exit_code == ExitCode.OK
    assert out.read_text() == (
        "user_id,item_id,timestamp,weight,rating\nann,a,2,3.0,\nann,b,4,3.0,2.0\nbob,a,6,1.0,4.0\n"
    )


def test_clean_never_replaces_a_file_and_leaves_the_source_alone(tmp_path: Path) -> None:
    source = tmp_path / "e.csv"
    source.write_text("user,item,time\n7.0,a,1\n7,a,2\n 7 ,b,-3\nnan,c,4\n")
    before = source.read_bytes()
    out = tmp_path / "clean.parquet"
    done = run("clean", source, "--out", out, "--json", tmp_path / "found.json")
    assert done.exit_code == ExitCode.OK, done.output
    assert pl.read_parquet(out).rows() == [("7", "a", 2)]
    assert out.stat().st_mode & 0o077 == 0
    assert source.read_bytes() == before
    for taken in (out, source):
        refused = run("clean", source, "--out", taken)
        assert refused.exit_code == ExitCode.USAGE
        assert (
            "exists already" in refused.output
            or "not written" in refused.output
            or "no table" in refused.output
        )
    assert run("clean", source, "--out", tmp_path / "x.xlsx").exit_code == ExitCode.USAGE
    assert source.read_bytes() == before


ROW = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from([None, -1, 0, 5, 9]),
    st.sampled_from([None, 0.0, 1.0, float("nan")]),
    st.sampled_from([None, 1.0, 4.0, 5.0]),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(ROW, max_size=20), st.lists(ROW, max_size=6))
def test_one_more_person_changes_nobody_elses_rows(rows: list[Any], more: list[Any]) -> None:
    def kept(given_rows: list[Any]) -> list[Any]:
        names = ["user_id", "item_id", "timestamp", "weight", "rating"]
        types = [pl.String, pl.String, pl.Int64, pl.Float64, pl.Float64]
        frame = pl.DataFrame(given_rows, schema=dict(zip(names, types, strict=True)), orient="row")
        cleaned, _ = clean_rows(frame, None, max_interactions_per_user=2, min_rating=4.0)
        return sorted(cleaned.filter(pl.col("user_id") != "newcomer").rows(), key=str)

    assert kept([*rows, *(("newcomer", *row[1:]) for row in more)]) == kept(rows)
