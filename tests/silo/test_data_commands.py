from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from policies.files import save_yaml
from policies.plans.drafting import Draft, complete_plan
from privacy.errors import ExitCode
from silo.data.catalogue import Catalogue
from silo.data.commands import data_app

POLICY = """\
kind: SiloPolicy
schema_version: 1
version: 1
silo: shop-a
expires: 2027-06-30
datasets:
  purchases:
    source: {csv: data/purchases.csv}
    columns: {user_id: customer, item_id: sku, timestamp: at}
    max_interactions_per_user: 2
    population: customers
    max_silos_per_user: 1
    exclude_users: opt-outs.csv
  clicks:
    source: {csv: data/clicks.csv}
    max_interactions_per_user: 200
    population: customers
    max_silos_per_user: 1
budgets:
  customers: {epsilon: 8.0, delta: 1.0e-6, scope: lifetime, filter: zcdp}
accepts:
  purposes: {product-recommendation: purchases}
  with_members: [shop-b, shop-c]
  max_epsilon_per_plan: 4.0
  min_silos: 3
  min_colluding_silos: 1
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "items.csv").write_text("id,name,tags\na,A,x|y\nb,B,\nc,C,z\n")
    (tmp_path / "opt-outs.csv").write_text("customer\neve\n")
    (tmp_path / "data" / "clicks.csv").write_text("user_id,item_id\nann,a\nbob,b\n")
    (tmp_path / "data" / "purchases.csv").write_text(
        "customer,sku,at\nann,a,1\nann,a,2\nann,b,3\nann,c,4\nbob,a,-5\nbob,b,6\neve,c,7\n"
    )
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def test_catalogue_is_written_under_its_digest_and_named_as_a_plan_does(shop: Path) -> None:
    result = run("catalogue", shop / "items.csv", "--dir", shop, "--json", shop / "made.json")
    assert result.exit_code == ExitCode.OK, result.output
    made = json.loads((shop / "made.json").read_text())
    written = Catalogue.load(shop / "catalogues" / f"{made['sha256']}.jsonl", made["sha256"])
    assert (made["items"], made["attributes"], len(written)) == (3, 3, 3)
    assert f"{{kind: shared, sha256: {made['sha256']}, items: 3}}" in result.output


def test_catalogue_of_a_file_that_is_none_fails_with_the_data_code(shop: Path) -> None:
    result = run("catalogue", shop / "policy.yaml", "--dir", shop)
    assert result.exit_code == ExitCode.DATA
    assert not (shop / "catalogues").exists()


def test_check_says_what_cleaning_does(shop: Path) -> None:
    run("catalogue", shop / "items.csv", "--dir", shop)
    result = run("check", "--dir", shop, "--json", shop / "report.json")
    assert result.exit_code == ExitCode.OK, result.output
    report = json.loads((shop / "report.json").read_text())["datasets"]["purchases"]["report"]
    assert report == {
        "rows": 7,
        "unusable_rows": 0,
        "excluded_users": 1,
        "excluded_rows": 1,
        "unmatched_exclusions": 0,
        "outside_rows": 0,
        "impossible_times": 1,
        "non_positive_weights": 0,
        "duplicates": 1,
        "low_ratings": 0,
        "users_over_cap": 1,
        "rows_over_cap": 1,
        "users": 2,
        "interactions": 3,
        "users_above_bound": 0,
    }
    assert "3 interactions of 2 users remain" in result.output


def test_check_lists_the_problems_of_every_dataset_at_once(shop: Path) -> None:
    run("catalogue", shop / "items.csv", "--dir", shop)
    (shop / "data" / "purchases.csv").write_text("customer,at\nzoltan,1\n")
    (shop / "data" / "clicks.csv").write_text("user_id,item_id\nzoltan,zebra\n")
    result = run("check", "--dir", shop, "--json", "-")
    assert result.exit_code == ExitCode.DATA
    datasets = json.loads(result.stdout)["datasets"]
    assert datasets["purchases"]["problem"]["code"] == "missing_column"
    assert datasets["clicks"]["problem"]["code"] == "outside_catalogue"
    assert "no column 'sku'" in result.stderr
    assert "'zebra'" in result.stderr
    assert "2 of 2 datasets" in result.stderr
    assert "zoltan" not in result.output


def test_check_without_a_catalogue_says_that_items_are_not_compared(shop: Path) -> None:
    (shop / "data" / "clicks.csv").write_text("user_id,item_id\nann,zebra\n")
    result = run("check", "--dir", shop)
    assert result.exit_code == ExitCode.OK, result.output
    assert "not compared" in result.output


def test_check_against_a_named_item_file(shop: Path) -> None:
    (shop / "few.csv").write_text("id\na\n")
    result = run("check", "--dir", shop, "--catalogue", shop / "few.csv")
    assert result.exit_code == ExitCode.DATA
    assert "items outside the catalogue" in result.output


def test_check_warns_of_a_no_that_matches_nobody_by_a_count_only(shop: Path) -> None:
    run("catalogue", shop / "items.csv", "--dir", shop)
    (shop / "opt-outs.csv").write_text("customer\neve\nzoltan\n")
    result = run("check", "--dir", shop)
    assert result.exit_code == ExitCode.OK, result.output
    assert "1 ids of people who opted out stand in no row" in result.output
    assert "zoltan" not in result.output


def test_check_as_a_plan_would_read(shop: Path) -> None:
    run("catalogue", shop / "items.csv", "--dir", shop)
    items = Catalogue.load(next((shop / "catalogues").iterdir()))
    draft = Draft(
        silos=("shop-a", "shop-b", "shop-c"),
        catalogue_sha256=items.sha256,
        catalogue_items=len(items),
        family="popularity",
        target_epsilon=4.0,
        target_delta=1e-6,
        max_users_per_silo=10,
        max_silos_per_user=1,
    )
    save_yaml(shop / "plan.yaml", complete_plan(draft))
    result = run("check", "--dir", shop, "--plan", shop / "plan.yaml")
    assert result.exit_code == ExitCode.OK, result.output
    many = "".join(f"{number},a\n" for number in range(11))
    (shop / "data" / "clicks.csv").write_text("user_id,item_id\n" + many)
    result = run("check", "--dir", shop, "--plan", shop / "plan.yaml")
    assert result.exit_code == ExitCode.DATA
    assert "more users than the 10 this plan allows for" in result.output
    both = run("check", "--dir", shop, "--plan", shop / "plan.yaml", "--catalogue", shop / "items.csv")
    assert both.exit_code == ExitCode.USAGE


def test_check_refuses_a_catalogue_whose_bytes_changed(shop: Path) -> None:
    run("catalogue", shop / "items.csv", "--dir", shop)
    file = next((shop / "catalogues").iterdir())
    file.write_bytes(file.read_bytes().replace(b'"A"', b'"B"'))
    assert run("check", "--dir", shop).exit_code == ExitCode.TRUST


def test_check_without_a_policy_is_one_clear_error(tmp_path: Path) -> None:
    result = run("check", "--dir", tmp_path)
    assert result.exit_code == ExitCode.DATA
    assert "policy.yaml" in result.output
