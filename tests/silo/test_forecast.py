"""``archipel plan forecast`` in a silo's directory: figures, verdict, and that nothing is left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from policies.administration import sign_policy
from policies.catalog import render_template
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon, reserved_events, training_shape
from policies.plans.prospects import milestones, need_of, noise_for, rounds_for
from policies.plans.text import render_plan
from silo.commands import forecast
from silo.data.catalogue import Catalogue
from silo.forecasts.probe import made_up_people, probe
from silo.site import Site
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import SILOS, make_federation

app = typer.Typer()
app.command()(forecast)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joined silo with a signed policy and a catalogue, and no row."""
    root = tmp_path_factory.mktemp("forecast")
    parties = make_federation(root)
    parties.install_charter()
    directory = parties.parties[SILOS[0]].directory
    make_catalogue().save(directory / "catalogues")
    text = render_template(
        "retailer", silo=SILOS[0], with_members=list(SILOS[1:]), delta=1e-5, max_silos_per_user=1
    )
    (directory / "policy.yaml").write_text(text)
    sign_policy(directory, datetime.now(UTC))
    return directory


def make_plan(**changes: Any) -> Plan:
    catalogue = make_catalogue()
    fields: dict[str, Any] = {
        "silos": SILOS,
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "family": "autoencoder",
        "target_epsilon": 4.0,
        "target_delta": 1e-5,
        "max_users_per_silo": 3000,
        "max_silos_per_user": 1,
        "max_interactions_per_user": 10,
        "features": 6,
        "hidden": 3,
        "rounds": 40,
    }
    if changes.get("family", "autoencoder") != "autoencoder":
        fields = {
            name: value for name, value in fields.items() if name not in ("features", "hidden", "rounds")
        }
    return complete_plan(Draft(**(fields | changes)))


def ask(shop: Path, tmp_path: Path, plan: Plan, *options: str) -> Result:
    path = tmp_path / "plan.yaml"
    path.write_text(render_plan(plan))
    words = [str(path), "--dir", str(shop), "--json", str(tmp_path / "found.json"), *options]
    return CliRunner().invoke(app, words)


@pytest.fixture
def told(shop: Path, tmp_path: Path) -> Iterator[Any]:
    def found(plan: Plan, *options: str) -> tuple[dict[str, Any], str]:
        result = ask(shop, tmp_path, plan, *options)
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "found.json").read_text()), result.output

    return found


def test_a_forecast_answers_what_people_ask(told: Any) -> None:
    plan = make_plan(max_burned_rounds=3, min_silos=2, noise_placement="silo")
    found, text = told(plan, "--no-probe", "--for-epsilon", "2", "--rounds-for-epsilon", "3")
    assert found["epsilon"] == plan_epsilon(plan)
    assert found["epsilon_pld"] <= 1.001 * found["epsilon"]
    assert found["milestones"] == [
        {"part": step.part, "rounds": step.rounds, "epsilon": step.epsilon} for step in milestones(plan)
    ]
    assert found["for_epsilon"] == {"epsilon": 2.0, "noise_multiplier": noise_for(plan, 2.0)}
    assert found["rounds_for_epsilon"] == {"epsilon": 3.0, "rounds": rounds_for(plan, 3.0)}
    assert found["people_needed"] == need_of(plan).people
    assert found["rounds_affordable"] > plan.training.rounds
    assert found["time"] is None
    assert found["verdict"]["accepted"] is False
    assert [reason["code"] for reason in found["verdict"]["reasons"]] == ["too_few_silos"]
    for words in ("popularity, then 40 of the training; up to 3 more may fail", "rounds go on with 2 of 3",
                  "more noise; above 5 % a plan is refused", "a round", "takes noise multiplier",
                  "this silo's account", "would refuse it"):  # fmt: skip
        assert words in text


def test_a_forecast_of_one_sum_has_no_rounds(told: Any) -> None:
    found, text = told(make_plan(family="item-graph"))
    assert (found["rounds"], found["time"], found["rounds_affordable"]) == (1, None, None)
    assert "Epsilon on the way" not in text
    assert "training round" not in text
    assert "one of everybody's statistics; none may fail" in text
    assert "shop-a would accept it." in text


