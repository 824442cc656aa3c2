"""``archipel adapt``: what is recent, what following it is worth, and when a new plan is proposed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

import cli
from policies.files import load_yaml
from policies.plans.plan import Plan
from privacy.errors import ExitCode
from privacy.events import SAMPLER, GaussianEvent
from silo.adapting.drift import MIN_PEOPLE, Mean, popularity_shift, reasons
from silo.adapting.refreshing import next_plan, refresh
from silo.adapting.windows import Windows, load_windows, training_time
from silo.checkpoints import save_checkpoint
from silo.data.interactions import Interactions
from silo.finished import load_finished
from silo.local.files import Source
from silo.local.fitting import fit_local
from silo.rows import load_rows
from silo.site import Site
from tests.support.joined_silo import GOOD, make_joined_silo, taste_model
from tests.support.local_silo import local_plan
from tests.support.small_set import NUM_ITEMS, user_name

FIRST = 1_600_000_000
SINCE = FIRST + 1_000
DAY = datetime.fromtimestamp(SINCE, UTC).strftime("%Y-%m-%dT%H:%M:%S")
NO_NEWS = {"outside_share": 0.0}


def run(directory: Path, *words: str, since: str | None = DAY) -> Result:
    told = () if since is None else ("--since", since)
    return CliRunner().invoke(cli.app, ["adapt", *words, *told, "--dir", str(directory)])


def values(directory: Path, *words: str) -> dict[str, Any]:
    done = run(directory, *words, "--json", "-")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_joined_silo(tmp_path_factory.mktemp("joined"))


@pytest.fixture
def silo(joined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(joined, tmp_path / "shop-a"))


def write_later(directory: Path, rows: list[tuple[str, str, int]]) -> None:
    """Append rows; times count from the training."""
    path = directory / "rows.parquet"
    old = pl.read_parquet(path)
    new = [(user, item, SINCE + at) for user, item, at in rows]
    pl.concat([old, pl.DataFrame(new, schema=old.schema, orient="row")]).write_parquet(path)


def later_rows(directory: Path, *, turned: bool) -> list[tuple[str, str, int]]:
    """Two more rows of everybody by the set's own law, of their own taste or of another."""
    rng = np.random.default_rng(4)
    known = pl.read_parquet(directory / "rows.parquet")
    had = {user: set(part["item_id"]) for (user,), part in known.group_by("user_id")}
    rows = []
    for user in range(320):
        taste = (user + (2 if turned else 0)) % 4
        name = user_name(user)
        odds = (1.0 + np.arange(NUM_ITEMS)) ** -0.7 * np.where(np.arange(NUM_ITEMS) % 4 == taste, 8.0, 1.0)
        odds[[int(item[-4:]) for item in had[name]]] = 0.0
        new = rng.choice(NUM_ITEMS, 2, replace=False, p=odds / odds.sum())
        rows += [(name, f"item-{item:04d}", place) for place, item in enumerate(new)]
    return rows


def windows_of(directory: Path) -> Windows:
    return load_windows(directory, load_finished(directory), datetime.fromtimestamp(SINCE, UTC))


def test_rows_are_parted_at_the_training_and_a_pair_is_new_once(silo: Path) -> None:
    known = pl.read_parquet(silo / "rows.parquet").row(0)
    write_later(silo, [(known[0], known[1], 5), (known[0], "item-0139", 6), ("stranger", "item-0001", 7)])
    windows = windows_of(silo)
    assert windows.recent_rows == 3
    assert windows.recent.num_interactions == 2
    assert windows.targets.num_interactions == 2
    assert "stranger" in windows.recent.user_ids
    assert windows.before.frame["timestamp"].max() < SINCE  # type: ignore[operator]


def test_the_target_is_no_part_of_the_history(silo: Path) -> None:
    write_later(silo, later_rows(silo, turned=False))
    windows = windows_of(silo)
    both = windows.followed.frame.join(windows.targets.frame, on=["user_index", "item_index"], how="semi")
    assert both.is_empty()
    total = windows.before.num_interactions + windows.recent.num_interactions
    assert windows.followed.num_interactions + windows.targets.num_interactions == total
    learnt = windows.train.frame.join(windows.held_out.frame, on=["user_index", "item_index"], how="semi")
    assert learnt.is_empty()


def test_who_has_opted_out_is_in_no_figure(silo: Path) -> None:
    write_later(silo, [(user_name(3), "item-0139", 5), (user_name(3), "elsewhere", 6)])
    (silo / "no.csv").write_text(f"user_id\n{user_name(3)}\n")
    windows = windows_of(silo)
    assert user_name(3) not in windows.before.user_ids
    assert (windows.recent_rows, windows.outside_rows) == (0, 0)


def shares(rows: Interactions) -> set[tuple[str, int, float]]:
    """Who has what with which weight, under whatever indices."""
    columns = (rows.frame[name] for name in ("user_index", "item_index", "weight"))
    return {(rows.user_ids[user], item, weight) for user, item, weight in zip(*columns, strict=True)}


