"""``tune --kind public``: which numbers are searched, on whose rows, and when the plan stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import cli
from policies.files import load_yaml, save_yaml
from policies.plans.drafting import Draft, complete_plan
from policies.plans.models import ArchitectureName
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from privacy.errors import ExitCode
from silo.data.public_sets import load_public_set
from silo.evaluation import METRICS
from silo.tuning import search as searching
from silo.tuning.search import GIVEN, WINNER, Lead, NothingToTuneError, Search, total_seconds
from silo.tuning.showing import verdict
from silo.tuning.space import dimensions, values_of, with_values
from silo.tuning.world import PublicWorld, make_world, public_plan
from tests.support.local_silo import POLICY
from tests.support.small_set import write_set

SHA = "ab" * 32


def plan_of(family: Any, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "silos": ("shop-a", "shop-b", "shop-c"),
        "catalogue_sha256": SHA,
        "catalogue_items": 1_000,
        "family": family,
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 2_000,
        "max_silos_per_user": 1,
    }
    return complete_plan(Draft(**(fields | changes)))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("public") / "set")


@pytest.fixture(scope="module")
def world(public: Path) -> PublicWorld:
    return make_world(load_public_set(public), 3, seed=0)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["tune", *map(str, words)])


def test_a_plan_s_own_numbers_are_searched_around_what_it_says() -> None:
    plan = plan_of("autoencoder")
    found = {dimension.path: dimension for dimension in dimensions(plan)}
    assert list(found) == [
        *("max_interactions_per_user", "model.hidden", "training.rounds", "training.learning_rate"),
        *("model.input_dropout", "model.bias.epsilon"),
    ]
    for path, value in values_of(plan).items():
        assert found[path].low <= value <= found[path].high
    assert [dimension.path for dimension in dimensions(plan_of("popularity"))] == [
        "max_interactions_per_user"
    ]


@pytest.mark.parametrize("family", ["popularity", "item-graph", "linear", "autoencoder"])
def test_every_corner_of_the_space_keeps_the_promise(family: Any) -> None:
    plan = plan_of(family)
    for end in ("low", "high"):
        values = {dimension.path: getattr(dimension, end) for dimension in dimensions(plan)}
        tuned = with_values(plan, values)
        assert plan_epsilon(tuned) <= plan.privacy.target_epsilon
        assert values_of(tuned).keys() == values.keys()
        same = {"silos", "catalogue", "purpose", "holdout", "protection", "releases", "max_users_per_silo"}
        assert all(getattr(tuned, name) == getattr(plan, name) for name in same)


def test_the_plan_s_own_values_give_the_plan() -> None:
    plan = plan_of("autoencoder")
    assert with_values(plan, values_of(plan)) == plan


@pytest.mark.parametrize("architecture", get_args(ArchitectureName))
def test_of_a_network_only_what_the_rules_allow_is_tried(
    world: PublicWorld, monkeypatch: pytest.MonkeyPatch, architecture: Any
) -> None:
    """Widths are even and end where networks do; who is asked for every item hides none."""
    monkeypatch.setattr(searching, "learn", lambda plan, _: plan)
    monkeypatch.setattr(searching, "scores", lambda plan, *_: np.full(3, float(plan.model.hidden)))
    search = Search(plan_of("sequence", architecture=architecture, hidden=254), world, "ndcg@20", seed=0)
    for _ in range(12):
        search.try_next()
    assert [tried.problem for tried in search.trials] == [None] * 12
    assert search.trials[0].values == values_of(search.plan)
    assert len({tried.values["model.hidden"] for tried in search.trials}) > 3
    found = {dimension.path: dimension for dimension in search.dimensions}
    assert ("model.input_dropout" in found) == (architecture == "masked")
    assert (found["model.hidden"].low, found["model.hidden"].high) == (64, 512)


@pytest.mark.parametrize("width", [2, 4, 6, 512])
@pytest.mark.parametrize("end", ["low", "high"])
def test_the_ends_of_a_network_s_width_are_widths(width: int, end: str) -> None:
    plan = plan_of("sequence", architecture="gru", hidden=width)
    (found,) = (each for each in dimensions(plan) if each.path == "model.hidden")
    assert found.low <= width <= found.high
    with_values(plan, {"model.hidden": getattr(found, end)})


def test_choosing_and_measuring_people_are_different_and_none_is_learnt_twice(world: PublicWorld) -> None:
    ids = [
        {rows.user_ids[user] for user in np.unique(rows.frame["user_index"].to_numpy())}
        for rows in (world.validation, world.test)
    ]
    assert not ids[0] & ids[1]
    parties = world.parties(10_000)
    everybody = [user_id for party in parties for user_id in party.user_ids]
    assert len(everybody) == len(set(everybody))
    assert sum(party.num_interactions for party in parties) == world.train.num_interactions
    assert all(np.bincount(party.frame["user_index"]).max() <= 5 for party in world.parties(5))


def test_the_public_plan_speaks_of_the_public_people(world: PublicWorld) -> None:
    plan = public_plan(plan_of("autoencoder", start_from=SHA, holdout="last"), world)
    assert plan.catalogue.sha256 == world.train.catalogue.sha256
    assert plan.max_users_per_silo == world.most_users
    assert plan.training.expected_batch_size == 3 * world.most_users
    assert plan_epsilon(plan) <= 4.0
    assert plan.model.family == "autoencoder"
    assert plan.model.start_from is None


def test_a_search_begins_with_the_plan_and_stays_in_its_space(world: PublicWorld) -> None:
    search = Search(plan_of("popularity", max_interactions_per_user=30), world, "ndcg@20", seed=0)
    for _ in range(4):
        search.try_next()
    assert search.trials[0].values == values_of(search.plan)
    assert all(7 <= tried.values["max_interactions_per_user"] <= 120 for tried in search.trials)
    assert all(tried.value is not None and 0 < tried.value < 1 for tried in search.trials)
    found = search.confirm(lambda _: None)
    assert found.chosen in found.repeated
    assert found.repeated[GIVEN].values == values_of(search.plan)
    assert total_seconds(found.trials[0], 4) == pytest.approx(10 * found.trials[0].seconds)


PEOPLE = 50
OF_PEOPLE = np.linspace(0.1, 0.5, PEOPLE)
TO_AND_FRO = np.where(np.arange(PEOPLE) % 2, 0.1, -0.1)


@pytest.mark.parametrize(
    ("again", "chosen"),
    [
        ([OF_PEOPLE - 0.1] * 3, GIVEN),
        ([OF_PEOPLE + 0.0005 + TO_AND_FRO] * 3, GIVEN),
        ([OF_PEOPLE + 0.04 + TO_AND_FRO] * 3, WINNER),
        ([OF_PEOPLE + lead for lead in (0.12, -0.03, 0.03)], GIVEN),
        ([OF_PEOPLE + lead for lead in (0.05, 0.04, 0.03)], WINNER),
        ([OF_PEOPLE] * 3, GIVEN),
    ],
    ids=["worse", "people differ", "clear", "noise differs", "clear beside noise", "equal"],
)
def test_a_winner_by_luck_is_not_proposed(
    world: PublicWorld, monkeypatch: pytest.MonkeyPatch, again: list[np.ndarray], chosen: str
) -> None:
    """Trial 1 looks best; what counts is the difference, person by person, when both are learnt again."""
    search = Search(plan_of("popularity", max_interactions_per_user=30), world, "ndcg@20", seed=0)
    own = values_of(search.plan)["max_interactions_per_user"]
    fresh: list[np.ndarray] = []

    def scored(plan: Any, _: Any, held_out: Any, __: str) -> np.ndarray:
        if plan.max_interactions_per_user == own:
            return OF_PEOPLE
        if not fresh:
            return OF_PEOPLE + 0.3
        return fresh.pop(0) if held_out is world.test else OF_PEOPLE + 0.3

    monkeypatch.setattr(searching, "learn", lambda plan, _: plan)
    monkeypatch.setattr(searching, "scores", scored)
    search.try_next(), search.try_next()
    assert search.best().number == 1
    fresh.extend(again)
    found = search.confirm(lambda _: None)
    assert set(found.repeated) == {GIVEN, WINNER}
    assert found.lead is not None
    assert found.lead.value == pytest.approx(np.mean(again) - OF_PEOPLE.mean())
    assert found.chosen == chosen


def test_a_lead_has_the_error_of_what_varies_between_people_and_between_repeats() -> None:
    rng = np.random.default_rng(1)
    leads, errors = [], []
    for _ in range(2_000):
        people = rng.normal(0.3, 1.0, 40)  # alike under both settings: it must not count
        given = people + rng.normal(0, 0.02, (3, 1))
        winner = people + rng.normal(0, 0.1, 40) + rng.normal(0, 0.02, (3, 1))
        lead = Lead.of(given, winner)
        leads.append(lead.value)
        errors.append(lead.standard_error**2)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(leads), rel=0.06)
    assert np.std(leads) == pytest.approx(np.sqrt(0.01 / 40 + 2 * 0.0004 / 3), rel=0.06)


def test_a_trial_that_cannot_be_is_noted_and_passed_over(world: PublicWorld) -> None:
    search = Search(plan_of("autoencoder", bias_epsilon=2.0), world, "ndcg@20", seed=0)
    search.plan = search.plan.model_copy(
        update={"privacy": search.plan.privacy.model_copy(update={"target_epsilon": 1.0})}
    )
    tried = search.try_next()
    assert tried.value is None
    assert tried.problem
    with pytest.raises(NothingToTuneError):
        search.best()


def test_a_search_writes_a_plan_a_drawing_and_json(public: Path, tmp_path: Path) -> None:
    save_yaml(tmp_path / "plan.yaml", plan_of("popularity"))
    chart, out = tmp_path / "trials.html", tmp_path / "tuned.yaml"
    done = run("--plan", tmp_path / "plan.yaml", "--data", public, "--trials", "3", "--out", out, "--chart",
               chart, "--json", "-", "--dir", tmp_path)  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert "about" in done.stderr
    assert found["epsilon"] == 0.0
    assert len(found["trials"]) == 3
    assert found["metric"] in METRICS
    assert (found["lead"] is None) == (list(found["repeated"]) == [GIVEN])
    tuned = load_yaml(out, Plan)
    chosen = found["repeated"][found["chosen"]]["values"]["max_interactions_per_user"]
    assert tuned.max_interactions_per_user == chosen
    assert tuned.catalogue == plan_of("popularity").catalogue
    drawn = chart.read_text()
    assert drawn.count("<circle") == 6
    assert "<script" not in drawn
    assert run("--plan", tmp_path / "plan.yaml", "--out", out).exit_code == ExitCode.USAGE


def test_looking_at_the_cost_writes_nothing(public: Path, tmp_path: Path) -> None:
    save_yaml(tmp_path / "plan.yaml", plan_of("popularity"))
    done = run("--plan", tmp_path / "plan.yaml", "--data", public, "--dry-run", "--dir", tmp_path)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.yaml"]


def test_the_silo_s_own_rows_are_never_taken_for_public(public: Path, tmp_path: Path) -> None:
    save_yaml(tmp_path / "plan.yaml", plan_of("popularity"))
    table = public / "interactions.csv"
    for source in (f"csv: {table}", f"csv: {public}/*.csv"):
        policy = POLICY.replace("parquet: rows.parquet", source)
        (tmp_path / "policy.yaml").write_text(policy)
        for named in (table, public):
            done = run("--plan", tmp_path / "plan.yaml", "--data", named, "--dir", tmp_path)
            assert done.exit_code == ExitCode.USAGE
            assert "not public" in done.output


@pytest.mark.parametrize(
    "words", [(), ("--epsilon", "1"), ("--keep",), ("--plan", "plan.yaml", "--metric", "coverage@20")]
)
def test_what_means_nothing_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    save_yaml(tmp_path / "plan.yaml", plan_of("popularity"))
    given = [tmp_path / word if word == "plan.yaml" else word for word in words]
    assert run(*given, "--dir", tmp_path).exit_code == ExitCode.USAGE


def test_the_verdict_names_lead_and_error() -> None:
    lead = {"value": 0.0123, "standard_error": 0.0045}
    kept, proposed = (verdict({"lead": lead, "chosen": chosen}) for chosen in (GIVEN, WINNER))
    assert all("+0.0123 (standard error 0.0045)" in said for said in (kept, proposed))
    assert "stays as it is" in kept
    assert "at least 2 standard errors better, so it is proposed" in proposed
    assert "proposed unchanged" in verdict({"lead": None, "chosen": GIVEN})