def test_rounds_are_not_asked_of_one_sum(shop: Path, tmp_path: Path) -> None:
    result = ask(shop, tmp_path, make_plan(family="popularity"), "--rounds-for-epsilon", "2")
    assert result.exit_code == 2
    assert "error[one_sum]" in result.output


def test_an_epsilon_below_the_counts_is_refused_with_the_reason(shop: Path, tmp_path: Path) -> None:
    result = ask(shop, tmp_path, make_plan(), "--no-probe", "--for-epsilon", "1")
    assert result.exit_code == 6
    assert "leaves nothing of target_epsilon 1 to the training" in result.output


def test_rounds_affordable_are_what_the_rest_of_the_account_pays_for(shop: Path, told: Any) -> None:
    """As many more rounds still fit the account, one more does not."""
    plan = make_plan()
    found, _ = told(plan, "--no-probe")
    with Site(shop) as site:
        account = site.ledger_state(site.trusted_policy()).accounts["customers"]
    rounds = found["rounds_affordable"]

    def fits(number: int) -> bool:
        training = plan.training.model_copy(update={"rounds": number})
        events = reserved_events(plan.model_copy(update={"training": training}))
        return account.counted.of(events, account.budget.filter).epsilon(1e-5) <= account.budget.epsilon

    assert fits(rounds)
    assert not fits(rounds + 1)


def test_an_account_that_cannot_price_a_plan_says_nothing_of_rounds(told: Any) -> None:
    found, text = told(make_plan(sample_rate=0.2), "--no-probe")
    assert found["rounds_affordable"] is None
    assert "this silo's account" not in text
    assert [reason["code"] for reason in found["verdict"]["reasons"]] == ["filter_mismatch"]


def test_too_few_people_are_warned_of(told: Any) -> None:
    few, text = told(make_plan(max_users_per_silo=30, target_epsilon=0.5), "--no-probe")
    assert few["people_planned"] == 90
    assert "warning: this plan is pointless" in text
    assert f"{few['people_needed']:,} people" in text
    many, text = told(make_plan(), "--no-probe")
    assert many["warnings"] == []
    assert "warning" not in text


def test_a_forecast_reads_no_row_and_leaves_nothing(shop: Path, told: Any) -> None:
    def content() -> dict[str, str]:
        files = sorted(path for path in shop.rglob("*") if path.is_file() and "ledger.db-" not in path.name)
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    told(make_plan(), "--no-probe")  # opens the ledger and its accounts
    before = content()
    found, text = told(make_plan(noise_placement="silo", local_steps=2))
    assert content() == before
    assert found["time"]["minutes"] > 0
    assert found["time"]["people"] == 3000
    assert "made-up people: 3,000 in a step, 10 interactions each" in " ".join(text.split())


def test_without_the_catalogue_only_the_time_is_missing(shop: Path, tmp_path: Path, told: Any) -> None:
    found, text = told(make_plan(catalogue_sha256="ab" * 32))
    assert found["time"]["minutes"] is None
    assert "not measured" in text


def test_a_probe_times_what_a_round_is_made_of() -> None:
    plan = make_plan(family="linear", features=2, rounds=7, colluding_silos=2, local_steps=3)
    taken = probe(plan, make_catalogue())
    assert taken.learning_seconds > 0
    assert taken.sum_seconds > 0
    assert taken.round_seconds == taken.learning_seconds + taken.sum_seconds
    assert taken.minutes == 7 * taken.round_seconds / 60
    assert taken.people == round((plan.training.expected_batch_size or 0) / 3)


def test_a_probe_needs_no_checkpoint() -> None:
    assert probe(make_plan(start_from="ab" * 32), make_catalogue()).minutes > 0


def test_made_up_people_have_whole_histories() -> None:
    catalogue: Catalogue = make_catalogue()
    rows = made_up_people(5, 4, catalogue)
    assert rows.num_users == 5
    assert (rows.matrix().sum(axis=1) == 4).all()
    assert training_shape(make_plan()).values == 2 * 6 * 3 + 3