@pytest.mark.parametrize("holdout", ["last", "random"])
def test_windows_are_of_what_the_training_counted(silo: Path, holdout: str) -> None:
    """Ratings, kinds of events and equal times: what was learnt from and held out is found again."""
    finished = load_finished(silo)
    table = pl.read_parquet(silo / "rows.parquet")
    place = pl.int_range(pl.len())
    told = table.with_columns(
        pl.when(place % 3 == 0).then(2.0).otherwise(5.0).alias("stars"),
        pl.when(place % 2 == 0).then(pl.lit("buy")).otherwise(pl.lit("view")).alias("kind"),
        pl.lit(FIRST).alias("timestamp"),
    )
    told.write_parquet(silo / "rows.parquet")
    columns = finished.dataset.columns.model_copy(update={"rating": "stars", "event": "kind"})
    counting = {"columns": columns, "min_rating": 4.0, "events": {"buy": 3.0, "view": 1.0}}
    dataset = finished.dataset.model_copy(update=counting)
    plan = local_plan(finished.catalogue, holdout=holdout, max_interactions_per_user=5)
    trained = load_rows(silo, plan, dataset)
    late = told.head(2).with_columns(pl.lit("item-0139").alias("item_id"), pl.lit(SINCE).alias("timestamp"))
    pl.concat([told, late]).write_parquet(silo / "rows.parquet")
    known = replace(finished, dataset=dataset, plan=plan)
    windows = load_windows(silo, known, datetime.fromtimestamp(SINCE, UTC))
    assert shares(windows.train) == shares(trained.train)
    assert shares(windows.held_out) <= shares(trained.held_out)
    if holdout == "last":
        assert shares(windows.held_out) == shares(trained.held_out)
    assert windows.before.num_interactions == told.filter(pl.col("stars") > 4)["item_id"].len()
    assert windows.recent.num_interactions == late.filter(pl.col("stars") > 4).unique("user_id").height


def test_people_who_stay_as_they_were_age_nothing(silo: Path) -> None:
    write_later(silo, later_rows(silo, turned=False))
    found = values(silo, "--propose", str(silo / "next.yaml"))
    assert found["reasons"] == []
    assert found["proposal"] is None
    assert not (silo / "next.yaml").exists()
    assert found["quality"]["now"]["people"] > MIN_PEOPLE
    assert found["epsilon"] == 0.0


def test_people_who_have_turned_age_the_model_and_a_plan_is_proposed(silo: Path) -> None:
    write_later(silo, later_rows(silo, turned=True))
    target = silo / "next.yaml"
    done = run(silo, "--propose", str(target), "--json", "-")
    found = json.loads(done.stdout)
    assert "fell from" in found["reasons"][0]
    assert "Submitting it tells the others" in done.stderr
    assert load_yaml(target, Plan).privacy.target_epsilon == load_finished(silo).plan.privacy.target_epsilon
    assert run(silo, "--propose", str(target)).exit_code == ExitCode.USAGE


def test_items_outside_the_catalogue_age_the_model(silo: Path) -> None:
    write_later(silo, [(user_name(user), f"new-{user}", user) for user in range(40)])
    found = values(silo)
    assert found["recent"]["outside_share"] == 1.0
    assert "outside the catalogue" in found["reasons"][0]


def test_following_new_rows_is_worth_something_where_tastes_turn(silo: Path) -> None:
    """Nobody's old rows say what they like now; the first of their new rows does."""
    strangers = [
        (f"stranger-{n}", f"item-{item:04d}", at)
        for n in range(60)
        for at, item in enumerate(range(100 + n % 4, 124, 4))
    ]
    write_later(silo, strangers)
    following = values(silo)["following"]
    assert following["gain"]["value"] > 2 * following["gain"]["standard_error"]


def test_the_ledger_says_since_when_rows_are_new(silo: Path) -> None:
    assert run(silo, since=None).exit_code == ExitCode.DATA
    with Site(silo) as site:
        policy = site.trusted_policy()
        site.ledger_state(policy)
        event = GaussianEvent(noise_multiplier=20.0, sampler=SAMPLER)
        site.ledger.reserve(
            account="customers", job=GOOD, dataset="purchases", plan_sha256="0" * 64,
            policy_sha256=site.ledger.state().accounts["customers"].policy_sha256,
            requested_by="shop-b", events=[(event, 1)],
        )  # fmt: skip
        site.ledger.commit(GOOD, round=1, attempt=1, event=event)
    assert abs((training_time(silo, GOOD) - datetime.now(UTC)).total_seconds()) < 60
    done = run(silo, since=None)
    assert done.exit_code == 0, done.output
    assert "Nothing says that the federated part has aged" in done.output


