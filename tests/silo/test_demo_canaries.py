"""Who is in a recorded demo: coins decide, and rows follow the coins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from silo.demo.canaries import CANARY_ITEMS, Cast, cast
from silo.demo.dataset import load_set, prepare
from silo.demo.settings import DemoSettings
from tests.support.small_set import write_set

HONEST = ("shop-a", "shop-b")
SEED = (7 << 64) + 5


def settings_of(data: Path, **changes: object) -> DemoSettings:
    fields = {
        "data": data, "format": None, "min_rating": None, "num_silos": 3, "epsilon": 4.0, "delta": 1e-5,
        "colluding_silos": None, "family": "item-graph", "split": "random", "seed": 0, "num_seeds": 1,
        "out": data / "run", "record": True, "canaries": 400,
    }  # fmt: skip
    return DemoSettings(**(fields | changes)).check()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> DemoSettings:
    return settings_of(write_set(tmp_path_factory.mktemp("cast") / "set"))


@pytest.fixture(scope="module")
def played(settings: DemoSettings) -> Cast:
    return cast(prepare(settings, load_set(settings, 0), 0), settings, HONEST, SEED)


def test_silos_hold_exactly_the_canaries_that_are_in(settings: DemoSettings, played: Cast) -> None:
    for number, name in enumerate(settings.silo_names):
        held = set(played.data.rows_of(number)["user_id"].to_list())
        canaries = {user for user in held if user.startswith("canary-")}
        assert canaries == {coin.user_id for coin in played.canaries if coin.is_in and coin.silo == name}
    assert {coin.silo for coin in played.canaries} == set(HONEST)
    assert 0.4 < np.mean([coin.is_in for coin in played.canaries]) < 0.6


def test_a_canarys_rows_are_the_same_whether_it_is_in_or_out(settings: DemoSettings, played: Cast) -> None:
    counts = played.rows.group_by("user_id").len()
    assert counts.height == 400
    assert set(counts["len"].to_list()) == {CANARY_ITEMS}
    mine = played.data.rows_of(0)
    for coin in [coin for coin in played.canaries if coin.is_in and coin.silo == "shop-a"][:20]:
        expected = played.rows.filter(played.rows["user_id"] == coin.user_id)["item_id"].to_list()
        assert sorted(mine.filter(mine["user_id"] == coin.user_id)["item_id"].to_list()) == sorted(expected)


def test_real_people_are_where_their_coin_says(settings: DemoSettings, played: Cast) -> None:
    assert 0 < sum(coin.is_in for coin in played.people) < len(played.people)
    present = set(played.data.train.user_ids)
    assert all((coin.user_id in present) == coin.is_in for coin in played.people)
    for number, name in enumerate(settings.silo_names):
        real = played.real_rows(name, number, took_part=True)
        out = played.real_rows(name, number, took_part=False)
        assert set(out["user_id"].to_list()) <= {c.user_id for c in played.people if not c.is_in}
        held = played.data.rows_of(number)
        not_canaries = held.filter(~held["user_id"].str.starts_with("canary-"))
        assert sorted(not_canaries.rows()) == sorted(real.rows())


def test_one_seed_tosses_the_same_coins_and_another_others(settings: DemoSettings, played: Cast) -> None:
    data = prepare(settings, load_set(settings, 0), 0)
    assert cast(data, settings, HONEST, SEED).canaries == played.canaries
    assert cast(data, settings, HONEST, SEED + 1).canaries != played.canaries
    assert cast(data, settings, HONEST, SEED + (1 << 64)).canaries != played.canaries