def test_local_parts_are_learnt_anew_only_when_asked_and_the_blend_with_them(silo: Path) -> None:
    def state(*words: str) -> tuple[str, bool]:
        local = values(silo, *words)["local"]
        return local["state"], local["blend"]

    assert state() == ("absent", False)
    for words in (("fit", "--local"), ("compare", "--keep")):
        done = CliRunner().invoke(cli.app, [*words, "--dir", str(silo)])
        assert done.exit_code == 0, done.output
    assert state("--refresh") == ("current", False)
    write_later(silo, later_rows(silo, turned=False))
    parts = (silo / "local" / "purchases" / "parts.safetensors").read_bytes()
    assert state() == ("behind", False)
    assert (silo / "local" / "purchases" / "parts.safetensors").read_bytes() == parts
    assert state("--refresh") == ("refreshed", True)
    assert (silo / "local" / "purchases" / "blend.json").exists()
    assert state("--refresh") == ("current", False)


@pytest.mark.parametrize("changed", ["timestamp", "weight"])
def test_local_parts_fall_behind_where_only_weights_or_times_change(silo: Path, changed: str) -> None:
    """The same pairs, but neighbours read the weights and a network the order."""
    table = pl.read_parquet(silo / "rows.parquet").with_columns(pl.lit(1.0).alias("weight"))
    table.write_parquet(silo / "rows.parquet")
    finished = load_finished(silo)
    columns = finished.dataset.columns.model_copy(update={"weight": "weight"})
    plan = local_plan(finished.catalogue, holdout="random")
    dataset = finished.dataset.model_copy(update={"columns": columns})
    source = Source("purchases", dataset, plan)
    fit_local(silo, source, datetime.now(UTC))

    def state() -> str:
        return str(refresh(silo, "purchases", datetime.now(UTC), keep=False)["state"])

    assert state() == "current"
    table.with_columns(pl.col(changed) * 2).write_parquet(silo / "rows.parquet")
    assert state() == "behind"


def test_nothing_is_spent_and_nothing_is_written_by_looking(silo: Path) -> None:
    before = {path: path.read_bytes() for path in silo.rglob("*") if path.is_file()}
    values(silo)
    assert {path: path.read_bytes() for path in silo.rglob("*") if path.is_file()} == before


def test_a_model_with_weights_goes_on_from_its_checkpoint(silo: Path) -> None:
    finished = load_finished(silo)
    plan = local_plan(finished.catalogue, family="autoencoder", rounds=5)
    sha256 = save_checkpoint(
        silo / "jobs" / GOOD / "checkpoint.safetensors", {"w": np.zeros(3)}, family="autoencoder"
    )
    proposed = next_plan(silo, type(finished)(**(finished.__dict__ | {"plan": plan})))
    assert proposed.model.family == "autoencoder"
    assert proposed.model.start_from == sha256


@pytest.mark.parametrize(
    ("then", "now", "aged"),
    [
        (Mean(900, 0.20, 0.01), Mean(900, 0.12, 0.01), True),
        (Mean(900, 0.20, 0.01), Mean(900, 0.19, 0.001), False),  # more than nothing, less than a tenth
        (Mean(900, 0.20, 0.05), Mean(900, 0.12, 0.05), False),  # chance may do that
        (Mean(20, 0.20, 0.01), Mean(900, 0.05, 0.01), False),  # of too few people
        (Mean(900, 0.12, 0.01), Mean(900, 0.20, 0.01), False),
        (None, Mean(900, 0.20, 0.01), False),
    ],
)
def test_a_loss_counts_where_it_is_large_and_no_chance(
    then: Mean | None, now: Mean | None, aged: bool
) -> None:
    assert bool(reasons(then, now, NO_NEWS)) is aged


def test_a_shift_stands_beside_what_was_usual(silo: Path) -> None:
    """The same items in both stretches: no more shift than before; other items: far more."""
    catalogue = load_finished(silo).catalogue

    def rows(items: list[int], start: int) -> list[tuple[int, int, int]]:
        return [(start + user, item, start + user) for user in range(90) for item in items]

    def shifted(recent: list[int]) -> dict[str, Any]:
        frames = [rows([0, 1], 0) + rows([0, 1], 100), rows(recent, 200)]
        before, now = (
            Interactions(
                tuple(map(str, range(300))),
                pl.DataFrame(part, schema=["user_index", "item_index", "timestamp"], orient="row"),
                catalogue,
            )
            for part in frames
        )
        nothing = Interactions(before.user_ids, before.frame.head(0), catalogue)
        return popularity_shift(Windows(200, before, now, nothing, before, nothing, 0, 180))

    same, other = shifted([0, 1]), shifted([50, 51])
    assert same["now"] == pytest.approx(same["then"], abs=0.05)
    assert other["now"] > 0.9
    assert other["then"] < 0.05
    assert taste_model(catalogue).num_items == NUM_ITEMS
